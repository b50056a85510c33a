"""A program and its tests, with the fake server: `pytest examples/testing_your_program.py`.

The fixture `fake_ollama` comes with ollama-sc: a server on a real socket in the test's own event
loop, with OLLAMA_HOST set to it. `anyio` marks tests that pytest runs on asyncio and on trio.
"""

import anyio
import pytest

from ollama_sc import AsyncClient, ServerBusyError
from ollama_sc.testing import FakeOllama, Reply

MODEL = "llama3.2"

# -- the program ---------------------------------------------------------------------------------


async def summarise(client: AsyncClient, text: str) -> str:
    """Let the model sum a text up; try once more where the server is busy."""
    for attempt in (1, 2):
        try:
            reply = await client.generate(MODEL, f"Sum up:\n{text}")
        except ServerBusyError:
            if attempt == 2:
                raise
        else:
            return reply.response.strip()
    raise AssertionError


# -- its tests -----------------------------------------------------------------------------------

pytestmark = pytest.mark.anyio


async def test_the_prompt_holds_the_text(fake_ollama: FakeOllama) -> None:
    """What goes to the server can be looked at."""
    fake_ollama.script("/api/generate", Reply.chat_text(" All is well. "))
    async with AsyncClient() as client:
        assert await summarise(client, "a long report") == "All is well."
    assert fake_ollama.requests[0].json["prompt"] == "Sum up:\na long report"


async def test_a_busy_server_is_asked_again(fake_ollama: FakeOllama) -> None:
    """Failures can be ordered: here a 503, then an answer."""
    fake_ollama.script("/api/generate", Reply.busy(), Reply.chat_text("Done."))
    async with AsyncClient() as client:
        assert await summarise(client, "a long report") == "Done."
    assert len(fake_ollama.requests) == 2


async def test_giving_up_ends_the_request(fake_ollama: FakeOllama) -> None:
    """A server that says nothing: the time limit passes, and the server sees the end."""
    fake_ollama.always("/api/generate", Reply.silence())
    async with AsyncClient() as client:
        with anyio.move_on_after(0.2) as scope:
            await summarise(client, "a long report")
        assert scope.cancelled_caught
        await fake_ollama.requests[0].wait_closed()
