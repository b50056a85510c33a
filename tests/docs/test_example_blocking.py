"""The examples of blocking programs do what they say, and leave nothing behind."""

from __future__ import annotations

import signal
from typing import Any

import anyio
import anyio.to_thread
import pytest

from tests import forking
from tests.docs.support import command, environment, run, server

pytestmark = [
    pytest.mark.anyio,
    # The event loop of the server; the programs have none that anybody chooses.
    pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True),
]


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_blocking_chat() -> None:
    """A function of the module, a stream, vectors, with the headers that were given."""
    async with server(dimensions=8) as fake:
        lines = await run("blocking_chat.py", "asyncio", fake)
    assert lines[0].startswith("This is synthetic text")
    assert lines[1].startswith("This is synthetic text")
    assert lines[2:] == ["24 tokens", "2 vectors of 8"]
    teams = [request.headers.get("x-team") for request in fake.requests]
    assert teams == [None, "weather", "weather"]


async def test_blocking_threads() -> None:
    """SIGTERM ends the requests of all threads."""
    async with server(token_rate=20, tokens=100_000) as fake:
        with forking.Process(
            command("blocking_threads.py", "asyncio"),
            stdout=forking.PIPE,
            env=environment(fake.url),
        ) as process:
            await fake.wait_for_requests(5)
            output: list[str] = []

            async def read() -> None:
                output.append(await anyio.to_thread.run_sync(process.stdout.read))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                # Python sees a signal late that comes just before its main thread waits for a lock.
                closed = False
                while not closed:
                    process.send_signal(signal.SIGTERM)
                    with anyio.move_on_after(2):
                        await fake.wait_all_closed()
                        closed = True
            assert await anyio.to_thread.run_sync(process.wait) == 0
    lines = output[0].splitlines()
    assert lines[0] == "aborted 5"
    assert sum(line.endswith("aborted: SIGTERM") for line in lines) == 5


async def test_blocking_many() -> None:
    """Lines that come one after another become batches, and the rest of them one more."""
    async with server(dimensions=8) as fake:
        done = await anyio.to_thread.run_sync(
            lambda: forking.run(
                command("blocking_many.py", "asyncio"),
                input=b"".join(b"line %d\n\n" % number for number in range(40)),
                env=environment(fake.url),
                timeout=40,
            )
        )
        assert (done.returncode, done.stderr) == (0, "")
        await fake.wait_all_closed()
    assert done.stdout.splitlines() == ["0 16 8", "16 16 8", "32 8 8", "40 texts"]
