"""Random replies: right ones give what httpx's own transport gives, wrong ones only its errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ollama_sc import AsyncClient, OllamaError
from tests.support import MESSAGES, RECORDINGS, is_quiet, recording
from tests.wire import Peer, Transport, all_idle, fetch, ok, quick, serving, settle, until

pytestmark = [pytest.mark.anyio, quick]

# One loop, one server and one client for all examples.
many = settings(
    # Shrinking would take minutes, and what fails can be read as it is.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Wire:
    """A server that answers with whatever bytes lie here, and who asks it."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.end = "finish"
        self.url = ""
        self.busy = False

    async def handle(self, peer: Peer) -> None:
        while (asked := await peer.request()) is not None:
            if asked.target.startswith("/ok/"):
                await peer.send(ok(asked.target.encode()))
                continue
            self.busy = True
            try:
                await peer.send(*self.pieces)
                if self.end != "stays":
                    return await getattr(peer, self.end)()
            finally:
                self.busy = False

    async def over(self) -> None:
        """Wait until all has been sent: of bytes that come later nobody can tell whose they are."""
        await until(lambda: not self.busy)
        await settle()

    async def works(self, transport: Any) -> None:
        await self.over()
        assert (await fetch(transport, self.url + "/ok/")).body == b"/ok/"


@pytest.fixture
async def wire(anyio_backend: Any) -> AsyncIterator[Wire]:
    wire = Wire()
    async with serving(wire.handle) as server:
        wire.url = server.url
        yield wire


@pytest.fixture
async def ours(wire: Wire) -> AsyncIterator[Transport]:
    async with Transport() as transport:
        yield transport


@pytest.fixture
async def httpxs(wire: Wire) -> AsyncIterator[httpx.AsyncHTTPTransport]:
    async with httpx.AsyncHTTPTransport() as transport:
        yield transport


@pytest.fixture
async def client(wire: Wire) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(wire.url) as client:
        yield client


# -- right replies ---------------------------------------------------------------------------------

token = st.text("!#$%&'*+-.^_`|~0123456789abcXYZ", min_size=1, max_size=12).map(str.encode)
FRAMING = {
    b"content-length",
    b"transfer-encoding",
    b"connection",
    b"upgrade",
    b"keep-alive",
    b"proxy-connection",
    b"content-encoding",
}
printable = st.binary(max_size=30).map(lambda data: bytes(b for b in data if b > 32 and b != 127))
value = st.lists(printable, max_size=3).map(lambda words: b" \t ".join(filter(None, words)))
headers = st.lists(
    st.tuples(token.filter(lambda name: name.lower() not in FRAMING), value), max_size=6
)


@st.composite
def replies(draw: Any) -> tuple[str, bytes, str]:
    """A method, a reply that is right for it, and how its connection goes on."""
    method = draw(st.sampled_from(["GET", "GET", "GET", "POST", "HEAD"]))
    status = draw(st.sampled_from([200, 200, 200, 201, 204, 206, 301, 304, 400, 404, 500, 599]))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    reason = draw(st.sampled_from([b" ", b" OK", b" Not really, no", b" \xc3\xa9"]))
    body = draw(st.binary(max_size=200) | st.just(b"x" * 3_000))
    framing = draw(st.sampled_from(["length", "chunked", "closing"]))
    if version == b"1.0" and framing == "chunked":
        framing = "closing"
    lines = draw(headers)
    where = draw(st.integers(0, len(lines)))
    wire = body
    if framing == "length":
        lines.insert(
            where,
            (draw(st.sampled_from([b"Content-Length", b"content-length"])), b"%d" % len(body)),
        )
    elif framing == "chunked":
        lines.insert(where, (b"Transfer-Encoding", b"chunked"))
        cuts = sorted(draw(st.sets(st.integers(0, len(body)), max_size=5)) | {0, len(body)})
        size = draw(st.sampled_from([b"%x%s\r\n", b"%X%s\r\n", b"00%x%s\r\n"]))
        extension = st.sampled_from([b"", b";a", b";a=b", b';a="b c"'])
        wire = b"".join(
            size % (end - start, draw(extension)) + body[start:end] + b"\r\n"
            for start, end in zip(cuts, cuts[1:], strict=False)
            if end > start
        )
        trailers = b"".join(b"%s: %s\r\n" % pair for pair in draw(headers))
        wire += b"0" + draw(extension) + b"\r\n" + trailers + b"\r\n"
    if draw(st.booleans()):
        lines.insert(where, (b"Connection", draw(st.sampled_from([b"close", b"keep-alive", b"x"]))))
    if method == "HEAD" or status in (204, 304):
        wire = b""
        if framing == "closing":
            framing = "length"
    space = draw(st.sampled_from([b"", b" ", b" \t"]))
    hints = draw(
        st.sampled_from(
            [b"", b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 \r\nA: b\r\n\r\n" * 2]
        )
    )
    head = b"".join(
        b"%s:%s%s%s\r\n" % (name, space, content, space.strip(b"\t")) for name, content in lines
    )
    reply = hints + b"HTTP/%s %d%s\r\n%s\r\n" % (version, status, reason, head) + wire
    end = "finish" if framing == "closing" else draw(st.sampled_from(["stays", "finish"]))
    return method, reply, end


def divided(data: bytes, cuts: list[float]) -> list[bytes]:
    places = [0, *sorted(int(cut * len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in zip(places, places[1:], strict=False) if b > a]


cuts = st.lists(st.floats(0, 1), max_size=4)


@many
@given(reply=replies(), cuts=cuts)
async def test_right_replies_are_what_httpx_reads(
    wire: Wire, ours: Transport, httpxs: Any, reply: Any, cuts: list[float]
) -> None:
    """Status, reason, version, headers and body are the same, however the reply is divided."""
    method, data, wire.end = reply
    wire.pieces = divided(data, cuts)
    expected = await outcome(httpxs, wire.url + "/", method)
    got = await outcome(ours, wire.url + "/", method)
    assert not isinstance(expected, Exception), expected
    assert got._replace(version=b"") == expected._replace(version=b"")
    await wire.works(ours)
    assert all_idle(ours)


async def outcome(transport: Any, url: str, method: str = "GET") -> Any:
    """A response, raw and whole, or httpx's exception; another one is a failure."""
    try:
        got = await fetch(transport, url, method, headers={"Connection": "keep-alive"})
    except httpx.TransportError as error:
        return error
    return got


# -- any bytes -------------------------------------------------------------------------------------

SEEDS = [
    ok(b"hello, world", b"A: b"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nhello",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    *(path.read_bytes()[:400] for path in sorted(RECORDINGS.glob("*.http"))[::9]),
]
NASTY = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\x00",
    b":",
    b" ",
    b"-",
    b"ffffffffffffffff",
    b"0\r\n\r\n",
    b"\xff",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"HTTP/1.1 ",
    b"101",
    b"204",
    b"999999999999",
    b"Connection: close\r\n",
    b"Upgrade: x\r\nConnection: upgrade\r\n",
    b"Content-Encoding: gzip\r\n",
]


@st.composite
def mutants(draw: Any) -> bytes:
    """A right reply with some of its bytes replaced, taken out, doubled, or others put in."""
    data = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 20)))
        data = {
            "replace": data[:start] + draw(st.binary(min_size=1, max_size=4)) + data[end:],
            "out": data[:start] + data[end:],
            "double": data[:end] + data[start:],
            "in": data[:start] + draw(st.sampled_from(NASTY)) + data[start:],
        }[draw(st.sampled_from(["replace", "out", "double", "in"]))]
    return data


any_bytes = (
    mutants() | st.binary(max_size=300) | st.binary(max_size=100).map(b"HTTP/1.1 200 ".__add__)
)
ends = st.sampled_from(["finish", "finish", "reset"])
methods = st.sampled_from(["GET", "POST", "HEAD"])


@many
@given(data=any_bytes, cuts=cuts, end=ends, method=methods)
async def test_any_bytes_are_a_response_or_httpxs_exception(
    wire: Wire, ours: Transport, data: bytes, cuts: list[float], end: str, method: str
) -> None:
    """Nothing but a response or an exception of httpx's comes out, and the next request is right."""
    wire.pieces, wire.end = divided(data, cuts), end
    try:
        await outcome(ours, wire.url + "/", method)
    except httpx.DecodingError:
        pass  # a Response's own, of what says that it is compressed
    await wire.works(ours)
    assert all_idle(ours)


@many
@given(data=any_bytes, cuts=cuts, end=ends, stream=st.booleans())
async def test_any_bytes_are_a_reply_or_an_ollama_error(
    wire: Wire, client: AsyncClient, data: bytes, cuts: list[float], end: str, stream: bool
) -> None:
    """Through the public client nothing but an OllamaError comes out, and nothing is left."""
    wire.pieces, wire.end = divided(data, cuts), end
    with anyio.fail_after(10):
        try:
            if stream:
                async with await client.chat("m", MESSAGES, stream=True) as parts:
                    [part async for part in parts]
            else:
                await client.request("POST", "/api/chat", json={"model": "m"})
        except OllamaError as error:
            assert str(error)
        await wire.over()
        assert await client.request("GET", "/ok/", type=bytes) == b"/ok/"
    assert is_quiet(client)
    statistics = client.statistics()
    assert statistics.open == statistics.idle <= 1


whole = recording("chat-stream").replace(b"Connection: close\r\n", b"")


@settings(many, max_examples=60)
@given(cuts=st.lists(st.floats(0, 1), max_size=8), end=st.sampled_from(["stays", "finish"]))
async def test_a_stream_in_any_pieces_is_the_same_stream(
    wire: Wire, client: AsyncClient, cuts: list[float], end: str
) -> None:
    """A recorded stream gives the same text however the network divides it."""
    wire.pieces, wire.end = divided(whole, cuts), end
    with anyio.fail_after(10):
        async with await client.chat("m", MESSAGES, stream=True) as parts:
            [part async for part in parts]
    assert parts.result().complete
    assert parts.result().text.startswith("Why is the sky")
