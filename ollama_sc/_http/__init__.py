"""HTTP: the one room that knows it.

A request walks through it like this. `settings` makes httpx's client of what users configure
(`options`, `host`, `proxies`), and `credentials` masks what of it is shown. `exchange` is one
request and its response: it has `sender` send the request, follows redirects, turns error responses
into exceptions, has `inflate` undo what a proxy compressed, and closes the connection where
anything went wrong. `sender` encodes the request and sends it directly through `transport`, or
through httpx where the settings need it (`via_httpx`).
Below them is `connection`, which stands on `sockets` (those of each loop, and with `tls`) that
`connecting` makes, and on `reader`. `messages` is what the rest of the library speaks, `upload` a
file as a body. In a browser, `fetch` is the transport.

This room may know the life of a call and what error replies look like; it knows no endpoint of the
API, neither `_api` nor `_jobs`.
"""
