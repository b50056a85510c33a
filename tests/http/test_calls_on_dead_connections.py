"""What becomes of calls whose connections die, or bring what nobody asked for."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from ollama_sc import AsyncClient, ConnectError
from tests.support import MESSAGES, exhaust, plain_reply, raw_server, read_request, replying

pytestmark = pytest.mark.anyio


async def test_no_server(anyio_backend: Any) -> None:
    """A server that is not there is a ConnectError, which is a ConnectionError too."""
    async with AsyncClient("127.0.0.1:9") as client:
        with pytest.raises(ConnectError, match="127.0.0.1:9") as caught:
            await client.version()
        assert isinstance(caught.value, ConnectionError)
        assert caught.value.__cause__ is not None


async def test_a_dead_idle_connection_is_replaced_once(anyio_backend: Any) -> None:
    """A request on a reused connection that dies before the reply begins is sent again."""
    seen: list[int] = []
    reply = plain_reply(b'{"version":"1"}')

    async def handle(stream: Any) -> None:
        seen.append(0)
        number = len(seen) - 1
        while await read_request(stream):
            seen[number] += 1
            if number == 0 and seen[0] == 2:
                return  # the idle connection dies under its second request
            await stream.send(reply)

    async with raw_server(handle) as url, AsyncClient(url) as client:
        assert (await client.version()).version == "1"
        assert (await client.version()).version == "1"
    assert seen == [2, 1]


async def test_a_new_connection_that_dies_is_not_replaced(anyio_backend: Any) -> None:
    """Calls are not retried: a first connection that dies before the reply is an error."""
    seen: list[bytes] = []

    async def handle(stream: Any) -> None:
        seen.append(await read_request(stream))

    async with raw_server(handle) as url, AsyncClient(url) as client:
        with pytest.raises(ConnectError):
            await client.version()
    assert len(seen) == 1


async def test_a_reply_that_begins_is_never_asked_for_again(anyio_backend: Any) -> None:
    """A reused connection that dies inside the reply's body is an error, not a second request."""
    good = plain_reply(b'{"version":"1"}')
    async with raw_server(replying(good, good[:-4])) as url, AsyncClient(url) as client:
        await client.version()
        with pytest.raises(ConnectError):
            await client.version()


async def test_several_stale_connections(anyio_backend: Any) -> None:
    """Where one idle connection has died under a request, the second try takes none of the others."""
    answered = 0

    async def handle(stream: Any) -> None:
        nonlocal answered
        if await read_request(stream):
            answered += 1
            await anyio.sleep(0.05)
            await stream.send(plain_reply(b'{"version":"1"}'))
        if answered <= 4 and await read_request(stream):
            return  # it dies under its second request
        while await read_request(stream):
            await stream.send(plain_reply(b'{"version":"2"}'))

    async with raw_server(handle) as url, AsyncClient(url) as client:
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(client.version)
        assert client.statistics().idle == 4
        assert (await client.version()).version == "1"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_reply_that_nobody_asked_for_reaches_nobody(
    anyio_backend: Any, streamed: bool
) -> None:
    """A second reply in the packet of the first is not the answer to the next request."""
    part = b'{"model":"m","message":{"role":"assistant","content":"%s"},"done":true}\n'
    asked = 0

    async def handle(stream: Any) -> None:
        nonlocal asked
        while await read_request(stream):
            asked += 1
            mine, other = plain_reply(part % b"yours"), plain_reply(part % b"NOT YOURS")
            await stream.send(mine + other)

    async with raw_server(handle) as url, AsyncClient(url) as client:
        for number in range(1, 6):
            if streamed:
                async with await client.chat("m", MESSAGES, stream=True) as stream:
                    await exhaust(stream)
                text = stream.result().text
            else:
                text = (await client.chat("m", MESSAGES)).text
            assert text == "yours"
            assert asked == number
            assert client.statistics().open == 0
