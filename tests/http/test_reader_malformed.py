"""Replies that no server should send: an exception of httpx's, or the one right reading of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import httpx
import pytest

from ollama_sc import AsyncClient, OllamaError
from tests.http.support import CHUNKED, OK
from tests.support import MESSAGES, is_quiet
from tests.wire import (
    Peer,
    all_idle,
    all_of,
    answering,
    client_context,
    connected,
    fetch,
    plain_and_tls,
    quick,
    serving,
    settle,
    works,
)

pytestmark = pytest.mark.anyio


def length(value: bytes, body: bytes = b"hello") -> bytes:
    return OK + b"Content-Length: " + value + b"\r\n\r\n" + body


def coded(*values: bytes, body: bytes = b"5\r\nhello\r\n0\r\n\r\n") -> bytes:
    lines = b"".join(b"Transfer-Encoding: " + value + b"\r\n" for value in values)
    return OK + lines + b"\r\n" + body


def header(line: bytes) -> bytes:
    return OK + line + b"\r\nContent-Length: 5\r\n\r\nhello"


# After each of these the server ends the connection. They can be read in no way at all.
REFUSED = {
    "size-word": CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n",
    "size-negative": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "size-plus": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "size-0x": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "size-empty": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "size-huge": CHUNKED + b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "size-almost-huge": CHUNKED + b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "size-wraps": CHUNKED + b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "size-too-small": CHUNKED + b"4\r\nhello\r\n0\r\n\r\n",
    "size-too-big": CHUNKED + b"6\r\nhello\r\n0\r\n\r\n",
    "size-alone": CHUNKED + b"5\r\nhello",
    "size-underscore": CHUNKED + b"0_5\r\nhello\r\n0\r\n\r\n",
    "size-nul": CHUNKED + b"5\x00\r\nhello\r\n0\r\n\r\n",
    "length-negative": length(b"-5"),
    "length-plus": length(b"+5"),
    "length-word": length(b"five"),
    "length-hex": length(b"0x5"),
    "length-underscore": length(b"0_5"),
    "length-spaced": length(b"0 5"),
    "length-empty": length(b""),
    "length-exponent": length(b"1e3"),
    "length-huge": length(b"99999999999999999999999999"),
    "length-wraps": length(b"18446744073709551621"),
    "length-almost-huge": length(b"9223372036854775807"),
    "length-digits": length("５".encode()),
    "lengths-differ": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "lengths-differ-in-one": length(b"5, 6", b"hello!"),
    "coding-gzip": coded(b"gzip, chunked"),
    "coding-gzip-lines": coded(b"gzip", b"chunked"),
    "coding-chunked-gzip": coded(b"chunked", b"gzip"),
    "header-no-colon": header(b"nothing"),
    "header-no-name": header(b": x"),
    "header-space-in-name": header(b"a b: x"),
    "header-nul-in-name": header(b"a\x00b: x"),
    "header-nul": header(b"a: x\x00y"),
    "header-bare-cr": header(b"a: x\ry"),
    "header-latin-name": header("ä: x".encode()),
    "fold-first": OK + b" a: b\r\nContent-Length: 5\r\n\r\nhello",
    "status-word": b"HTTP/1.1 2x0 OK\r\n\r\n",
    "status-short": b"HTTP/1.1 20 OK\r\n\r\n",
    "status-long": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status-negative": b"HTTP/1.1 -20 OK\r\n\r\n",
    "status-none": b"HTTP/1.1\r\n\r\n",
    "status-glued": b"HTTP/1.1200 OK\r\n\r\n",
    "version-word": b"HTTP/x.y 200 OK\r\n\r\n",
    "version-9": b"HTTP/9.9 200 OK\r\n\r\n",
    "name-lower": b"http/1.1 200 OK\r\n\r\n",
    "name-other": b"HTTQ/1.1 200 OK\r\n\r\n",
    "request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "icy": b"ICY 200 OK\r\n\r\n",
    "text": b"Ollama is running",
    "text-lines": b"Ollama\nis\nrunning\n",
    "html": b"<html><body>hello</body></html>",
    "json": b'{"version":"1"}\n',
    "zeros": b"\x00" * 64,
    "preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\x00\x04\x00\x00\xff\xff",
    "tls": b"\x15\x03\x01\x00\x02\x02\x46",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "blank": b"\r\n\r\n\r\n",
    "nothing": b"",
    "informed-only": b"HTTP/1.1 100 Continue\r\n\r\n",
}
# These can be refused, or be read in this one way.
TOLERATED = {
    "size-spaced": (CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n", b"hello"),
    "size-space-first": (CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "size-lone-lf": (CHUNKED + b"5\nhello\n0\n\n", b"hello"),
    "size-zeros": (CHUNKED + b"0" * 40 + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "lengths-equal": (OK + b"Content-Length: 5\r\n" * 2 + b"\r\nhello", b"hello"),
    "lengths-equal-in-one": (length(b"5, 5"), b"hello"),
    "length-spaces-around": (length(b" \t5 \t"), b"hello"),
    "length-zeros": (length(b"0000000000000000000000000000005"), b"hello"),
    "length-and-chunked": (
        OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"hello",
    ),
    "chunked-and-length": (
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"hello",
    ),
    "coding-case": (coded(b"CHUNKED"), b"hello"),
    "coding-list": (coded(b"identity, chunked"), b"hello"),
    "coding-lines": (coded(b"identity", b"chunked"), b"hello"),
    "chunked-1.0": (CHUNKED.replace(b"1.1", b"1.0") + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "coding-tab": (coded(b"chunked\t"), b"hello"),
    "coding-space-tab": (coded(b"chunked \t "), b"hello"),
    "coding-comma": (coded(b"chunked,"), b"hello"),
    "coding-comma-first": (coded(b",chunked"), b"hello"),
    "coding-twice": (coded(b"chunked, chunked"), b"5\r\nhello\r\n0\r\n\r\n"),
    "coding-twice-lines": (coded(b"chunked", b"chunked"), b"hello"),
    "coding-parameter": (coded(b"chunked;q=1"), b"hello"),
    "coding-other": (coded(b"xchunked", body=b"hello"), b"hello"),
    "coding-identity": (coded(b"identity", body=b"hello"), b"hello"),
    "fold": (header(b"a: b\r\n c"), b"hello"),
    "fold-tab": (header(b"a: b\r\n\tc"), b"hello"),
    "space-before-colon": (header(b"a : b"), b"hello"),
    "control": (header(b"a: \x01\x7f"), b"hello"),
    "lone-lf": (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", b"hello"),
    "blank-first": (b"\r\n\r\n" + length(b"5"), b"hello"),
    "status-0": (b"HTTP/1.1 000 Nothing\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "status-999": (b"HTTP/1.1 999 Much\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "status-no-reason": (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "status-odd-reason": (b"HTTP/1.1 200 \xff\xfe\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "version-1.2": (b"HTTP/1.2 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "version-0.9": (b"HTTP/0.9 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "version-2": (b"HTTP/2.0 200 OK\r\n\r\nhello", b"hello"),
    "205": (b"HTTP/1.1 205 Reset\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "trailer-length": (
        CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n",
        b"hello",
    ),
    "trailer-chunked": (
        CHUNKED + b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"hello",
    ),
}


async def broken(transport: Any, server: Any, name: str) -> Any:
    try:
        return await fetch(transport, f"{server.url}/{name}")
    except (httpx.HTTPError, TimeoutError) as error:
        return error


@quick
@plain_and_tls
async def test_replies_that_cannot_be_read(anyio_backend: Any, secure: bool) -> None:
    """Each is a RemoteProtocolError, in one piece or byte by byte, and its connection is closed."""

    async def whole(peer: Peer, reply: bytes) -> None:
        await peer.send(reply)
        await peer.finish()
        await peer.gone()

    async def drip(peer: Peer, reply: bytes) -> None:
        for start in range(len(reply)):
            await peer.send(reply[start : start + 1])
            await settle(1)
        await peer.finish()
        await peer.gone()

    replies = {f"/{name}": partial(whole, reply=reply) for name, reply in REFUSED.items()}
    replies |= {f"/drip-{name}": partial(drip, reply=reply) for name, reply in REFUSED.items()}

    wrong = {}

    async def ask(name: str) -> None:
        outcome = await broken(transport, server, name)
        if type(outcome) is not httpx.RemoteProtocolError or not str(outcome):
            wrong[name] = outcome
        await works(transport, server, name)

    async with (
        serving(answering(replies), tls=secure) as server,
        connected(secure) as transport,
    ):
        await all_of(partial(ask, name[1:]) for name in replies)
        assert not wrong
        assert all_idle(transport)
        await server.until_open(transport.connections().open)


@quick
@plain_and_tls
async def test_replies_that_can_be_read_in_one_way(anyio_backend: Any, secure: bool) -> None:
    """Each is read in that way or refused; the next request gets its own reply."""

    async def send(peer: Peer, reply: bytes) -> None:
        await peer.send(reply)
        await settle(10)
        await peer.finish()
        await peer.gone()

    replies = {f"/{name}": partial(send, reply=reply) for name, (reply, _) in TOLERATED.items()}

    wrong = {}

    async def ask(name: str) -> None:
        outcome = await broken(transport, server, name)
        if isinstance(outcome, Exception):
            right = type(outcome) is httpx.RemoteProtocolError
        else:
            right = outcome.body == TOLERATED[name][1]
        if not right:
            wrong[name] = outcome
        await works(transport, server, name)

    async with (
        serving(answering(replies), tls=secure) as server,
        connected(secure) as transport,
    ):
        await all_of(partial(ask, name) for name in TOLERATED)
        assert not wrong
        assert all_idle(transport)
        await server.until_open(transport.connections().open)


async def test_what_must_be_read(anyio_backend: Any) -> None:
    """Odd things that real servers and proxies send, and that are right, are not refused."""
    odd = {
        "coding-case": (coded(b"CHUNKED"), b"hello"),
        "no-reason": (b"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        "latin": (header("a: Zoë".encode("latin-1")), b"hello"),
        "utf-8": (header("a: Zoë".encode()), b"hello"),
        "empty": (header(b"a:"), b"hello"),
        "tabs": (header(b"a:\tb\tc\t"), b"hello"),
        "token": (header(b"!#$%&'*+-.^_`|~09azAZ: b"), b"hello"),
        "extension": (CHUNKED + b'5 ; a = "b;c" ;d\r\nhello\r\n0\r\n\r\n', b"hello"),
        "upper": (CHUNKED + b"A\r\nhellohello\r\n0\r\n\r\n", b"hellohello"),
        "upgrade-offer": (header(b"Upgrade: h2,h2c\r\nConnection: Upgrade"), b"hello"),
        "keep-alive": (header(b"Connection: keep-alive\r\nKeep-Alive: timeout=5"), b"hello"),
        "600": (b"HTTP/1.1 600 Odd\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    }
    replies = {f"/{name}": reply for name, (reply, _) in odd.items()}
    async with serving(answering(replies)) as server, connected() as transport:
        for name, (_, body) in odd.items():
            if name == "extension":
                continue  # spaces around its signs are for those who like them
            got = await fetch(transport, f"{server.url}/{name}")
            assert got.body == body, name
        assert len(server.peers) == 1


async def test_headers_keep_order_case_and_number(anyio_backend: Any) -> None:
    """Raw headers arrive as they were sent, several of one name too, without the space around."""
    headers = [(b"B", b"1"), (b"a", b"2 \t2"), (b"b", b""), (b"Set-Cookie", b"c=1"), (b"B", b"1")]
    lines = b"".join(b"%s: \t%s \r\n" % pair for pair in headers)
    async with serving(answering({"/": OK + lines + b"Content-Length: 0\r\n\r\n"})) as server:
        async with connected() as transport:
            got = await fetch(transport, server.url + "/")
    assert got.headers == [*headers, (b"Content-Length", b"0")]
    assert (got.version, got.reason) == (b"HTTP/1.1", b"OK")


@plain_and_tls
async def test_switching_protocols(anyio_backend: Any, secure: bool) -> None:
    """A 101 that nobody asked for is an error or a reply; its connection is not used again."""
    switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"

    async def handle(peer: Peer) -> None:
        await peer.send(switch, b"\x00\x01\x02 no http")
        await peer.finish()
        await peer.gone()

    async with (
        serving(answering({"/": handle}), tls=secure) as server,
        connected(secure) as transport,
    ):
        outcome = await broken(transport, server, "")
        if isinstance(outcome, Exception):
            assert type(outcome) is httpx.RemoteProtocolError
        else:
            assert outcome.status == 101
        await works(transport, server)
        await server.until_open(1)
        assert transport.connections() == (1, 1)


@plain_and_tls
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_client_gives_its_own_errors(
    anyio_backend: Any, stream: bool, secure: bool
) -> None:
    """Whatever a server sends, a call raises an OllamaError with a cause and a text."""

    async def handle(peer: Peer) -> None:
        while (await peer.request()) is not None:
            await peer.send(reply)
            await peer.finish()
            await peer.gone()

    reply = b""
    options: Any = {"verify": client_context()} if secure else {}
    async with serving(handle, tls=secure) as server:
        async with AsyncClient(server.url, **options) as client:
            for name, bytes_ in REFUSED.items():
                reply = bytes_
                with pytest.raises(OllamaError) as caught:
                    async with await client.chat("m", MESSAGES, stream=True) as parts:
                        [part async for part in parts]
                    pytest.fail(name)
                assert "POST /api/chat, model 'm'" in str(caught.value), name
                assert is_quiet(client)
            await server.until_open(0)
