"""Whatever cookies a server sets: no later request is spoiled by them, nor grows without bound."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.http.support import nothing

from ollama_sc import AsyncClient
from ollama_sc._http.cookies import bound
from tests.support import is_quiet, raw_server, read_request

BODY = b'{"version":"1"}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(BODY)
LONGEST = 10_000  # bytes of a request's head


def reply(*cookies: bytes) -> bytes:
    return HEAD + b"".join(b"Set-Cookie: %b\r\n" % one for one in cookies) + b"\r\n" + BODY


HOSTILE = {
    "many": [[b"name%d=%b; Path=/" % (n, b"v" * 4000)] for n in range(200)],
    "many small": [[b"n%d=%d" % (n, n)] for n in range(400)],
    "many at once": [[b"n%d=%b" % (n, b"v" * 500) for n in range(100)]] * 3,
    "many paths": [[b"a=%b; Path=/api/%b" % (b"v" * 3000, b"p" * n)] for n in range(100)],
    "long": [[b"a=" + b"v" * 60_000]],
    "UTF-8": [["a=é漢🙂".encode()]],
    "Latin-1": [[b"a=\xe9"], [b"\xfc=b"]],
    "control": [[b"a=b\tc"], [b"a\tb=c"]],  # others are no HTTP
    "odd": [
        [b"=", b";;;", b"a", b"a=b; Expires=never; Max-Age=9" + b"9" * 5000, b'a="\\'],
        [b"a=b; Domain=.example.com", b"a=b; Expires=Wed, 99 Foo 99999 99:99:99 GMT"],
    ],
}


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["short", "httpx"])
@pytest.mark.parametrize("kind", HOSTILE)
async def test_no_cookie_spoils_a_later_request(anyio_backend: Any, kind: str, way: str) -> None:
    """Each request is sent, with a head that servers take."""
    sizes: list[int] = []

    async def handle(stream: Any) -> None:
        while request := await read_request(stream):
            cookies = HOSTILE[kind][min(len(sizes), len(HOSTILE[kind]) - 1)]
            sizes.append(len(request))
            await stream.send(reply(*cookies))

    options: Any = {} if way == "short" else {"event_hooks": {"request": [nothing]}}
    async with raw_server(handle) as url, AsyncClient(url, **options) as client:
        for _ in range(len(HOSTILE[kind]) + 3):
            assert (await client.version()).version == "1"
        assert is_quiet(client)
    assert max(sizes) < LONGEST


@pytest.mark.anyio
async def test_the_newest_cookies_stay_and_the_users(anyio_backend: Any) -> None:
    """The oldest of the server's go first; those that the user gave never."""
    seen: list[bytes] = []

    async def handle(stream: Any) -> None:
        while request := await read_request(stream):
            seen.append(request)
            await stream.send(reply(b"c%d=%b; Path=/" % (len(seen), b"v" * 1000)))

    async with raw_server(handle) as url, AsyncClient(url, cookies={"mine": "1"}) as client:
        for _ in range(30):
            await client.version()
    assert b"mine=1" in seen[-1]
    assert b"c29=" in seen[-1]
    assert b"c1=" not in seen[-1]


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    st.lists(
        st.binary(max_size=60).map(lambda text: text.replace(b"\r", b"").replace(b"\n", b""))
        | st.builds(
            lambda name, value, rest: b"%b=%b; %b" % (name, value, rest),
            st.sampled_from([b"a", b"b", b"\xe9", b"x" * 3000]),
            st.sampled_from([b"", b"1", b"\xe9", b'"', b"y" * 5000]) | st.binary(max_size=9),
            st.sampled_from([b"", b"Path=/", b"Path=/api", b"Max-Age=0", b"Version=1", b"Secure"]),
        ),
        max_size=12,
    )
)
def test_any_cookies(given_cookies: list[bytes]) -> None:
    """Whatever is set, what is sent back is a header that can be sent."""
    cookies = httpx.Cookies()
    bound(cookies.jar)
    request = httpx.Request("GET", "http://127.0.0.1:1/api/version")
    for one in given_cookies:
        headers = [(b"Set-Cookie", one)]
        cookies.extract_cookies(httpx.Response(200, headers=headers, request=request))
    cookies.set_cookie_header(request)
    for name, value in request.headers.raw:
        assert name.isascii()
        assert value.isascii()
        assert len(value) < LONGEST
