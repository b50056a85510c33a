"""What a real server said is kept byte for byte, without secrets, and said again."""

from __future__ import annotations

import json
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from anyio.abc import SocketStream
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc import (
    AsyncClient,
    ConnectError,
    IncompleteStreamError,
    ModelNotFoundError,
    OllamaError,
    ResponseError,
    ServerBusyError,
)
from ollama_sc.testing import CassetteError, FakeOllama, Reply
from ollama_sc.testing._cassette import Cassette, CassetteWriter
from ollama_sc.testing._masking import mask, mask_reply, secrets_of
from ollama_sc.testing._record import Recorder, Upstream
from tests import forking
from tests.support import (
    LONG,
    MESSAGES,
    RECORDINGS,
    raw_server,
    read_request,
    recording,
    replying,
)

INDEX = json.loads((RECORDINGS / "index.json").read_text())["responses"]


@asynccontextmanager
async def recording_of(url: str, folder: Path) -> AsyncIterator[str]:
    """A recorder in front of a server; its URL."""
    upstream = Upstream.parse(url)
    async with Recorder(upstream, CassetteWriter(folder, upstream.name)) as recorder:
        yield recorder.url


async def draw(url: str, entry: dict[str, Any]) -> bytes:
    """Send a recorded request again; all that comes back until the connection closes."""
    body = entry["body"]
    data = b"" if body is None else json.dumps(body).encode()
    if isinstance(body, str) and body.startswith("<"):
        data = b"\x00" * int(body[1:].split()[0])
    host, port = url.removeprefix("http://").split(":")
    head = (
        f"{entry['method']} {entry['path']} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n"
    )
    answer = b""
    async with await anyio.connect_tcp(host, int(port)) as stream:
        await stream.send(f"{head}Connection: close\r\n\r\n".encode() + data)
        length = len(recording(entry["name"]))
        while len(answer) < length:
            answer += await stream.receive()
    return answer


def stored(folder: Path) -> bytes:
    """Everything in a cassette."""
    return b"\n".join(path.read_bytes() for path in sorted(folder.iterdir()))


# -- byte for byte ---------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_real_replies_are_recorded_and_replayed_byte_for_byte(tmp_path: Path) -> None:
    """Every recording of a real server comes out as it went in, from the recorder and from its replay."""
    answers = iter([recording(entry["name"]) for entry in INDEX])

    async def answer(stream: SocketStream) -> None:
        assert await read_request(stream)
        await stream.send(next(answers))

    with anyio.fail_after(30):
        async with raw_server(answer) as url, recording_of(url, tmp_path / "c") as proxy:
            for entry in INDEX:
                assert await draw(proxy, entry) == recording(entry["name"]), entry
        async with FakeOllama.replay(tmp_path / "c") as fake:
            for entry in INDEX:
                assert await draw(fake.url, entry) == recording(entry["name"]), entry
    files = sorted((tmp_path / "c").glob("*.http"))
    assert [file.read_bytes() for file in files] == [recording(e["name"]) for e in INDEX]


@pytest.mark.anyio
async def test_a_client_sees_the_same(fake: FakeOllama, tmp_path: Path) -> None:
    """A program that was recorded gets the same from the replay, over connections that live on."""

    async def program(url: str) -> list[Any]:
        async with AsyncClient(url) as client:
            found: list[Any] = [await client.list(), await client.chat("llama3.2", MESSAGES)]
            async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
                found.append([part async for part in stream])
            found.append((await client.embed("all-minilm", ["a", "b"])).embeddings)
            found.append(await client.has_blob("sha256:" + "0" * 64))
            found.append(await client.create_blob(b"x" * 2_000_000))
            try:
                await client.show("nobody")
            except ModelNotFoundError as error:
                found.append(str(error))
            connections.append(client.statistics().open)
            return found

    connections: list[int] = []
    async with recording_of(fake.url, tmp_path / "c") as proxy:
        first = await program(proxy)
    fake.requests.clear()
    async with FakeOllama.replay(tmp_path / "c") as replayed:
        assert await program(replayed.url) == first
        assert replayed.connections <= 3  # an upload has one of its own
        assert len(replayed.requests) == 8
    assert not fake.requests
    assert connections == [1, 1]


@pytest.mark.anyio
async def test_the_same_request_gets_its_replies_in_order(tmp_path: Path) -> None:
    """One after the other, then the last again; scripts come before them."""
    writer = CassetteWriter(tmp_path / "c", "a server")
    request = Request("POST", "/api/generate", b'{"model": "m", "prompt": "Hi", "stream": false}')
    for text in ("one", "two"):
        body = json.dumps({"model": "m", "response": text, "done": True}).encode()
        writer.add(
            writer.start(),
            request,
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
        )
    async with FakeOllama.replay(tmp_path / "c") as fake, AsyncClient(fake.url) as client:
        fake.script("/api/generate", Reply.busy())
        with pytest.raises(ServerBusyError):
            await client.generate("m", "Hi")
        texts = [(await client.generate("m", "Hi")).response for _ in range(3)]
        assert texts == ["one", "two", "two"]
        with pytest.raises(ResponseError, match=r"differs in options, prompt") as caught:
            await client.generate("m", "Ho", options={"seed": 1})
        assert caught.value.status_code == 501
        with pytest.raises(ResponseError, match="no reply to GET /api/tags"):
            await client.list()


class Request:
    """As much of a recorded request as a cassette needs."""

    def __init__(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.method = method
        self.path, _, self.query = path.partition("?")
        self.body = body
        self.body_size = len(body)
        self.headers = headers or {}


# -- what breaks -----------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("how", [{"cut_after": 3}, {"reset_after": 3}])
async def test_a_reply_that_breaks_breaks_again(
    fake: FakeOllama, tmp_path: Path, how: dict[str, int]
) -> None:
    """At the same place, as the client's error says."""
    fake.script("/api/generate", Reply.chat_text("a b c d e").replace(**how))
    texts: list[str] = []

    async def ask(url: str) -> None:
        async with AsyncClient(url) as client:
            with pytest.raises(IncompleteStreamError) as caught:
                async with await client.generate("llama3.2", "Hi", stream=True) as stream:
                    async for _ in stream:
                        pass
            texts.append(caught.value.partial.response)

    async with recording_of(fake.url, tmp_path / "c") as proxy:
        await ask(proxy)
    async with FakeOllama.replay(tmp_path / "c") as replayed:
        await ask(replayed.url)
    assert texts == ["a b c"] * 2


@pytest.mark.anyio
async def test_a_reply_that_never_comes_never_comes_again(fake: FakeOllama, tmp_path: Path) -> None:
    """A server that closes the connection before the first byte has said something, too."""
    fake.script("/api/generate", Reply.raw(b""))

    async def ask(url: str) -> str:
        async with AsyncClient(url) as client:
            with pytest.raises(ConnectError) as caught:
                await client.generate("llama3.2", "Hi")
            return str(caught.value).replace(url, "")

    async with recording_of(fake.url, tmp_path / "c") as proxy:
        said = await ask(proxy)
    async with FakeOllama.replay(tmp_path / "c") as replayed:
        assert await ask(replayed.url) == said


@pytest.mark.anyio
async def test_a_request_that_was_not_recorded_says_its_fields(
    fake: FakeOllama, tmp_path: Path
) -> None:
    """Also where something that is no JSON was sent to the same path."""
    async with recording_of(fake.url, tmp_path / "c") as proxy:
        async with AsyncClient(proxy) as client:
            await client.generate("llama3.2", "Hi")
        request = b"POST /api/generate HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n{"
        async with await anyio.connect_tcp("127.0.0.1", int(proxy.rpartition(":")[2])) as stream:
            await stream.send(request)
            assert b" 400 " in await stream.receive()
    async with FakeOllama.replay(tmp_path / "c") as replayed, AsyncClient(replayed.url) as client:
        with pytest.raises(ResponseError, match="the nearest one differs in prompt"):
            await client.generate("llama3.2", "Ho")


@pytest.mark.anyio
async def test_a_client_that_leaves_leaves_the_server_too(slow: FakeOllama, tmp_path: Path) -> None:
    """The recorder closes its connection, in the middle and before the first byte."""
    slow.script("/api/generate", Reply.default(), Reply.silence())
    async with recording_of(slow.url, tmp_path / "c") as proxy, AsyncClient(proxy) as client:
        async with await client.generate("llama3.2", "Hi", stream=True) as stream:
            await anext(stream)
        with anyio.move_on_after(0.05):
            await client.generate("llama3.2", "Hi")
        for number in range(2):
            await slow.wait_for_requests(number + 1)
            await slow.requests[number].wait_closed()
            assert slow.requests[number].disconnected
    assert len(list((tmp_path / "c").glob("*.http"))) == 1


@pytest.mark.anyio
async def test_a_server_that_is_not_there(tmp_path: Path, capfd: Any) -> None:
    """The client gets an error that says it, and nothing is kept."""
    async with recording_of("127.0.0.1:1", tmp_path / "c") as proxy, AsyncClient(proxy) as client:
        with pytest.raises(ResponseError, match="cannot connect to http://127.0.0.1:1"):
            await client.list()
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["index.json"]
    assert "cannot connect" in capfd.readouterr().err


@pytest.mark.anyio
async def test_a_server_behind_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorder verifies it as programs do, and is plain itself."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    async with FakeOllama(ssl_context=context) as fake:
        upstream = f"https://localhost:{fake.port}"
        async with recording_of(upstream, tmp_path / "a") as proxy, AsyncClient(proxy) as client:
            with pytest.raises(ResponseError, match="cannot connect"):
                await client.version()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        async with recording_of(upstream, tmp_path / "b") as proxy, AsyncClient(proxy) as client:
            assert await client.version()
            async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
                assert len([part async for part in stream]) > 5


@pytest.mark.anyio
@pytest.mark.parametrize(
    "raw",
    [
        b'HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{"models": []}',
        b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"models": []}',
        b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"models": []}',
        b"no HTTP at all",
        b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"models": []}',
        b"HTTP/1.1 200",
    ],
)
async def test_odd_replies_pass(tmp_path: Path, raw: bytes) -> None:
    """Whatever a server says, the client sees the same through the recorder and from the replay."""

    async def outcome(url: str) -> Any:
        async with AsyncClient(url) as client:
            try:
                return (await client.list()).models
            except OllamaError as error:
                return type(error)

    with anyio.fail_after(10):
        async with raw_server(replying(raw)) as url:
            plain = await outcome(url)
            async with recording_of(url, tmp_path / "c") as proxy:
                assert await outcome(proxy) == plain
        if raw != b"HTTP/1.1 200":  # a head that never came is no response
            async with FakeOllama.replay(tmp_path / "c") as fake:
                assert await outcome(fake.url) == plain


@pytest.mark.anyio
async def test_numbers_are_compared_by_their_values(tmp_path: Path) -> None:
    """A temperature of 0 is one of 0.0, in either direction; 0.5 is another one."""
    writer = CassetteWriter(tmp_path / "c", "a server")
    reply = b'{"model": "m", "response": "yes", "done": true}'
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(reply)
    for prompt, recorded in (("a", b"0.0"), ("b", b"2e0"), ("c", b"3")):
        body = b'{"model": "m", "prompt": "%b", "options": {"temperature": %b}, "stream": false}'
        request = Request("POST", "/api/generate", body % (prompt.encode(), recorded))
        writer.add(writer.start(), request, head + reply)
    async with FakeOllama.replay(tmp_path / "c") as fake, AsyncClient(fake.url) as client:
        for prompt, asked in (("a", 0), ("a", 0.0), ("b", 2), ("c", 3.0)):
            await client.generate("m", prompt, options={"temperature": asked})
        with pytest.raises(ResponseError, match="differs in options"):
            await client.generate("m", "a", options={"temperature": 0.5})


def test_folders_that_are_no_cassettes(tmp_path: Path) -> None:
    """Errors that name the folder, before anything listens."""
    for content in (None, "", "[]", "{}", '{"responses": [{}]}', '{"responses": 1}'):
        if content is not None:
            (tmp_path / "index.json").write_text(content)
        with pytest.raises(CassetteError, match=tmp_path.name):
            FakeOllama.replay(tmp_path)
    with pytest.raises(CassetteError, match="already"):
        CassetteWriter(tmp_path, "a server")


@pytest.mark.parametrize(
    "text",
    [
        "ftp://me:hunter2@box", "ftp://me:hunter2@box:21", "http://me:hunter2#3@box", "http://me:hun:ter2@box:port",
        "me:hunter2@box:1:2", "http://me:hunter2@", "http://[::1", "http://box:99999", "",
    ],
)  # fmt: skip
def test_an_upstream_that_cannot_be_right(text: str) -> None:
    """Said in words of ours, that show nothing of a password."""
    with pytest.raises(ValueError, match="address of http") as caught:
        Upstream.parse(text)
    assert "hun" not in str(caught.value)
    assert "hun" not in str(caught.value.__cause__)
    assert "hun" not in str(caught.value.__context__)


@pytest.mark.anyio
async def test_a_secret_in_a_path(fake: FakeOllama, tmp_path: Path, capfd: Any) -> None:
    """Neither the names of the files nor what the recorder prints have it."""
    async with recording_of(fake.url, tmp_path / "c") as proxy:
        async with AsyncClient(proxy, api_key="k9-abcdefgh") as client:
            with pytest.raises(ResponseError):
                await client.request("GET", "/bot-k9-abcdefgh/api/version")
    names = "".join(path.name for path in (tmp_path / "c").iterdir())
    assert "k9-abcdefgh" not in names + capfd.readouterr().err
    assert b"k9-abcdefgh" not in stored(tmp_path / "c")


def test_the_repositorys_own_recordings_are_a_cassette() -> None:
    """They have the same format."""
    assert len(Cassette(RECORDINGS)._replies) > 30


# -- secrets ---------------------------------------------------------------------------------------

SECRET = "sk-Q9/zz+Top:7Secret"


@pytest.mark.anyio
async def test_a_secret_of_an_earlier_request_is_masked(tmp_path: Path) -> None:
    """A server that has learned a key can say it at any time."""
    said = json.dumps({"error": f"the key {SECRET} has expired"}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said)
    async with raw_server(replying(head + said)) as url:
        async with recording_of(url, tmp_path / "c") as proxy:
            for headers in ({"Authorization": f"Bearer {SECRET}"}, {}):
                async with AsyncClient(proxy, headers=headers) as client:
                    with pytest.raises(OllamaError):
                        await client.version()
    assert stored(tmp_path / "c").count(b" has expired") == 2
    assert SECRET.encode() not in stored(tmp_path / "c")


@pytest.mark.anyio
async def test_no_secret_is_kept(tmp_path: Path) -> None:
    """However a key or token comes and wherever it is echoed, no file of the cassette has it."""
    body = {
        "model": "m", "prompt": "Hi", "api_key": SECRET, "extra": {"Access-Token": "tok-" + SECRET},
        "key": "ABCDEFGHIJKLMNOP1234", "headers": {"Authorization": "Bearer " + SECRET},
    }  # fmt: skip
    echo = json.dumps(
        {
            "response": f"you said {SECRET}",
            "signin_url": "https://o/connect?name=a&key=PUBKEY123",
            "access_token": "fresh-token-1",
            "url": "http://me:hunter22@host/",
        }
    ).encode()
    half = echo.index(SECRET.encode()) + 5  # a chunk ends within it
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(part), part) for part in (echo[:half], echo[half:], b"")
    )
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nSet-Cookie: session=cookie-1234; Path=/\r\n"
        f"X-Echo: {SECRET}\r\nx-api-key:{SECRET}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()
    headers = {
        "X-API-Key": SECRET,
        "Authorization": "Bearer " + SECRET,
        "Cookie": "sid=cookie-5678",
    }
    async with raw_server(replying(head + chunks)) as url:
        with_user = url.replace("//", "//user:pass-word-9@")
        async with recording_of(with_user, tmp_path / "c") as proxy:
            async with AsyncClient(proxy, headers=headers) as client:
                path = "/api/x?api_key=query-key-77&q=1"
                reply = await client.request("POST", path, json=body)
                assert reply["response"] == f"you said {SECRET}"  # the program sees it all
    everything = stored(tmp_path / "c")
    for secret in (SECRET, "cookie-1234", "cookie-5678", "query-key-77", "fresh-token-1", "PUBKEY123",
                   "hunter22", "pass-word-9", "ABCDEFGHIJKLMNOP1234"):  # fmt: skip
        assert secret.encode() not in everything, secret
    kept = next((tmp_path / "c").glob("*.http")).read_bytes()
    assert len(kept) == len(head + chunks)
    # The same request finds it, whatever the keys are now.
    async with FakeOllama.replay(tmp_path / "c") as fake:
        async with AsyncClient(fake.url, headers={"X-API-Key": "another-one"}) as client:
            body["api_key"] = "short-one"
            reply = await client.request("POST", "/api/x?api_key=short&q=1", json=body)
            assert reply["response"] == f"you said {'x' * len(SECRET)}"


@pytest.mark.parametrize(
    "plain",
    [
        b"HTTP/1.1 200 OK\r\nX-RateLimit-Remaining-Tokens: 1000\r\nWWW-Authenticate: Bearer realm=o\r\n",
        b'{"logprobs":[{"token":" Hello","logprob":-0.1,"bytes":[72]}]}',
        b'{"token":"                          "}',
        b'{"message":{"content":"the key = 7 and a token: x"},"prompt_eval_count":3}',
        b'{"model":"monkey:latest","digest":"sha256:0123456789abcdef0123456789abcdef"}',
        b"POST /api/chat?stream=true&keyword=abc",
        b'{"message":{"content":"The password: an unbelievable word. The secret=nothing"}}',
    ],
)
def test_what_is_no_secret_stays(plain: bytes) -> None:
    """The API's own words, such as the tokens of log probabilities, are kept."""
    assert mask(plain) == plain
    assert mask_reply(plain + b"\r\n") == plain + b"\r\n"


@pytest.mark.parametrize(
    ("data", "masked"),
    [
        (b'{"apiKeys": ["abc", "d\\"e"], "n": 1}', b'{"apiKeys": ["xxx", "xxxx"], "n": 1}'),
        (b'{"credentials": {"user": "ann"}}', b'{"credentials": {"user": "xxx"}}'),
        (b'{"password": 1234}', b'{"password": 1111}'),
        (b'{"client_secret" :"cut', b'{"client_secret" :"xxx'),
        (b'{"secrets": ["one", "two\\', b'{"secrets": ["xxx", "xxx\\'),
        (b'{"secrets": ["one", "t\n{"model":"m"}', b'{"secrets": ["xxx", "x\n{"model":"m"}'),
        ('{"jwt":"\u00fc"}'.encode(), b'{"jwt":"xx"}'),
        (b'{"note": "{\\"password\\": 1}"}', b'{"note": "{\\"password\\": 1}"}'),
        (b"Authorization: Bearer abcdefgh", b"Authorization: Bearer xxxxxxxx"),
        (b"http://ann:pass@host/", b"http://xxxxxxxx@host/"),
        (b"/connect?name=a&key=xyz", b"/connect?name=a&key=xxx"),
        (b"export MY_API_KEY=sk-123456789", b"export MY_API_KEY=xxxxxxxxxxxx"),
        (b"curl -H 'X-Api-Key: sk-123456789'", b"curl -H 'X-Api-Key: xxxxxxxxxxxx'"),
        (
            b'{"error": "{\\"password\\":\\"hunter-2-hunter\\"}"}',
            b'{"error": "{\\"password\\":\\"xxxxxxxxxxxxxxx\\"}"}',
        ),
    ],
)
def test_where_secrets_are(data: bytes, masked: bytes) -> None:
    """In lists, in objects, as numbers, in addresses: what stands before them tells."""
    assert mask(data) == masked


@settings(max_examples=1000 if LONG else 30, deadline=None)
@given(st.binary(max_size=60), st.lists(st.binary(min_size=1, max_size=20), max_size=5))
def test_masking_moves_nothing(data: bytes, pieces: list[bytes]) -> None:
    """Whatever the bytes are, their number stays; and masked once is masked."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(
        b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces
    )
    for raw in (data, chunked + data, b"HTTP/1.1 200 OK\r\n" + data):
        masked = mask_reply(raw, [b"abcd"])
        assert len(masked) == len(raw)
        assert mask_reply(masked, [b"abcd"]) == masked
    assert len(mask(data)) == len(data)


@settings(max_examples=1000 if LONG else 30, deadline=None)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=30))
def test_any_key_of_a_request_is_masked_in_its_reply(key: str) -> None:
    """Any printable key, in a header or in JSON, spelled as JSON spells it."""
    body = json.dumps({"api_key": key}).encode()
    for secrets in (secrets_of({"x-api-key": key}, "/", b""), secrets_of({}, "/", body)):
        echo = json.dumps({"echo": f"({key})"}).encode()
        raw = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(echo), echo)
        assert json.dumps(key)[1:-1].encode() not in mask_reply(raw, secrets)


# -- the command -----------------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    """`record` prints its URL, keeps what passes and exits with 0; `--replay` serves it."""
    seen: list[str] = []

    async def ask(url: str) -> None:
        async with AsyncClient(url) as client:
            seen.append((await client.generate("llama3.2", "Hi")).response)

    def run(*words: str) -> None:
        command = ["-m", "ollama_sc.testing", *words]
        with forking.Process(command, stdout=forking.PIPE, stderr=forking.DEVNULL) as process:
            anyio.run(ask, process.stdout.readline().strip())
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0

    folder = str(tmp_path / "cassette")
    with FakeOllama() as fake:
        run("record", "--upstream", fake.url, "-o", folder, "--backend", "asyncio")
        run("--replay", folder, "--backend", "trio")
    assert seen[0] == seen[1]
    for words, text in (
        (["record", "-o", folder], "already"),
        (["record", "-o", "x", "--upstream", "ftp://h"], "http"),
        (["--replay", str(tmp_path)], "no recording"),
    ):
        done = forking.run(["-m", "ollama_sc.testing", *words])
        assert done.returncode == 2
        assert text in done.stderr
