"""What leaves a client's `async with`, and what becomes of requests elsewhere."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from ollama_sc import AbortError, AsyncClient, OllamaError
from ollama_sc.testing import FakeOllama
from tests.calls.support import asyncio_only, chat
from tests.support import MESSAGES, Outcome

pytestmark = pytest.mark.anyio


# -- exceptions and cancellations ------------------------------------------------------------------


@pytest.mark.parametrize("live", [False, True], ids=["idle", "a stream lives"])
async def test_an_exception_leaves_as_itself(slow: FakeOllama, live: bool) -> None:
    """The body's exception is the one that leaves, with or without live requests."""
    boom = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with AsyncClient(slow.url) as client:
            if live:
                stream = await client.chat("llama3.2", MESSAGES, stream=True)
                await anext(stream)
            raise boom
    assert caught.value is boom
    assert boom.__cause__ is None
    await slow.wait_all_closed()


async def test_a_users_own_exception_group_arrives_as_it_was(slow: FakeOllama) -> None:
    """A group that the user raised is not wrapped in another and keeps its exceptions."""
    boom = ExceptionGroup("mine", [ValueError(1), KeyError(2)])
    with pytest.raises(ExceptionGroup) as caught:
        async with AsyncClient(slow.url) as client:
            stream = await client.chat("llama3.2", MESSAGES, stream=True)
            raise boom
    assert caught.value is boom
    assert [type(error) for error in boom.exceptions] == [ValueError, KeyError]
    await stream.aclose()


async def test_a_cancellation_leaves_as_itself(slow: FakeOllama) -> None:
    """A cancelled body ends the client's requests, and its scope catches the cancellation."""
    with anyio.move_on_after(0.1) as scope:
        async with AsyncClient(slow.url) as client:
            stream = await client.chat("llama3.2", MESSAGES, stream=True)
            async for _ in stream:
                pass
    assert scope.cancelled_caught
    await slow.wait_all_closed()
    assert client.statistics().in_flight == 0


async def test_a_cancellation_during_the_exit_does_not_replace_the_exception(
    slow: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body's exception leaves even though the exit is cancelled while it waits."""
    with anyio.CancelScope() as scope:
        with pytest.raises(ValueError, match="mine"):
            async with AsyncClient(slow.url) as client:
                stream = await client.chat("llama3.2", MESSAGES, stream=True)
                monkeypatch.setattr(
                    client._calls, "abort", _then(client._calls.abort, scope.cancel)
                )
                raise ValueError("mine")
        assert scope.cancel_called
    await stream.aclose()


def _then(first: Any, second: Any) -> Any:
    def both(*args: Any) -> Any:
        result = first(*args)
        second()
        return result

    return both


@asyncio_only
async def test_a_native_cancel_during_the_exit(slow: FakeOllama) -> None:
    """asyncio's own cancel during the exit: an exception wins, a normal body gives way."""

    streams = []

    async def body(error: Exception | None) -> None:
        async with AsyncClient(slow.url) as client:
            streams.append(await client.chat("llama3.2", MESSAGES, stream=True))
            me = asyncio.current_task()
            assert me is not None
            client._calls.abort = _then(client._calls.abort, me.cancel)  # type: ignore[method-assign]
            if error is not None:
                raise error

    boom = ValueError("mine")
    with pytest.raises(ValueError, match="mine"):
        await asyncio.create_task(body(boom))
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(body(None))
    await slow.wait_all_closed()


async def test_a_normal_end_ends_what_lives_elsewhere(slow: FakeOllama) -> None:
    """Callers in other tasks get AbortError("client closed") when the client is left."""
    async with anyio.create_task_group() as tasks:
        async with AsyncClient(slow.url) as client:
            ended = [Outcome(tasks, chat, client, streamed) for streamed in (False, True)]
            await slow.wait_for_requests(2)
        for outcome in ended:
            await outcome.event.wait()
            assert isinstance(outcome.error, AbortError)
            assert outcome.error.reason == "client closed"
    await slow.wait_all_closed()


# -- what ends the program -------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("where", ["body", "request"])
def test_a_keyboard_interrupt_leaves_as_itself(backend: str, where: str) -> None:
    """A KeyboardInterrupt ends the client and leaves as it is, wherever it lands."""
    seen: list[BaseException | None] = []

    async def hook(request: Any) -> None:
        if where == "request":
            raise KeyboardInterrupt

    async def main() -> None:
        async with FakeOllama(token_rate=20, tokens=10_000) as server:
            try:
                async with AsyncClient(server.url, event_hooks={"request": [hook]}) as client:
                    stream = await client.chat("llama3.2", MESSAGES, stream=True)
                    async for _ in stream:
                        raise KeyboardInterrupt
            except BaseException as error:
                seen.append(error)
                raise

    with pytest.raises(KeyboardInterrupt):
        anyio.run(main, backend=backend)
    if backend == "trio":
        # asyncio leaves its loop at once, and cancels what is left on its way out.
        assert isinstance(seen[0], KeyboardInterrupt)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_keyboard_interrupt_in_a_request_is_not_wrapped_by_us(backend: str) -> None:
    """Without a group of the user's, the bare KeyboardInterrupt comes out of `async with`."""
    seen: list[str] = []

    async def hook(request: Any) -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        try:
            async with AsyncClient("127.0.0.1:1", event_hooks={"request": [hook]}) as client:
                try:
                    await client.version()
                finally:
                    seen.append("body left")
        except KeyboardInterrupt:
            seen.append("as itself")
            raise

    with pytest.raises(KeyboardInterrupt):
        anyio.run(main, backend=backend)
    assert seen[0] == "body left"
    assert backend == "asyncio" or seen == ["body left", "as itself"]


async def test_leaving_after_the_loop_of_a_dying_task_gives_its_caller_an_error(
    fake: FakeOllama,
) -> None:
    """A request that dies of a BaseException has an error for its caller, never None."""

    class Death(BaseException):
        pass

    async def hook(request: Any) -> None:
        raise Death

    errors: list[BaseException] = []
    with pytest.raises(Death):
        async with AsyncClient(fake.url, event_hooks={"request": [hook]}) as client:
            with anyio.CancelScope(shield=True):
                try:
                    await client.version()
                except OllamaError as error:
                    errors.append(error)
            await anyio.sleep_forever()
    assert isinstance(errors[0], AbortError)
