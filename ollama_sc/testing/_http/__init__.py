"""HTTP/1.1: from a socket to a recorded request, from a message to bytes with faults.

`stream` (a socket), `request` (the record, with events of `shared`), `sending` (one response), then
`connection`, which parses requests and calls the server by its protocol `Server`, and `listener`,
which accepts them; `access` checks `Origin` and `Host`. Knows no endpoints.
"""
