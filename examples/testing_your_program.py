"""A program and its tests, with the fake server: `pytest examples/testing_your_program.py`.

The fixture `fake_ollama` comes with ollama-sc: a server on a real socket in a thread of its own,
with OLLAMA_HOST set to it. `anyio` marks tests that pytest runs on asyncio and on trio.
"""

import anyio
import pytest

from ollama_sc import AsyncClient, IncompleteStreamError, ModelNotFoundError, ServerBusyError
from ollama_sc.testing import FakeModel, FakeOllama, Reply

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


async def prepare(client: AsyncClient, model: str) -> None:
    """Load a model; pull it where the server does not have it."""
    try:
        await client.load(model)
    except ModelNotFoundError:
        await client.pull(model)
        await client.load(model)


async def title(client: AsyncClient, text: str) -> str:
    """Let the model write a title; where the answer breaks off, what has come will do."""
    stream = await client.generate(MODEL, f"A title for:\n{text}", stream=True)
    async with stream:
        try:
            async for _ in stream:
                pass
        except IncompleteStreamError:
            pass
        return stream.result().response


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


async def test_a_missing_model_is_pulled(fake_ollama: FakeOllama) -> None:
    """The fake has a store of models, and a registry to pull from."""
    fake_ollama.registry.add(FakeModel("house-model", size=1000))
    assert "house-model" not in fake_ollama.models
    async with AsyncClient() as client:
        await prepare(client, "house-model")
        assert [model.name for model in fake_ollama.loaded] == ["house-model:latest"]
    assert [request.path for request in fake_ollama.requests].count("/api/pull") == 1


async def test_a_connection_that_breaks(fake_ollama: FakeOllama) -> None:
    """Any reply can break at any byte or line: here after three parts."""
    fake_ollama.script(
        "/api/generate", Reply.chat_text("One two three four").replace(reset_after=3)
    )
    async with AsyncClient() as client:
        assert await title(client, "a long report") == "One two three"
