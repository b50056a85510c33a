"""One owner and one end are one span, on every path."""

from __future__ import annotations

import gc
import threading
from typing import Any

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from ollama_sc import (
    AbortError,
    AsyncClient,
    Client,
    ClientClosedError,
    ConnectError,
    IncompleteStreamError,
    ModelNotFoundError,
    OllamaError,
    RequestTimeout,
    ResponseError,
    Timeouts,
    ToolError,
    telemetry,
)
from ollama_sc._calls import observing
from ollama_sc.testing import FakeModel, FakeOllama, Reply
from tests.support import MESSAGES, Outcome, exhaust, in_the_calls_task, let_connecting_wait
from tests.telemetry.conftest import Recorded

pytestmark = pytest.mark.anyio


def ended(recorded: Recorded, how: str, error: str | None = None) -> Any:
    """The only span, after a check of how it ended."""
    span = recorded.span
    assert span.end_time is not None
    assert span.attributes["ollama_sc.end"] == how
    assert span.attributes.get("error.type") == error
    assert span.status.status_code is (StatusCode.ERROR if error else StatusCode.UNSET)
    return span


# -- what goes well --------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("call", "name"), [("chat", "chat llama3.2"), ("generate", "text_completion llama3.2")]
)
async def test_a_success(
    fake: FakeOllama, recorded: Recorded, call: str, name: str, stream: bool
) -> None:
    """The span has the conventions' attributes of the request, of the reply, and ours."""
    options = {"temperature": 0.5, "top_k": 40, "num_predict": 3, "seed": 7, "stop": ["."]}
    given = MESSAGES if call == "chat" else "Hi"
    async with AsyncClient(fake.url) as client:
        reply = await getattr(client, call)(
            "llama3.2", given, stream=stream, options=options, format="json"
        )
        if stream:
            await exhaust(reply)
            reply = reply.result()
    span = ended(recorded, "complete")
    assert (span.name, span.kind) == (name, SpanKind.CLIENT)
    attributes = dict(span.attributes)
    for ours in ("queue_time", "time_to_connection", "time_to_sent"):
        assert attributes.pop(f"ollama_sc.{ours}") >= 0
    assert (attributes.pop("gen_ai.response.time_to_first_chunk", None) is not None) is stream
    assert attributes == {
        "gen_ai.operation.name": name.split()[0],
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": "llama3.2",
        "gen_ai.request.stream": stream,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_k": 40.0,
        "gen_ai.request.max_tokens": 3,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": (".",),
        "gen_ai.output.type": "json",
        "gen_ai.response.model": reply.model,
        "gen_ai.response.finish_reasons": (reply.done_reason,),
        "gen_ai.usage.input_tokens": reply.prompt_eval_count,
        "gen_ai.usage.output_tokens": reply.eval_count,
        "server.address": "127.0.0.1",
        "server.port": fake.port,
        "ollama_sc.load_duration": reply.load_duration / 1e9,
        "ollama_sc.end": "complete",
    }
    assert not span.events


async def test_embeddings(fake: FakeOllama, recorded: Recorded) -> None:
    """Both ways to ask for them; no text is in the span."""
    async with AsyncClient(fake.url) as client:
        await client.embed("all-minilm", ["secret text"], dimensions=8)
        await client.embeddings("all-minilm", "secret text")
    first, second = recorded.spans
    assert first.name == second.name == "embeddings all-minilm"
    assert first.attributes["gen_ai.embeddings.dimension.count"] == 8
    assert first.attributes["gen_ai.usage.input_tokens"] > 0
    assert "secret" not in f"{first.to_json()}{second.to_json()}"


async def test_what_runs_no_model_has_no_span(fake: FakeOllama, recorded: Recorded) -> None:
    """Lists, pulls and the like are in the log alone."""
    async with AsyncClient(fake.url) as client:
        await client.list()
        await client.version()
        await client.pull("llama3.2")
        await client.create_blob(b"x")
    assert recorded.spans == []


async def test_the_callers_span_is_the_parent(fake: FakeOllama, recorded: Recorded) -> None:
    """Also in an operation of several requests."""
    tracer = recorded.tracer_provider.get_tracer("test")
    async with AsyncClient(fake.url) as client:
        with tracer.start_as_current_span("outer"):
            await client.generate("llama3.2", "Hi")
            await client.load("nomic-embed-text")
    *inner, outer = recorded.spans
    assert [span.name for span in inner] == [
        "text_completion llama3.2",
        "text_completion nomic-embed-text",
        "embeddings nomic-embed-text",
    ]
    assert {span.parent.span_id for span in inner} == {outer.context.span_id}


async def test_images_from_files(fake: FakeOllama, recorded: Recorded, tmp_path: Any) -> None:
    """A body that is made later has its model and options in the span, and no image."""
    path = tmp_path / "image.png"
    path.write_bytes(b"\x89PNG not really")
    recorded.enable(content=True)
    message = {"role": "user", "content": "What is it?", "images": [path]}
    fake.models.add(FakeModel("llava", ("completion", "vision")))
    async with AsyncClient(fake.url) as client:
        await client.chat("llava", [message], options={"seed": 3})
    assert recorded.span.name == "chat llava"
    assert recorded.span.attributes["gen_ai.request.seed"] == 3
    assert '"modality": "image"' in recorded.span.attributes["gen_ai.input.messages"]


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_of_the_server(fake: FakeOllama, recorded: Recorded, stream: bool) -> None:
    """The class of the error is its type, the HTTP status the status's description."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ModelNotFoundError):
            await client.chat("nobody", MESSAGES, stream=stream)
    span = ended(recorded, "error", "ModelNotFoundError")
    assert span.status.description == "HTTP 404"


async def test_no_error_tells_content(fake: FakeOllama, recorded: Recorded) -> None:
    """A server that repeats a prompt, what is no reply, a tool's own error: the class alone."""
    part = {"model": "m", "message": {"role": "assistant", "content": "One"}, "done": False}
    said = "sk-what-was-said"
    replies = [
        Reply.error(500, said), Reply.text(said), Reply.stream([part, {"error": said}]),
        Reply.stream([part, said.encode()]), Reply.error(302, "", {"Location": f"http://x/{said}"}),
    ]  # fmt: skip
    fake.script("/api/chat", *replies)
    async with AsyncClient(fake.url) as client:
        for _ in replies:
            with pytest.raises(OllamaError):
                async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
                    await exhaust(stream)
    with pytest.raises(KeyError), telemetry.execute_tool("get_weather"):
        raise KeyError(said)
    assert len(recorded.spans) == len(replies) + 1
    for span in recorded.spans:
        assert span.status.status_code is StatusCode.ERROR
        assert said not in span.to_json()


async def test_an_error_in_the_middle(fake: FakeOllama, recorded: Recorded) -> None:
    """A stream that breaks, and one that says so; what arrived is in the span."""
    part = {"model": "m", "message": {"role": "assistant", "content": "One"}, "done": False}
    for reply, error in (
        (Reply.stream([part]).replace(cut_after=1), IncompleteStreamError),
        (Reply.stream([part, {"error": "out of memory"}]), ResponseError),
    ):
        recorded.exporter.clear()
        fake.script("/api/chat", reply)
        async with AsyncClient(fake.url) as client:
            stream = await client.chat("llama3.2", MESSAGES, stream=True)
            with pytest.raises(error):
                await exhaust(stream)
        span = ended(recorded, "error", error.__name__)
        assert span.attributes["gen_ai.response.model"] == "m"


async def test_no_connection_and_no_answer(fake: FakeOllama, recorded: Recorded) -> None:
    """A server that is not there, a timeout, a reply that is none."""
    fake.script("/api/chat", Reply.silence(), Reply.html())
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(ConnectError):
            await client.chat("llama3.2", MESSAGES)
    ended(recorded, "error", "ConnectError")
    for error in ("RequestTimeout", "ProtocolError"):
        recorded.exporter.clear()
        limits = Timeouts(total=0.05 if error == "RequestTimeout" else None)
        async with AsyncClient(fake.url) as client:
            with pytest.raises(OllamaError) as caught:
                await client.chat("llama3.2", MESSAGES, timeout=limits)
        assert type(caught.value).__name__ == error
        ended(recorded, "error", error)
    assert RequestTimeout


async def test_what_is_refused_has_no_span(fake: FakeOllama, recorded: Recorded) -> None:
    """Nothing began: a wrong argument, a client that is not open."""
    client = AsyncClient(fake.url)
    with pytest.raises(ClientClosedError):
        await client.chat("llama3.2", MESSAGES)
    async with client:
        with pytest.raises(OllamaError):
            await client.chat("", MESSAGES)
    assert recorded.spans == []


# -- ends without an error -------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["waiting", "silent", "streaming"])
async def test_an_abort(slow: FakeOllama, recorded: Recorded, where: str) -> None:
    """Wherever it reaches the call: no error status."""
    if where == "silent":
        slow.always("/api/chat", Reply.silence())
    async with AsyncClient(slow.url, max_in_flight=1) as client, anyio.create_task_group() as tasks:
        if where == "waiting":
            slow.always("/api/generate", Reply.silence())
            first = Outcome(tasks, client.generate, "llama3.2", "Hi")
            await slow.wait_for_requests(1)
        if where == "streaming":
            stream = await client.chat("llama3.2", MESSAGES, stream=True)
            await anext(stream)
            stream.abort("enough")
            with pytest.raises(AbortError):
                await exhaust(stream)
        else:
            second = Outcome(tasks, client.chat, "llama3.2", MESSAGES)
            if where == "silent":
                await slow.wait_for_requests(1)
            await anyio.wait_all_tasks_blocked()
            client.abort("enough")
            await second.event.wait()
            assert isinstance(second.error, AbortError)
        if where == "waiting":
            await first.event.wait()
    chats = [span for span in recorded.spans if span.name == "chat llama3.2"]
    (span,) = chats
    assert span.attributes["ollama_sc.end"] == "aborted"
    assert span.status.status_code is StatusCode.UNSET
    assert ("ollama_sc.queue_time" in span.attributes) is (where != "waiting")


async def test_a_cancelled_caller(fake: FakeOllama, recorded: Recorded) -> None:
    """The caller's own cancellation is no error."""
    fake.always("/api/chat", Reply.silence())
    async with AsyncClient(fake.url) as client:
        for stream in (False, True):
            recorded.exporter.clear()
            with anyio.move_on_after(0.05) as scope:
                await client.chat("llama3.2", MESSAGES, stream=stream)
            assert scope.cancelled_caught
            ended(recorded, "cancelled")


async def test_a_stream_that_is_left_early(slow: FakeOllama, recorded: Recorded) -> None:
    """By `break`; what has arrived is in the span, and the first part's time."""
    async with AsyncClient(slow.url) as client:
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            async for _ in stream:
                break
        span = ended(recorded, "closed")
    assert span.attributes["gen_ai.response.model"] == "llama3.2"
    assert span.attributes["gen_ai.response.time_to_first_chunk"] > 0


async def test_a_stream_that_is_dropped(slow: FakeOllama, recorded: Recorded) -> None:
    """The garbage collector ends it, and the span."""
    async with AsyncClient(slow.url) as client:
        stream = await client.chat("llama3.2", MESSAGES, stream=True)
        with pytest.warns(ResourceWarning):
            del stream
            gc.collect()
        await slow.requests[0].wait_closed()
    ended(recorded, "dropped")


async def test_the_clients_end(slow: FakeOllama, recorded: Recorded) -> None:
    """What is open when the client is left ends with it; a shutdown is an abort, too."""
    async with AsyncClient(slow.url) as client:
        stream = await client.chat("llama3.2", MESSAGES, stream=True)
    with pytest.raises(AbortError):
        await exhaust(stream)
    ended(recorded, "aborted")
    recorded.exporter.clear()
    async with AsyncClient(slow.url) as client:
        stream = await client.chat("llama3.2", MESSAGES, stream=True)
        await client.shutdown(0)
    with pytest.raises(AbortError):
        await exhaust(stream)
    ended(recorded, "aborted")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("what", ["abort", "cancel"])
async def test_one_span_wherever_it_ends(
    fake: FakeOllama,
    recorded: Recorded,
    monkeypatch: pytest.MonkeyPatch,
    stream: bool,
    what: str,
) -> None:
    """At each await of the call's task: exactly one span, and it has ended."""
    let_connecting_wait(monkeypatch)
    at = 1
    while True:
        recorded.exporter.clear()
        seen: list[int] = []
        with anyio.CancelScope() as scope:
            async with AsyncClient(fake.url) as client:

                def happens(call: Any) -> None:
                    scope.cancel() if what == "cancel" else call.abort("here")

                with in_the_calls_task(happens, at, seen):
                    try:
                        reply = await client.generate("llama3.2", "Hi", stream=stream)
                        if stream:
                            async with reply:
                                await exhaust(reply)
                    except AbortError:
                        pass
        span = recorded.span
        assert span.end_time
        assert span.status.status_code is StatusCode.UNSET
        if len(seen) < at:
            break
        at += 1
    assert at >= 3


# -- asking for it ---------------------------------------------------------------------------------


async def test_off_is_off(fake: FakeOllama, recorded: Recorded) -> None:
    """After `disable` nobody observes, and a call has no observer."""
    telemetry.disable()
    assert observing.observers == ()
    async with AsyncClient(fake.url) as client:
        await client.chat("llama3.2", MESSAGES)
        with telemetry.execute_tool("get_weather") as span:
            assert span is trace.INVALID_SPAN
    assert recorded.spans == []
    assert recorded.metrics() == {}


async def test_an_observer_that_fails_harms_nobody(fake: FakeOllama, recorded: Recorded) -> None:
    """Neither at the start of a call nor at any of its steps."""

    class Bad:
        def __getattr__(self, name: str) -> Any:
            raise ZeroDivisionError(name)

    class BadAtSteps(Bad):
        def started(self, call: Any, subject: Any) -> Any:
            return Bad()

    for bad in (Bad(), BadAtSteps()):
        observing.add(bad)
        try:
            async with AsyncClient(fake.url) as client:
                await client.chat("llama3.2", MESSAGES)
                async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
                    await exhaust(stream)
        finally:
            observing.remove(bad)
    assert len(recorded.spans) == 4


async def test_content_by_the_opt_in_alone(
    fake: FakeOllama, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it no text of the conversation is anywhere; with it the conventions' messages are."""
    call = {"name": "get_weather", "arguments": {"city": "Paris"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "The weather?"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": call}]},
        {"role": "tool", "content": "Sunny.", "tool_name": "get_weather", "tool_call_id": "c1"},
    ]
    for setting in ("", "true", "SPAN_ONLY", "false"):
        recorded.exporter.clear()
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", setting)
        recorded.enable()
        fake.script("/api/chat", Reply.chat_text("It is sunny."))
        async with AsyncClient(fake.url) as client:
            async with await client.chat("llama3.2", messages, stream=True) as stream:
                await exhaust(stream)
        everything = recorded.span.to_json()
        if setting in ("", "false"):
            for text in ("brief", "weather", "Paris", "unny"):
                assert text not in everything
        else:
            sent = recorded.span.attributes["gen_ai.input.messages"]
            assert '{"role": "system", "parts": [{"type": "text", "content": "Be brief."}]}' in sent
            assert '"arguments": {"city": "Paris"}' in sent
            assert '{"type": "tool_call_response", "id": "c1", "response": "Sunny."}' in sent
            assert recorded.span.attributes["gen_ai.output.messages"] == (
                '[{"role": "assistant", "parts": [{"type": "text", "content": "It is sunny."}], '
                '"finish_reason": "stop"}]'
            )


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_blocking_client_that_is_closed(recorded: Recorded, backend: Any) -> None:
    """What it ends in another thread was aborted, as by every client's end."""
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            client.chat("llama3.2", MESSAGES)
        except AbortError as error:
            failures.append(error)

    with FakeOllama() as fake:
        fake.always("/api/chat", Reply.silence())
        with Client(fake.url, backend=backend) as client:
            thread = threading.Thread(target=ask)
            thread.start()
            fake.call(fake.wait_for_requests, 1)
        thread.join(30)
    assert [str(failure) for failure in failures] == ["the client was closed"]
    ended(recorded, "aborted")


@pytest.mark.parametrize(
    ("path", "reply"),
    [
        ("/api/chat", {"message": {"role": "assistant", "content": "Yes."}, "done": True}),
        ("/api/generate", {"response": "Yes.", "done": True, "done_reason": "stop"}),
        ("/api/chat", {"message": "odd", "done": True}),
        ("/api/chat", {"message": {"images": 1}, "model": {}, "done_reason": [1]}),
        ("/api/chat", {"eval_count": [1], "prompt_eval_count": -1, "load_duration": "long"}),
        ("/api/chat", {"done": True}),
        ("/api/embed", {"embeddings": [[1.0]]}),
    ],
)
async def test_content_of_plain_json(
    fake: FakeOllama, recorded: Recorded, path: str, reply: dict[str, Any]
) -> None:
    """What `request` brings untyped is told like the rest, and odd replies harm nobody."""
    recorded.enable(content=True)
    fake.script(path, Reply.json(reply))
    async with AsyncClient(fake.url) as client:
        body = {"model": "llama3.2", "messages": [{"role": "user", "content": "Hi"}]}
        assert await client.request("POST", path, json=body) == reply
    span = ended(recorded, "complete")
    assert "gen_ai.client.operation.duration" in recorded.metrics()
    told = span.attributes.get("gen_ai.output.messages", "")
    assert ("Yes." in told) is ("Yes." in str(reply))


async def test_a_run_of_tools(fake: FakeOllama, recorded: Recorded) -> None:
    """Each call of a tool has its span beside those of the chats; what fails is its error."""
    called: list[str] = []

    def get_weather(city: str) -> str:
        """The weather.

        Args:
            city: Its name.
        """
        called.append(trace.get_current_span().get_span_context().span_id)
        if city == "Atlantis":
            raise ToolError("no such city")
        return "sunny"

    calls = [{"name": "get_weather", "arguments": {"city": city}} for city in ("Paris", "Atlantis")]
    fake.script("/api/chat", Reply.chat_text(tool_calls=calls), Reply.chat_text("It is sunny."))
    async with AsyncClient(fake.url) as client:
        await client.run_tools("llama3.2", MESSAGES, tools=[get_weather])
    names = [span.name for span in recorded.spans]
    assert sorted(names) == ["chat llama3.2"] * 2 + ["execute_tool get_weather"] * 2
    tools = [span for span in recorded.spans if span.name.startswith("execute")]
    assert sorted(str(span.attributes.get("error.type")) for span in tools) == ["None", "ToolError"]
    assert sorted(called) == sorted(span.context.span_id for span in tools)


def test_tools(recorded: Recorded) -> None:
    """A span that is the current one; errors are its errors; arguments only by the opt-in."""
    with telemetry.execute_tool(
        "get_weather", call_id="call_1", description="The weather.", arguments={"city": "Paris"}
    ) as span:
        assert trace.get_current_span() is span
    with pytest.raises(KeyError):
        with telemetry.execute_tool("get_weather"):
            raise KeyError("Paris")
    first, second = recorded.spans
    assert first.name == "execute_tool get_weather"
    assert first.status.status_code is StatusCode.UNSET
    assert dict(first.attributes) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "get_weather",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "call_1",
        "gen_ai.tool.description": "The weather.",
    }
    assert second.attributes["error.type"] == "KeyError"
    assert second.status.status_code is StatusCode.ERROR
    recorded.enable(content=True)
    with observing.tool("get_weather", arguments={"city": "Paris"}):
        pass
    assert recorded.spans[2].attributes["gen_ai.tool.call.arguments"] == '{"city": "Paris"}'
