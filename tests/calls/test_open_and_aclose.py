"""`AsyncClient.open()` and `aclose()`: for programs that have no place for `async with`."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import anyio
import pytest

from ollama_sc import AbortError, AsyncClient, ClientClosedError, RequestError
from ollama_sc.testing import FakeOllama
from tests.support import MESSAGES, Outcome, is_quiet

pytestmark = pytest.mark.anyio
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@on_asyncio
async def test_a_client_is_opened_in_one_task_and_closed_in_another(slow: FakeOllama) -> None:
    """As the cells of a notebook are: what still runs ends with it, and nothing is left."""
    client = await asyncio.create_task(AsyncClient(slow.url).open())
    await client.version()
    async with anyio.create_task_group() as tasks:
        chat = Outcome(tasks, client.chat, "llama3.2", MESSAGES)
        await slow.wait_for_requests(2)
        await asyncio.create_task(client.aclose())
        await chat.event.wait()
    assert isinstance(chat.error, AbortError)
    assert is_quiet(client)
    await slow.wait_all_closed()
    with pytest.raises(ClientClosedError, match="make another one"):
        await client.version()
    await client.close()  # again, by ollama-python's name


@on_asyncio
async def test_it_is_opened_once(fake: FakeOllama) -> None:
    """Opening it again, in either way, is an error, and the client goes on."""
    client = await AsyncClient(fake.url).open()
    with pytest.raises(ClientClosedError, match="only once"):
        await client.open()
    with pytest.raises(ClientClosedError, match="only once"):
        async with client:
            pass
    await client.version()
    await client.aclose()
    with pytest.raises(ClientClosedError, match="only once"):
        await client.open()


@on_asyncio
async def test_a_cancelled_opening_leaves_nothing(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one that fails, whose reason is raised."""
    opening = asyncio.Event()

    async def stuck(self: Any) -> None:
        opening.set()
        await anyio.sleep_forever()

    monkeypatch.setattr("ollama_sc._http.sender.Sender.open", stuck)
    before = asyncio.all_tasks()
    task = asyncio.create_task(AsyncClient(fake.url).open())
    await opening.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() <= before

    async def broken(self: Any) -> None:
        raise OSError("no more files")

    monkeypatch.setattr("ollama_sc._http.sender.Sender.open", broken)
    with pytest.raises(OSError, match="no more files"):
        await AsyncClient(fake.url).open()


@on_asyncio
async def test_a_cancelled_closing_closes_it(slow: FakeOllama) -> None:
    """The cancellation goes on, and the client is closed."""
    client = await AsyncClient(slow.url).open()
    stream = await client.chat("llama3.2", MESSAGES, stream=True)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await client.aclose()
    await slow.wait_all_closed()
    assert is_quiet(client)
    with pytest.raises(AbortError):
        [part async for part in stream]


def test_the_end_of_the_event_loop_closes_it() -> None:
    """A client that nobody holds or closes is closed by `asyncio.run`, which ends all tasks."""
    seen: list[Any] = []

    async def main() -> None:
        async with FakeOllama(token_rate=20, tokens=100_000) as fake:

            async def opens() -> None:
                client = await AsyncClient(fake.url).open()
                seen.append(client._calls)
                await client.version()

            await asyncio.create_task(opens())
            gc.collect()
            assert seen[0].state == "open"

    asyncio.run(main())
    assert "closed" in seen[0].state


def test_another_event_loop_cannot_close_it() -> None:
    """That is an error which says so."""

    async def opens() -> AsyncClient:
        return await AsyncClient("127.0.0.1:1").open()

    with asyncio.Runner() as runner:
        client = runner.run(opens())
        with pytest.raises(ClientClosedError, match="another event loop"):
            asyncio.run(client.aclose())
        runner.run(client.aclose())


async def test_a_client_that_is_not_open_can_be_closed(fake: FakeOllama) -> None:
    """It does nothing; and of a client inside of `async with` it ends all requests."""
    await AsyncClient(fake.url).aclose()
    async with AsyncClient(fake.url) as client:
        await client.version()
        await client.aclose()
        await fake.wait_all_closed()
        with pytest.raises(ClientClosedError):
            await client.version()


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_on_trio_it_names_async_with(fake: FakeOllama) -> None:
    """A nursery cannot be left elsewhere than where it was entered; the client can still be used."""
    client = AsyncClient(fake.url)
    with pytest.raises(RequestError, match="async with AsyncClient"):
        await client.open()
    async with client:
        await client.version()
