"""`shutdown_on_signals`: it comes in addition to the handlers that are there, and never in their place."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import anyio
import anyio.to_thread
import pytest

from ollama_sc import AbortError, AsyncClient, ClientClosedError, RequestError
from ollama_sc.testing import FakeOllama
from tests import forking
from tests.support import MESSAGES, exhaust

pytestmark = pytest.mark.anyio

NUMBER = signal.SIGUSR1


@pytest.fixture(autouse=True)
def handler() -> Iterator[list[int]]:
    """Somebody else's handler; what it has heard."""
    heard: list[int] = []
    before = signal.signal(NUMBER, lambda number, frame: heard.append(number))
    yield heard
    signal.signal(NUMBER, before)


async def test_a_signal_shuts_the_client_down(slow: FakeOllama, handler: list[int]) -> None:
    """The stream is aborted after the grace, new requests are refused, the other handler hears it."""
    mine = signal.getsignal(NUMBER)
    async with AsyncClient(slow.url) as client:
        async with client.shutdown_on_signals(grace=0.05, signals=[NUMBER]):
            stream = await client.chat("llama3.2", MESSAGES, stream=True)
            signal.raise_signal(NUMBER)
            with pytest.raises(AbortError, match="shutting down"):
                await exhaust(stream)
            assert handler == [NUMBER]
            with pytest.raises(ClientClosedError):
                await client.version()
        assert signal.getsignal(NUMBER) is mine
    await slow.wait_all_closed()


async def test_without_a_signal_nothing_happens(fake: FakeOllama, handler: list[int]) -> None:
    """The handlers are as they were, and the client goes on."""
    mine = signal.getsignal(NUMBER)
    async with AsyncClient(fake.url) as client:
        async with client.shutdown_on_signals(signals=[NUMBER]):
            assert signal.getsignal(NUMBER) is not mine
        assert signal.getsignal(NUMBER) is mine
        assert await client.version()
        signal.raise_signal(NUMBER)
        await anyio.wait_all_tasks_blocked()
        assert await client.version()
    assert handler == [NUMBER]


async def test_further_signals_only_reach_the_others(slow: FakeOllama, handler: list[int]) -> None:
    """The shutdown begins once; whoever else listens hears each signal."""
    async with AsyncClient(slow.url) as client:
        async with client.shutdown_on_signals(grace=0.05, signals=[NUMBER, signal.SIGUSR2]):
            stream = await client.chat("llama3.2", MESSAGES, stream=True)
            for _ in range(3):
                signal.raise_signal(NUMBER)
            with pytest.raises(AbortError):
                await exhaust(stream)
    assert handler == [NUMBER] * 3


async def test_a_handler_that_came_later_stays(fake: FakeOllama, handler: list[int]) -> None:
    """Leaving restores only its own; a later handler may still call it, which does no harm."""
    async with AsyncClient(fake.url) as client:
        async with client.shutdown_on_signals(signals=[NUMBER]):
            ours = signal.getsignal(NUMBER)
            later = lambda number, frame: ours(number, frame)  # noqa: E731
            signal.signal(NUMBER, later)
        assert signal.getsignal(NUMBER) is later
        signal.raise_signal(NUMBER)
        await anyio.wait_all_tasks_blocked()
        assert await client.version()
    assert handler == [NUMBER]


async def test_two_clients_hear_it(slow: FakeOllama, handler: list[int]) -> None:
    """Each shuts down; so does a group, alone."""
    async with AsyncClient(slow.url) as one, AsyncClient(slow.url) as two, two.group() as group:
        async with (
            one.shutdown_on_signals(0, [NUMBER]),
            group.shutdown_on_signals(0, [NUMBER]),
        ):
            signal.raise_signal(NUMBER)
            for client in (one, group):
                with suppress(AbortError, ClientClosedError):
                    await client.version()
                with pytest.raises(ClientClosedError):
                    await client.version()
            assert await two.version()
    assert handler == [NUMBER]


async def test_blocks_that_overlap(fake: FakeOllama) -> None:
    """The one that began first may end first: the other goes on alone, and restores the handler."""
    number = signal.SIGWINCH  # its default action does nothing
    async with AsyncClient(fake.url) as one, AsyncClient(fake.url) as two:
        first, second = (each.shutdown_on_signals(0, [number]) for each in (one, two))
        await first.__aenter__()
        await second.__aenter__()
        await first.__aexit__(None, None, None)
        mine = signal.getsignal(number)
        signal.raise_signal(number)
        assert signal.getsignal(number) is mine  # the default action would be the second one's
        await anyio.wait_all_tasks_blocked()
        assert await one.version()
        with pytest.raises(ClientClosedError):
            await two.version()
        await second.__aexit__(None, None, None)
    assert signal.getsignal(number) is signal.SIG_DFL


async def test_leaving_waits_for_the_shutdown(slow: FakeOllama) -> None:
    """What is in flight elsewhere has its grace, though the block is over."""
    async with AsyncClient(slow.url) as client:
        stream = await client.chat("llama3.2", MESSAGES, stream=True)
        async with client.shutdown_on_signals(grace=0.05, signals=[NUMBER]):
            signal.raise_signal(NUMBER)
            await anyio.wait_all_tasks_blocked()
        assert client.statistics() == (0, 0, 0, 0, 0, 0)
        with pytest.raises(AbortError, match="shutting down"):
            await exhaust(stream)


async def test_an_exception_does_not_wait(slow: FakeOllama) -> None:
    """It leaves as itself, at once, and the client's end aborts the rest."""
    with pytest.raises(KeyError, match="mine"):
        async with AsyncClient(slow.url) as client:
            stream = await client.chat("llama3.2", MESSAGES, stream=True)
            async with client.shutdown_on_signals(grace=1000, signals=[NUMBER]):
                signal.raise_signal(NUMBER)
                await anyio.wait_all_tasks_blocked()
                raise KeyError("mine")
    with pytest.raises(AbortError):
        await exhaust(stream)
    await slow.wait_all_closed()


@pytest.mark.parametrize("uvloop", [False, True])
def test_the_loops_own_handler_hears_it(uvloop: bool) -> None:
    """One of asyncio's `add_signal_handler` that was there before, on either loop."""
    heard: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with FakeOllama(token_rate=20, tokens=1000) as slow, AsyncClient(slow.url) as client:
            loop.add_signal_handler(NUMBER, heard.append, "before")
            async with client.shutdown_on_signals(0.05, [NUMBER]):
                stream = await client.chat("llama3.2", MESSAGES, stream=True)
                os.kill(os.getpid(), NUMBER)
                with pytest.raises(AbortError):
                    await exhaust(stream)
            assert heard == ["before"]
            os.kill(os.getpid(), NUMBER)
            while len(heard) < 2:
                await anyio.sleep(0)
            loop.remove_signal_handler(NUMBER)

    anyio.run(main, backend_options={"use_uvloop": uvloop})


async def test_an_ignored_signal_stays_ignored(fake: FakeOllama) -> None:
    """As `nohup` and shells have it for what runs in the background."""
    signal.signal(NUMBER, signal.SIG_IGN)
    async with AsyncClient(fake.url) as client, client.shutdown_on_signals(0, [NUMBER]):
        signal.raise_signal(NUMBER)
        await anyio.wait_all_tasks_blocked()
        assert await client.version()
        assert signal.getsignal(NUMBER) is signal.SIG_IGN


async def test_outside_of_the_main_thread_it_does_nothing(
    fake: FakeOllama, anyio_backend: Any
) -> None:
    """An event loop in a thread: the block is entered and left, and no handler changes."""
    before = signal.getsignal(NUMBER)
    seen: list[Any] = []

    async def work() -> None:
        async with AsyncClient(fake.url) as client, client.shutdown_on_signals(0, [NUMBER]):
            seen.append(signal.getsignal(NUMBER))
            await client.version()

    def run() -> None:
        anyio.run(work, backend=anyio_backend[0])
        seen.append(threading.current_thread() is threading.main_thread())

    await anyio.to_thread.run_sync(run)
    assert seen == [before, False]


async def test_wrong_arguments_are_refused() -> None:
    """Before any handler is touched: a grace that is none, signals that cannot be handled."""
    before = signal.getsignal(NUMBER)
    unfit: list[Any] = [[], [signal.SIGKILL], [signal.SIGSTOP], [0], [10**6], ["SIGTERM"], [[]]]
    async with AsyncClient("127.0.0.1:9") as client:
        for grace in (-1, True, "5", None, float("nan")):
            with pytest.raises(RequestError, match="grace"):
                async with client.shutdown_on_signals(grace, [NUMBER]):  # type: ignore[arg-type]
                    pass
        for signals in (*unfit, 15, None, [True, False]):
            with pytest.raises(RequestError, match="signals"):
                async with client.shutdown_on_signals(0, signals):
                    pass
    assert signal.getsignal(NUMBER) is before


async def test_a_client_that_is_not_open_refuses_it() -> None:
    """There is nothing to shut down before `async with`, nor after it."""
    client = AsyncClient("127.0.0.1:9")
    with pytest.raises(ClientClosedError):
        async with client.shutdown_on_signals():
            pass
    async with client:
        pass
    with pytest.raises(ClientClosedError):
        async with client.shutdown_on_signals():
            pass


# -- whole programs --------------------------------------------------------------------------------

PROGRAM = """
import os, sys, anyio
from ollama_sc import AsyncClient, OllamaError

async def main():
    async with AsyncClient() as client, client.shutdown_on_signals(grace=0.05):
        try:
            async with await client.generate("llama3.2", "Hi", stream=True) as stream:
                if sys.argv[2:] == ["fork"] and (pid := os.fork()) == 0:
                    os.kill(os.getpid(), 15)
                    os._exit(0)
                if sys.argv[2:] == ["fork"]:
                    print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
                print("streaming", flush=True)
                async for part in stream:
                    pass
        except OllamaError as error:
            print(error.args[0], flush=True)
        if sys.argv[2:] == ["twice"]:
            await anyio.sleep(1000)
    print("bye")

anyio.run(main, backend=sys.argv[1])
"""


def until(process: forking.Process, wanted: str) -> list[str]:
    """The lines that it prints, up to this one."""
    lines = []
    while (line := process.stdout.readline()) and wanted not in line:
        lines.append(line.strip())
    return lines


@pytest.mark.skipif("COVERAGE_RUN" in os.environ, reason="coverage has a handler of its own")
@pytest.mark.parametrize(("how", "status"), [("once", 0), ("twice", -15), ("fork", 0)])
async def test_the_default_action_waits_for_the_second_signal(
    slow: FakeOllama, anyio_backend: Any, how: str, status: int
) -> None:
    """The first SIGTERM ends the requests, the second the process; a fork's first ends that one."""
    environment = {**os.environ, "OLLAMA_HOST": slow.url}

    def run() -> tuple[list[str], str, int]:
        command = ["-c", PROGRAM, anyio_backend[0], how]
        with forking.Process(command, stdout=forking.PIPE, env=environment) as process:
            before = until(process, "streaming")
            process.send_signal(signal.SIGTERM)
            after = until(process, "aborted")
            if how == "twice":
                process.send_signal(signal.SIGTERM)
            rest = process.stdout.read().strip()
            return before + after, rest, process.wait()

    printed, rest, found = await anyio.to_thread.run_sync(run)
    assert printed == (["child -15"] if how == "fork" else [])
    assert rest == ("" if how == "twice" else "bye")
    assert found == status


async def test_ctrl_c_ends_a_plain_program_at_once(slow: FakeOllama, anyio_backend: Any) -> None:
    """The handler that was there, the loop's own, raises KeyboardInterrupt as ever."""
    environment = {**os.environ, "OLLAMA_HOST": slow.url}
    program = PROGRAM.replace("grace=0.05", "grace=1000")

    def run() -> tuple[str, str, int]:
        command = ["-c", program, anyio_backend[0], "once"]
        with forking.Process(
            command, stdout=forking.PIPE, stderr=forking.PIPE, env=environment
        ) as process:
            until(process, "streaming")
            process.send_signal(signal.SIGINT)
            return process.stdout.read(), process.stderr.read(), process.wait()

    printed, complaint, status = await anyio.to_thread.run_sync(run)
    assert printed == ""
    assert "KeyboardInterrupt" in complaint
    assert "ExceptionGroup" not in complaint
    assert status != 0
