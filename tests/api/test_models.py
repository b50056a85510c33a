"""Models: they are pulled, made, shown, copied, loaded and deleted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ollama_sc import (
    AbortError,
    AsyncClient,
    IncompleteStreamError,
    Message,
    ModelNotFoundError,
    Options,
    ResponseError,
)
from ollama_sc.testing import FakeOllama, Reply
from tests.support import exhaust, is_quiet, plain_reply, raw_server, read_request, recorded_body

pytestmark = pytest.mark.anyio


async def test_a_models_life(fake: FakeOllama) -> None:
    """Pull, show, copy, load, list, unload, delete: each does what it says."""
    async with AsyncClient(fake.url) as client:
        assert not await client.has_model("mistral")
        with pytest.raises(ModelNotFoundError):
            await client.show("mistral")
        assert (await client.pull("mistral")).complete
        shown = await client.show("mistral", verbose=True)
        assert shown.details is not None
        assert shown.modelfile
        assert (await client.copy("mistral", "mine")).status == "success"
        assert await client.has_model("MINE:latest")
        names = [model.model for model in (await client.list()).models]
        assert {"mistral:latest", "mine:latest"} <= set(names)
        await client.load("mine", keep_alive=timedelta(minutes=10))
        [running] = (await client.ps()).models
        assert running.model == "mine:latest"
        assert running.expires_at is not None
        await client.unload("mine")
        assert (await client.ps()).models == []
        assert (await client.delete("mine")).status == "success"
        with pytest.raises(ModelNotFoundError, match="DELETE /api/delete, model 'mine'"):
            await client.delete("mine")
        with pytest.raises(ModelNotFoundError, match="POST /api/copy"):
            await client.copy("mine", "other")
        assert is_quiet(client)


@pytest.mark.parametrize("model", ["llama3.2", "nomic-embed-text"])
async def test_loading_any_model(fake: FakeOllama, model: str) -> None:
    """Models that write and models that only embed are loaded by the same call."""
    async with AsyncClient(fake.url) as client:
        await client.load(model, keep_alive=-1)
        [running] = (await client.ps()).models
        assert running.model == f"{model}:latest"
        assert running.expires_at is not None
        assert running.expires_at.year > 2200
        with pytest.raises(ModelNotFoundError):
            await client.load("no-such-model")
        with pytest.raises(ModelNotFoundError):
            await client.unload("no-such-model")


async def test_pulling_with_progress(fake: FakeOllama) -> None:
    """The progress comes in parts, and joined it is all layers together."""
    async with AsyncClient(fake.url) as client:
        async with await client.pull("mistral", stream=True) as stream:
            parts = [part async for part in stream]
        assert parts[0].status == "pulling manifest"
        assert parts[-1].complete
        whole = stream.result()
        assert whole.complete
        assert whole.total == sum({p.digest: p.total or 0 for p in parts if p.digest}.values())
        assert (await client.show("mistral")).details is not None


async def test_an_abandoned_pull_goes_on_where_it_was(anyio_backend: Any) -> None:
    """An aborted pull raises AbortError; the next one finds what is there already."""
    async with FakeOllama() as fake, AsyncClient(fake.url) as client:
        fake.script("/api/pull", Reply.default().replace(stall_after=2))
        async with await client.pull("mistral", stream=True) as stream:
            await anext(stream)
            assert client.abort() == 1
            with pytest.raises(AbortError):
                await exhaust(stream)
        await fake.requests[0].wait_closed()
        assert (await client.pull("mistral")).complete


@pytest.mark.parametrize("stream", [False, True])
async def test_a_pull_that_fails(fake: FakeOllama, stream: bool) -> None:
    """A failed pull is a ResponseError, at status 500 or inside the stream."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ResponseError, match="pull model manifest") as caught:
            if stream:
                await exhaust(await client.pull("no-such-model", stream=True))
            else:
                await client.pull("no-such-model")
        assert caught.value.status_code == (200 if stream else 500)
        assert "no-such-model" in str(caught.value)


async def test_a_transfer_that_breaks_off(fake: FakeOllama) -> None:
    """A transfer without its "success" is incomplete, streamed or not."""
    fake.always("/api/pull", Reply.stream([{"status": "pulling manifest"}]))
    async with AsyncClient(fake.url) as client:
        with pytest.raises(IncompleteStreamError) as caught:
            await exhaust(await client.pull("mistral", stream=True))
        assert caught.value.partial.status == "pulling manifest"
        fake.always("/api/pull", Reply.json({"status": "pulling manifest"}))
        with pytest.raises(IncompleteStreamError):
            await client.pull("mistral")


async def test_create_and_push(fake: FakeOllama) -> None:
    """A model made from another and one made from a file; pushing it."""
    async with AsyncClient(fake.url) as client:
        made = await client.create(
            "brief",
            from_="llama3.2",
            system="Be brief.",
            parameters=Options(temperature=0, stop=["x"]),
            messages=[Message("user", "Hi"), {"role": "assistant", "content": "Hello."}],
            license=["MIT"],
        )
        assert made.complete
        body = fake.requests[-1].json
        assert body["from"] == "llama3.2"
        assert body["parameters"] == {"temperature": 0, "stop": ["x"]}
        assert body["messages"][0] == {"role": "user", "content": "Hi"}
        assert body["stream"] is False
        assert (await client.show("brief")).system == "Be brief."
        with pytest.raises(ResponseError, match="neither 'from' or 'files'"):
            await client.create("nothing")
        async with await client.create("other", from_="llama3.2", stream=True) as stream:
            statuses = [part.status async for part in stream]
        assert statuses[-1] == "success"
        assert len(statuses) > 1
        await client.copy("brief", "me/brief")
        assert (await client.push("me/brief", insecure=True)).complete
        assert fake.requests[-1].json["insecure"] is True


async def test_recorded_replies_of_models(anyio_backend: Any) -> None:
    """A real server's replies about models are read whole."""
    replies = {
        "tags": lambda c: c.list(),
        "ps": lambda c: c.ps(),
        "show": lambda c: c.show("m"),
        "status": lambda c: c.status(),
        "embeddings-legacy": lambda c: c.embeddings("m", "x"),
    }
    import msgspec  # noqa: PLC0415

    for name, call in replies.items():
        body = recorded_body(name)

        async def handle(stream: Any, body: bytes = body) -> None:
            await read_request(stream)
            await stream.send(plain_reply(body))

        async with raw_server(handle) as url, AsyncClient(url) as client:
            reply = await call(client)
            expected = msgspec.json.decode(body)
            assert set(reply.to_dict()) == {k for k, v in expected.items() if v is not None}


@pytest.mark.parametrize(
    "body",
    [
        "",
        "true",
        "{}",
        "null",
        '{"status":"success"}',
        '{"error":null}',
        "OK",
        "[1]",
        '{"x":1}',
    ],
)
async def test_what_is_done_is_done_however_it_is_said(fake: FakeOllama, body: str) -> None:
    """Whatever success a server answers copy and delete with, it is one."""
    fake.always("/api/copy", Reply.text(body))
    fake.always("/api/delete", Reply.text(body))
    async with AsyncClient(fake.url) as client:
        assert (await client.copy("llama3.2", "mine")).status == "success"
        assert (await client.delete("llama3.2")).status == "success"
        assert is_quiet(client)


async def test_an_error_object_is_no_success(fake: FakeOllama) -> None:
    """An error object is an error, also where its status says success."""
    fake.always("/api/delete", Reply.json({"status": "success", "error": "busy"}))
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ResponseError, match="busy"):
            await client.delete("llama3.2")


async def test_one_odd_time_does_not_cost_the_list(fake: FakeOllama) -> None:
    """A model with an odd time is listed without one, and the others with theirs."""
    async with AsyncClient(fake.url) as client:
        before = (await client.list()).models
        models = [model.to_dict() for model in before]
        models[0]["modified_at"] = ""
        fake.always("/api/tags", Reply.json({"models": models}))
        after = (await client.list()).models
    assert [model.name for model in after] == [model.name for model in before]
    assert after[0].modified_at is None
    assert after[1:] == before[1:]
