"""The example page, used as a person does: with a keyboard, a mouse and eyes."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import anyio
import anyio.to_thread
import pytest

from ollama_sc.testing import FakeOllama, Reply
from tests.browser.chromium import Chromium, Tab
from tests.browser.conftest import Place
from tests.browser.site import Site
from tests.support import ROOT

pytestmark = pytest.mark.anyio

ANSWERS = [
    "Because air scatters short waves of light more than long ones, so that blue comes from "
    "everywhere, and red from where the sun is.",
    "At night there is no sunlight to be scattered. What is left is the light of the moon, which is "
    "far too weak for our eyes to see its color, and beyond it the stars, each of them a sun that "
    "shines on some other sky; " + "and so on " * 500,
]


@asynccontextmanager
async def opened(browser: Chromium, site: Site, wheel: Path, host: str) -> AsyncIterator[Tab]:
    """The page, once it is ready."""
    query = {
        "host": host,
        "pyodide": f"{site.origin}/pyodide/",
        "package": f"{site.origin}/pyodide/{wheel.name}",
    }
    address = f"{site.origin}/examples/chat.html?{urlencode(query)}"
    page = await anyio.to_thread.run_sync(browser.open, address)
    try:
        # Not one wait in the page: it begins as an empty one, which is complete, too.
        there = "location.href !== 'about:blank' && document.readyState === 'complete'"
        with anyio.fail_after(30):
            while not await anyio.to_thread.run_sync(page.evaluate, there):
                await anyio.sleep(0.01)
        await wait(page, "document.getElementById('state').textContent.startsWith('ready')")
        yield page
    finally:
        await anyio.to_thread.run_sync(page.close)


async def wait(page: Tab, condition: str) -> None:
    await anyio.to_thread.run_sync(page.wait_for, condition)


async def answered(page: Tab, count: int) -> None:
    """Wait for the end of so many answers."""
    await wait(
        page,
        f"document.querySelectorAll('.assistant').length === {count} &&"
        " document.getElementById('state').textContent.startsWith('ready')",
    )


async def ask(page: Tab, text: str) -> None:
    await anyio.to_thread.run_sync(page.click, "#question")
    await anyio.to_thread.run_sync(page.type, text)
    await anyio.to_thread.run_sync(page.click, "#send")


async def shown(page: Tab, kind: str) -> list[str]:
    found: Any = await anyio.to_thread.run_sync(
        page.evaluate, f"[...document.querySelectorAll('{kind}')].map((one) => one.textContent)"
    )
    return found


async def test_a_chat_with_a_stop_button(
    installed: dict[str, Place],
    browser: Chromium,
    site: Site,
    wheel: Path,
    serve: Any,
    tmp_path: Path,
) -> None:
    """Answers come whole, or are stopped; errors are shown; a page that is closed leaves nothing.

    What is seen before it is stopped is the picture in the docs, written with `WRITE_SCREENSHOT=1`.
    """
    async with AsyncExitStack() as stack:
        async with serve(models=["llama3.2"]) as fake:
            page = await stack.enter_async_context(opened(browser, site, wheel, fake.url))
            picture = await chatting(page, fake)
        # Nobody is there: the page says so, and goes on.
        await ask(page, "And now?")
        await wait(page, "document.querySelectorAll('.note').length === 2")
        assert "nothing answers there" in (await shown(page, ".note"))[1]
        async with serve(models=["llama3.2"], port=fake.port) as another:
            another.script("/api/chat", Reply.chat_text("on and " * 5000).replace(rate=100))
            await ask(page, "Is anybody there again?")
            await wait(page, "document.body.textContent.includes('and on')")
            await stack.aclose()
            await another.requests[-1].wait_closed()
            assert another.requests[-1].disconnected
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", picture[16:24]) == (760, 400)
    target = ROOT / "docs" if os.environ.get("WRITE_SCREENSHOT") else tmp_path
    (target / "browser.png").write_bytes(picture)


async def chatting(page: Tab, fake: FakeOllama) -> bytes:
    """One answer that is whole, one that is stopped, one after that; the picture of the second."""
    first, second = (Reply.chat_text(text) for text in ANSWERS)
    fake.script("/api/chat", first, second.replace(rate=60))
    await ask(page, "Why is the sky blue?")
    await answered(page, 1)
    assert await shown(page, ".assistant") == [ANSWERS[0]]
    await ask(page, "And why is it black at night?")
    await wait(page, "document.body.textContent.includes('some other sky')")
    picture = await anyio.to_thread.run_sync(page.screenshot, 120, 0, 760, 400)
    await anyio.to_thread.run_sync(page.click, "#stop")
    await wait(page, "document.querySelector('.note')")
    request = fake.requests[-1]
    await request.wait_closed()
    assert request.disconnected
    assert await shown(page, ".note") == ["stopped by hand"]
    whole, half = await shown(page, ".assistant")
    assert ANSWERS[1].startswith(half)
    assert half != ANSWERS[1]
    assert [one["role"] for one in request.json["messages"]] == ["user", "assistant", "user"]
    assert request.json["messages"][1]["content"] == whole
    await ask(page, "Well?")
    await answered(page, 3)
    assert (await shown(page, ".assistant"))[2]
    return picture


async def test_the_snippet_in_the_docs_runs(place: Place, serve: Any) -> None:
    """As it stands, where there is the server that it looks for."""
    text = (ROOT / "docs" / "browser.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    async with serve(models=["llama3.2"]) as fake:
        before = f"import os\nos.environ['OLLAMA_HOST'] = {fake.url!r}\n"
        assert await place.run_code(f"{before}{snippet}\n'[]'") == []
        assert fake.requests[-1].json["stream"]
