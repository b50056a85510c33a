"""The fake server's life: how it ends, many clients at once, the command, the fixture."""

import os
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import anyio
import httpx
import pytest
from ollama_sc.testing import FakeOllama, Reply
from test_fake import CHAT, ask, lines, post, read_all

pytestmark = pytest.mark.anyio
pytest_plugins = ["pytester"]


class Failure(Exception):
    pass


async def test_an_exception_of_the_body_passes_unchanged():
    """It arrives as itself, not in a group, while connections are open."""
    stream = None
    failure = Failure()
    with pytest.raises(Failure) as caught:
        async with FakeOllama() as fake:
            fake.script("/api/chat", Reply.silence())
            stream = await anyio.connect_tcp(fake.host, fake.port)
            await stream.send(post("/api/chat", CHAT))
            await fake.wait_for_requests(1)
            raise failure
    assert caught.value is failure
    assert await read_all(stream) == (b"", True)
    await stream.aclose()
    assert fake.open_connections == 0
    assert fake.requests[0].closed_at is not None
    assert not fake.requests[0].disconnected


async def test_a_cancellation_passes_as_that():
    """A scope around the server is cancelled, and nothing else is raised."""
    with anyio.CancelScope() as scope:
        async with FakeOllama() as fake:
            async with await anyio.connect_tcp(fake.host, fake.port) as stream:
                await stream.send(post("/api/chat", CHAT))
                await fake.wait_for_requests(1)
                scope.cancel()
                await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert fake.open_connections == 0


async def test_an_exception_in_a_cancelled_scope_passes_unchanged():
    """The body's own exception wins over a cancellation that is already there."""
    with pytest.raises(Failure), anyio.CancelScope() as scope:
        async with FakeOllama():
            scope.cancel()
            raise Failure


async def test_a_defect_of_the_fake_is_raised_on_leaving(monkeypatch):
    """Nothing is swallowed: what a handler raised comes out of the async with."""

    def broken(*_args, **_kwargs):
        raise Failure

    with pytest.raises(Failure):
        async with FakeOllama() as fake:
            monkeypatch.setattr("ollama_sc.testing._generation.answer", broken)
            async with await anyio.connect_tcp(fake.host, fake.port) as stream:
                await stream.send(post("/api/chat", CHAT))
                await read_all(stream)


async def test_the_port_is_free_afterwards():
    """A second server can listen where the first did, at once."""
    async with FakeOllama() as fake:
        await ask(fake, "/api/chat", CHAT)
    async with FakeOllama(port=fake.port) as again:
        assert (await ask(again, "/api/chat", CHAT)).status_code == 200


async def test_hundreds_of_streams_at_once():
    """500 live streams run together, and all end when the server does."""
    async with FakeOllama(token_rate=0.2, tokens=1_000_000) as fake:
        streams = []
        for _ in range(500):
            stream = await anyio.connect_tcp(fake.host, fake.port)
            streams.append(stream)
            await stream.send(post("/api/chat", CHAT))
        for stream in streams:
            await stream.receive()
        assert fake.open_connections == fake.peak_in_flight == 500
        for stream in streams[:250]:
            await stream.aclose()
        for request in fake.requests[:250]:
            await request.wait_closed()
        assert fake.open_connections == 250
    for stream in streams[250:]:
        await read_all(stream)
        await stream.aclose()


async def test_clients_that_leave_at_any_byte():
    """Whatever part of a request has come, leaving is survived."""
    request = post("/api/chat", CHAT)
    async with FakeOllama() as fake:
        for size in range(0, len(request), 5):
            async with await anyio.connect_tcp(fake.host, fake.port) as stream:
                await stream.send(request[:size])
        await fake.wait_all_closed()
        assert fake.requests == []
        assert len(lines(await ask(fake, "/api/chat", CHAT))) == 25


def test_a_mock_clock_jumps_over_delays():
    """An hour of silence passes at once under trio's MockClock; the record is on its time."""
    import trio
    import trio.testing

    async def main() -> None:
        async with FakeOllama() as fake:
            fake.script("/api/chat", Reply.default(delay=3600, rate=1))
            start = trio.current_time()
            await ask_slowly(fake)
            request = fake.requests[0]
            assert 3600 <= request.headers_sent_at - start < 3601
            assert 24 <= request.finished_at - request.headers_sent_at < 25

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def ask_slowly(fake: FakeOllama) -> None:
    async with await anyio.connect_tcp(fake.host, fake.port) as stream:
        await stream.send(post("/api/chat", CHAT, extra="Connection: close\r\n"))
        answer, clean = await read_all(stream)
    assert clean
    assert answer.endswith(b"0\r\n\r\n")


# ---------------------------------------------------------------------------------------------
# The command and the fixture


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_command(number, backend):
    """It prints its URL, serves, and exits with 0 on either signal."""
    command = [sys.executable, "-W", "error", "-m", "ollama_sc.testing", "--backend", backend]
    command += ["--models", "a,b", "--dimensions", "4", "--parallel", "2", "--tokens", "3"]
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root]))
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        url = process.stdout.readline().strip()
        with httpx.Client(base_url=url, trust_env=False, timeout=20) as http:
            names = [model["name"] for model in http.get("/api/tags").json()["models"]]
            vectors = http.post("/api/embed", json={"model": "a", "input": "x"}).json()[
                "embeddings"
            ]
            process.send_signal(number)
            assert process.wait(timeout=20) == 0
    assert names == ["a:latest", "b:latest"]
    assert len(vectors[0]) == 4


def test_the_fixture(pytester):
    """fake_ollama runs in the loop of the test and sets OLLAMA_HOST."""
    pytester.makepyfile(
        """
        import os
        import anyio
        import pytest

        pytestmark = pytest.mark.anyio

        @pytest.fixture(params=["asyncio", "trio"])
        def anyio_backend(request):
            return request.param

        async def test_it(fake_ollama):
            assert os.environ["OLLAMA_HOST"] == fake_ollama.url
            async with await anyio.connect_tcp(fake_ollama.host, fake_ollama.port) as stream:
                await stream.send(b"GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
                assert b"Ollama is running" in await stream.receive()
        """
    )
    arguments = ["-W", "error"]
    if not entry_points(group="pytest11", name="ollama_sc"):  # run from a bare checkout
        arguments += ["-p", "ollama_sc.testing.pytest_plugin"]
    result = pytester.runpytest_subprocess(*arguments)
    result.assert_outcomes(passed=2)
