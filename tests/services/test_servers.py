"""Real servers in processes of their own: browsers that leave, and deployments, end generations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from ollama_sc.testing import FakeOllama, Reply
from tests.services.support import COMMANDS, GRACE, Server, read_all, read_until, running
from tests.support import LONG

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

# The others take as long, and are like these. (Where uvloop is installed, uvicorn runs on it.)
# The two run at the same time, as most of it is waiting.
NAMES = [[name] for name in COMMANDS] if LONG else [["uvicorn-uvloop", "hypercorn-trio"]]


@pytest.fixture
def anyio_backend() -> Any:
    """The servers have event loops of their own; this is the browser's."""
    return "asyncio"


@pytest.mark.parametrize("names", NAMES, ids=" ".join)
async def test_browsers_and_sigterm_end_generations(names: list[str], tmp_path: Path) -> None:
    """A browser that leaves ends its own; SIGTERM ends all, after the grace; then the server exits."""
    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(generations_end, name, tmp_path / name)


async def generations_end(name: str, folder: Path) -> None:
    folder.mkdir()
    async with (
        FakeOllama(token_rate=20, tokens=1000) as slow,
        running(name, folder, slow.url) as server,
    ):
        await browsers_leave(server, slow)
        count = len(slow.requests)
        text = await server.get("/text?prompt=one")
        await read_until(text, b"\r\n\r\n")
        events = await server.get("/sse?prompt=two")
        begun = await read_until(events, b"data: {")
        stopped_at = anyio.current_time()
        seen = [b"", b""]

        async def read(stream: Any, number: int) -> None:
            seen[number] = await read_all(stream)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, text, 0)
            tasks.start_soon(read, events, 1)
            status = await server.stop()
        for request in slow.requests[count:]:
            await request.wait_closed()
            assert request.disconnected
            assert request.closed_at is not None
            assert request.closed_at - stopped_at > 0.9 * GRACE
    assert status in (0, -15, 143)
    assert begun.startswith(b"HTTP/1.1 200")
    assert not seen[0].endswith(b"0\r\n\r\n")  # the end of a whole one
    if name.startswith(("uvicorn", "granian", "gunicorn")) and "option" not in name:
        assert b'event: error\ndata: {"error":"aborted: the client is shutting down"}' in seen[1]
        assert seen[1].endswith(b"0\r\n\r\n")
    else:  # the server cancels the responses
        assert not seen[1].endswith(b"0\r\n\r\n")


async def browsers_leave(server: Server, slow: FakeOllama) -> None:
    """While the model loads, while a whole reply is awaited, and in the middle of a stream."""
    slow.script("/api/generate", Reply.silence(), Reply.silence())
    for number, target in enumerate(["/text", "/whole", "/ndjson"]):
        browser = await server.get(f"{target}?prompt=one")
        await slow.wait_for_requests(number + 1)
        if target == "/ndjson":
            await read_until(browser, b'"response"')
        await browser.aclose()
        await slow.requests[number].wait_closed()
        assert slow.requests[number].disconnected
    slow.script("/api/generate", Reply.chat_text("All is well."))
    browser = await server.get("/whole?prompt=four")
    assert b"All is well." in await read_until(browser, b"well.")
    await browser.aclose()
