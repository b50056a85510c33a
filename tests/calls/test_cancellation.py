"""What ends a call, and what does not: cancel scopes, siblings, exceptions."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from ollama_sc import AsyncClient, ResponseError
from ollama_sc.testing import FakeOllama, Reply
from tests.calls.support import chat
from tests.support import MESSAGES, Outcome, is_quiet

pytestmark = pytest.mark.anyio


# -- cancel scopes ---------------------------------------------------------------------------------


async def test_a_shielded_call_completes_although_the_surroundings_are_cancelled(
    fake: FakeOllama,
) -> None:
    """Cleanup code under the user's shield can still make requests."""
    replies: list[Any] = []
    with anyio.CancelScope() as surroundings:
        async with AsyncClient(fake.url) as client:
            try:
                surroundings.cancel()
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    replies.append(await client.chat("llama3.2", MESSAGES))
                    async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
                        replies += [part async for part in stream]
    assert surroundings.cancelled_caught
    assert replies[0].done
    assert replies[-1].done


@pytest.mark.parametrize("connection", ["new", "idle"])
async def test_a_caller_that_is_cancelled_already_sends_nothing(
    fake: FakeOllama, connection: str
) -> None:
    """As with every function of the event loop's: its cancellation comes first."""
    async with AsyncClient(fake.url) as client:
        if connection == "idle":
            await client.version()
        for stream in [False, True] * 5:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await client.chat("llama3.2", MESSAGES, stream=stream)  # type: ignore[call-overload]
            assert scope.cancelled_caught
            assert is_quiet(client)
    assert "/api/chat" not in [request.path for request in fake.requests]


async def test_a_call_from_elsewhere_outlives_the_cancellation_around_the_client(
    fake: FakeOllama,
) -> None:
    """A request of another task does not end because the client's surroundings are cancelled."""
    fake.always("/api/version", Reply.json({"version": "1"}).replace(delay=0.1))
    ready = anyio.Event()
    clients: list[AsyncClient] = []
    scope = anyio.CancelScope()
    ended: list[Outcome] = []

    async def own() -> None:
        with scope:
            async with AsyncClient(fake.url) as client:
                clients.append(client)
                ready.set()
                try:
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True):
                        await ended[0].event.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(own)
        await ready.wait()
        ended.append(Outcome(tasks, clients[0].version))
        await fake.wait_for_requests(1)
        scope.cancel()
    assert ended[0].error is None
    assert ended[0].value.version == "1"


async def test_a_caller_that_is_cancelled_sees_its_own_cancellation(slow: FakeOllama) -> None:
    """Cancel scopes compose with calls: the scope catches, and nothing of the call is left."""
    async with AsyncClient(slow.url) as client:
        with anyio.move_on_after(0.05) as scope:
            await client.chat("llama3.2", MESSAGES)
        assert scope.cancelled_caught
        assert is_quiet(client)
        with pytest.raises(TimeoutError), anyio.fail_after(0.05):
            async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
                async for _ in stream:
                    pass
        assert is_quiet(client)
        await slow.wait_all_closed()


async def test_cancellation_wins_over_an_abort(slow: FakeOllama) -> None:
    """A caller that is cancelled and aborted at the same time sees its cancellation."""
    async with AsyncClient(slow.url) as client:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def both() -> None:
                    await slow.wait_for_requests(1)
                    scope.cancel()
                    client.abort()

                tasks.start_soon(both)
                await client.chat("llama3.2", MESSAGES)
        assert scope.cancelled_caught


# -- siblings --------------------------------------------------------------------------------------


async def test_a_failure_reaches_its_own_caller_alone(slow: FakeOllama) -> None:
    """Requests side by side are not disturbed by the one that fails."""
    slow.always("/api/embed", Reply.error(500, "no"))
    async with AsyncClient(slow.url) as client:
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            with pytest.raises(ResponseError) as caught:
                await client.embed("nomic-embed-text", "hello")
            assert caught.value.error == "no"
            assert (await anext(stream)).message.role == "assistant"


async def test_an_exception_of_the_users_hook_arrives_as_it_was_raised(fake: FakeOllama) -> None:
    """What a user's own code raises inside a request is what the caller gets."""
    boom = KeyError("mine")

    async def hook(request: Any) -> None:
        raise boom

    async with AsyncClient(fake.url, event_hooks={"request": [hook]}) as client:
        for streamed in (False, True):
            with pytest.raises(KeyError) as caught:
                await chat(client, streamed)
            assert caught.value is boom
        assert is_quiet(client)
