"""The loop: a model's calls are made, and it is asked again with their results."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from ollama_sc import (
    AbortError,
    AsyncClient,
    IncompleteStreamError,
    Message,
    ResponseError,
    Tool,
    ToolError,
    ToolRun,
)
from ollama_sc.testing import FakeOllama, Reply
from tests.support import is_quiet, raw_server, recording, replying
from tests.tools.support import USER, answer, calls

pytestmark = pytest.mark.anyio


@dataclass
class Weather:
    city: str
    rain: bool


def get_weather(city: str, days: int = 1) -> Weather:
    """Tell the weather."""
    return Weather(city, days > 1)


async def get_time(city: str) -> str:
    """Tell the time."""
    await anyio.lowlevel.checkpoint()
    return f"noon in {city}"


async def run(fake: FakeOllama, tools: Any, *replies: Reply, **fields: Any) -> ToolRun:
    fake.script("/api/chat", *replies)
    async with AsyncClient(fake.url, max_in_flight=1) as client:
        try:
            found: ToolRun = await client.run_tools("qwen3", [USER], tools, **fields)
        finally:
            assert is_quiet(client)
            assert client._shared.limiter.available == 1
    return found


def sent(fake: FakeOllama, number: int = -1) -> list[dict[str, Any]]:
    """The messages of a request."""
    found: list[dict[str, Any]] = fake.requests[number].json["messages"]
    return found


# -- the way of a call and back --------------------------------------------------------------------


@pytest.mark.parametrize("at_end", [False, True])
async def test_calls_are_answered(fake: FakeOllama, at_end: bool) -> None:
    """Two functions, one of them asynchronous; calls in the last part of a reply count as well."""
    wanted = [("get_weather", {"city": "Oslo", "days": "3"}), ("get_time", {"city": "Oslo"})]
    found = await run(fake, [get_weather, get_time], calls(*wanted, at_end=at_end), answer())
    assert (found.text, found.stopped, found.rounds) == ("It rains.", "answered", 2)
    assert [message.role for message in found.messages] == [
        "user", "assistant", "tool", "tool", "assistant",
    ]  # fmt: skip
    assert sent(fake) == [{"content": "", **message.to_dict()} for message in found.messages[:-1]]
    results = sent(fake)[-2:]
    assert [result["content"] for result in results] == [
        '{"city":"Oslo","rain":true}',
        "noon in Oslo",
    ]
    assert [result["tool_name"] for result in results] == ["get_weather", "get_time"]
    made = sent(fake)[1]["tool_calls"]
    assert [result["tool_call_id"] for result in results] == [call["id"] for call in made]
    assert [record.outcome for record in found.calls] == ["returned", "returned"]
    assert found.calls[0].result == Weather("Oslo", True)
    assert found.calls[0].arguments == {"city": "Oslo", "days": "3"}
    assert [record.number for record in found.calls] == [0, 1]
    tools = fake.requests[0].json["tools"]
    assert [tool["function"]["name"] for tool in tools] == ["get_weather", "get_time"]
    assert fake.requests[0].json["stream"] is False


async def test_without_calls_it_is_a_chat(fake: FakeOllama) -> None:
    """With tools that are not used, and without tools."""
    for tools in ([get_weather], []):
        found = await run(fake, tools, answer())
        assert (found.text, found.rounds, found.calls) == ("It rains.", 1, [])
        assert ("tools" in fake.requests[-1].json) is bool(tools)


RESULTS: list[tuple[Any, str]] = [
    ("text", "text"),
    (None, ""),
    (5, "5"),
    (True, "true"),
    ({"a": [1, None]}, '{"a":[1,null]}'),
    ([Weather("Oslo", False)], '[{"city":"Oslo","rain":false}]'),
    ({"x"}, '["x"]'),
    (b"\x00", '"AA=="'),
    (2**70, str(2**70)),
    ("\ud800!", "?!"),
]


@pytest.mark.parametrize(("result", "expected"), RESULTS, ids=[repr(one) for one, _ in RESULTS])
async def test_results_become_text(fake: FakeOllama, result: Any, expected: str) -> None:
    """Text as it is, nothing as nothing, all else as JSON."""
    found = await run(fake, [Tool.of(lambda: result, name="f")], calls(("f", {})), answer())
    assert sent(fake)[-1]["content"] == expected
    assert found.calls[0].result == result


async def test_a_message_is_a_result_as_it_is(fake: FakeOllama) -> None:
    """What it lacks to belong to its call is added; a model of pydantic is JSON."""

    class City(BaseModel):
        name: str

    def image() -> Message:
        return Message("tool", "look", images=["aGk="])

    def city() -> City:
        return City(name="Oslo")

    await run(fake, [image, city], calls(("image", {}), ("city", {})), answer())
    first, second = sent(fake)[-2:]
    assert (first["content"], first["images"], first["tool_name"]) == ("look", ["aGk="], "image")
    assert first["tool_call_id"]
    assert second["content"] == '{"name":"Oslo"}'


async def test_a_message_of_another_role_stays_as_it_is(fake: FakeOllama) -> None:
    """Whoever returns it knows why; objects that are messages by themselves can be given."""
    tool = Tool.of(lambda: Message("user", "mine", tool_name="f"), name="f")
    found = await run(fake, [tool], calls(("f", {})), answer())
    assert sent(fake)[-1] == {"role": "user", "content": "mine", "tool_name": "f"}
    fake.script("/api/chat", answer())
    async with AsyncClient(fake.url) as client:
        reply = await client.chat("qwen3", [USER])
        found = await client.run_tools("qwen3", [USER, reply, {**dict(USER), "images": [b"png"]}])
    assert found.messages[1] is reply.message
    assert found.messages[2].images == [b"png"]
    assert sent(fake)[2]["images"] == ["cG5n"]


async def test_a_result_that_has_no_form(fake: FakeOllama) -> None:
    """It is an exception of the tool: raised, or told."""
    tools = [Tool.of(object, name="f")]
    with pytest.raises(TypeError, match="what the tool 'f' has returned: object has no form"):
        await run(fake, tools, calls(("f", {})))
    await run(fake, tools, calls(("f", {})), answer(), on_tool_error="tell")
    assert "object" in sent(fake)[-1]["content"]


async def test_what_cannot_run_is_told(fake: FakeOllama) -> None:
    """An unknown tool is told the names, arguments that do not fit the path."""
    wanted = [
        ("get_wether", {}),
        ("get_weather", {"city": "Oslo", "days": [1]}),
        ("get_weather", {}),
        ("get_weather", {"city": "Oslo", "day": 1}),
    ]
    found = await run(fake, [get_weather, get_time], calls(*wanted), answer())
    unknown, misfit, missing, extra = (message["content"] for message in sent(fake)[-4:])
    assert "'get_weather', 'get_time'" in unknown
    assert "$.days" in misfit
    assert "$.city" in missing
    assert "$.day" in extra
    assert "'days'" in extra
    outcomes = [record.outcome for record in found.calls]
    assert outcomes == ["unknown", "misfit", "misfit", "misfit"]


async def test_arguments_that_are_no_object(fake: FakeOllama) -> None:
    """Some servers send text: it is read, or told to be none."""
    parts = [
        {"function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}},
        {"function": {"name": "get_weather", "arguments": "Oslo"}},
        {"function": {"name": "get_weather", "arguments": [1]}},
    ]
    reply = {"message": {"role": "assistant", "content": "", "tool_calls": parts}, "done": True}
    found = await run(fake, [get_weather], Reply.json(reply), answer())
    assert [record.outcome for record in found.calls] == ["returned", "misfit", "misfit"]
    assert [message.tool_call_id for message in found.messages[2:5]] == [None] * 3


async def test_other_kinds_of_tools(fake: FakeOllama) -> None:
    """Objects with a call, partials and methods run; what is only described is told to be unknown."""

    class Remote:
        name = "remote"
        description = "d"
        inputSchema: Mapping[str, Any] = {  # noqa: N815
            "type": "object",
            "properties": {"q": {"type": "string"}},
        }

        async def call(self, arguments: Mapping[str, Any]) -> Any:
            return {"got": arguments}

    class Named(Remote):
        name = "named"
        call = None  # type: ignore[assignment]

        async def __call__(self, **arguments: Any) -> Any:
            return arguments

    schema = {"type": "function", "function": {"name": "schema", "parameters": {"type": "object"}}}
    tools = [
        Remote(),
        Named(),
        functools.partial(get_weather, days=9),
        schema,
        Tool.of(get_time, name="time"),
    ]
    wanted = [
        ("remote", {"q": "a"}),
        ("named", {"q": "b"}),
        ("get_weather", {"city": "Oslo"}),
        ("schema", {}),
        ("time", {"city": "Oslo"}),
    ]
    await run(fake, tools, calls(*wanted), answer())
    contents = [message["content"] for message in sent(fake)[-5:]]
    assert contents[:3] == ['{"got":{"q":"a"}}', '{"q":"b"}', '{"city":"Oslo","rain":true}']
    assert "there is no tool 'schema'" in contents[3]
    assert contents[4] == "noon in Oslo"
    assert len(fake.requests[0].json["tools"]) == 5


async def test_the_round_trip_keeps_everything(fake: FakeOllama) -> None:
    """Thinking, ids, indices and fields that the API does not have go back; so does an odd input."""
    call = {
        "id": "x1",
        "sig": "s",
        "function": {"name": "f", "arguments": {"b": 1, "a": 2}, "n": 3},
    }
    message = {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [call], "z": [1]}
    fake.script("/api/chat", Reply.json({"message": message, "done": True}), answer())
    given = [
        {"role": "user", "content": "Hi", "mine": {"a": 1}},
        {"role": "assistant", "content": None},
    ]

    def f(a: int, b: int) -> int:
        return a - b

    async with AsyncClient(fake.url) as client:
        found = await client.run_tools("qwen3", given, [f])
        await client.chat("qwen3", found.messages)
    for number in (1, 2):
        messages = sent(fake, number)
        assert messages[0] == given[0]
        assert messages[2] == message
        assert list(messages[2]["tool_calls"][0]["function"]["arguments"]) == ["b", "a"]
        assert messages[3]["content"] == "1"
        assert messages[3]["tool_call_id"] == "x1"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_real_servers_replies(streamed: bool, anyio_backend: Any) -> None:
    """Three calls of one tool in a reply, each with its own id; then the answer."""
    first = recording("0.33/tools-stream" if streamed else "0.33/tools-single")
    last = recording("0.33/tools-result")
    seen: list[str] = []

    def get_weather(city: str) -> str:
        seen.append(city)
        return "5 C, rain"

    async with raw_server(replies_in_turn(first, last)) as url, AsyncClient(url) as client:
        given: dict[str, Any] = {"max_repeats": None, "stream": streamed}
        found = await client.run_tools("tooly", [USER], [get_weather], **given)
        if streamed:
            async with found as stream:
                async for _ in stream:
                    pass
            found = stream.result()
    assert seen == ["Oslo"] * 3
    made = [record.call.id for record in found.calls]
    assert len(set(made)) == 3
    assert [message.tool_call_id for message in found.messages[2:5]] == made
    assert [record.call.function.index for record in found.calls] == [0, 1, 2]
    assert found.text.startswith("5 C, rain")


def replies_in_turn(*replies: bytes) -> Any:
    waiting = list(replies)

    async def handle(stream: Any) -> None:
        await replying(waiting.pop(0))(stream)

    return handle


# -- when it stops ---------------------------------------------------------------------------------


async def test_max_rounds(fake: FakeOllama) -> None:
    """The model is asked so often; its last calls have their results."""
    wanted = [calls(("get_time", {"city": str(number)})) for number in range(5)]
    found = await run(fake, [get_time], *wanted, max_rounds=3)
    assert (found.stopped, found.rounds, len(fake.requests)) == ("max_rounds", 3, 3)
    assert [message.role for message in found.messages[1:]] == ["assistant", "tool"] * 3
    assert found.response.message.tool_calls


async def test_max_repeats(fake: FakeOllama) -> None:
    """The third identical call is not run, and its round is the last one; others run in it."""
    same = ("get_time", {"city": "Oslo", "x": 1})
    seen: list[str] = []

    def get_time(city: str, x: int = 0) -> str:
        seen.append(city)
        return city

    turned = ("get_time", {"x": 1, "city": "Oslo"})
    wanted = [calls(same), calls(turned), calls(same, ("get_time", {"city": "Rome"}))]
    found = await run(fake, [get_time], *wanted, answer())
    assert (found.stopped, found.rounds) == ("repeated", 3)
    assert sorted(seen) == ["Oslo", "Oslo", "Rome"]
    assert [record.outcome for record in found.calls] == ["returned"] * 2 + ["repeated", "returned"]
    assert "3 times" in found.messages[-2].content
    found = await run(fake, [get_time], *[calls(same)] * 4, answer(), max_repeats=None)
    assert found.stopped == "answered"


# -- exceptions ------------------------------------------------------------------------------------


async def test_an_exception_is_raised_as_it_is(fake: FakeOllama) -> None:
    """The siblings are cancelled, and no group wraps it, even if it is a group itself."""
    ended: list[BaseException] = []

    async def waits() -> None:
        try:
            await anyio.sleep_forever()
        except BaseException as error:
            ended.append(error)
            raise

    for mine in (LookupError("mine"), ExceptionGroup("mine", [ValueError("inner")])):

        async def fails(mine: Exception = mine, *, wait: bool = True) -> None:
            while len(ended) < 0:
                await anyio.sleep(0)
            raise mine

        ended.clear()
        tools = [waits, Tool.of(functools.partial(fails, mine=mine), name="fails")]
        with pytest.raises(type(mine)) as caught:
            await run(fake, tools, calls(("waits", {}), ("fails", {}), ("waits", {"a": 1})))
        assert caught.value is mine


async def test_an_exception_is_told(fake: FakeOllama) -> None:
    """With `tell` the model hears of it, and the others go on."""

    def fails() -> None:
        raise LookupError("no such city")

    wanted = calls(("fails", {}), ("get_time", {"city": "Oslo"}))
    found = await run(fake, [fails, get_time], wanted, answer(), on_tool_error="tell")
    assert [message["content"] for message in sent(fake)[-2:]] == [
        "Error: LookupError: no such city",
        "noon in Oslo",
    ]
    assert found.calls[0].outcome == "failed"
    assert isinstance(found.calls[0].error, LookupError)


@pytest.mark.parametrize("how", ["raise", "tell"])
async def test_a_tool_error_is_told_always(fake: FakeOllama, how: Any) -> None:
    """Its text is the result."""

    async def fails() -> None:
        raise ToolError("try Bergen")

    await run(fake, [fails], calls(("fails", {})), answer(), on_tool_error=how)
    assert sent(fake)[-1]["content"] == "try Bergen"


@dataclass
class Picky:
    error: str

    def __post_init__(self) -> None:
        raise {"told": ToolError, "other": LookupError}[self.error]("not this one")


async def test_exceptions_of_an_arguments_own_checks(fake: FakeOllama) -> None:
    """They are as those of the tool, which has not been called."""

    def tool(picky: Picky) -> None:
        raise AssertionError

    for error, how, text in (
        ("told", "raise", "not this one"),
        ("told", "tell", "not this one"),
        ("other", "tell", "Error: LookupError: not this one"),
    ):
        wanted = calls(("tool", {"picky": {"error": error}}))
        found = await run(fake, [tool], wanted, answer(), on_tool_error=how)
        assert sent(fake)[-1]["content"] == text
        assert found.calls[0].outcome == "failed"
    wanted = calls(("tool", {"picky": {"error": "other"}}))
    with pytest.raises(LookupError, match="not this one"):
        await run(fake, [tool], wanted)


@pytest.mark.parametrize("how", ["raise", "tell"])
async def test_exceptions_of_a_tools_own_task_group(fake: FakeOllama, how: Any) -> None:
    """The model hears what happened in it, and not that there was a group."""
    errors: list[Exception] = [ToolError("try Bergen"), ToolError("or Trondheim")]

    async def fails() -> None:
        async with anyio.create_task_group() as tasks:
            for error in errors:
                tasks.start_soon(raises, error)

    async def raises(error: Exception) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
        raise error

    await run(fake, [fails], calls(("fails", {})), answer(), on_tool_error=how)
    told = sorted(sent(fake)[-1]["content"].splitlines())
    assert told == ["or Trondheim", "try Bergen"]
    errors[0] = LookupError("no such city")
    if how == "raise":
        with pytest.raises(ExceptionGroup) as caught:
            await run(fake, [fails], calls(("fails", {})), on_tool_error=how)
        assert len(caught.value.exceptions) == 2
    else:
        await run(fake, [fails], calls(("fails", {})), answer(), on_tool_error=how)
        told = sorted(sent(fake)[-1]["content"].splitlines())
        assert told == ["Error: LookupError: no such city", "or Trondheim"]


async def test_an_error_of_the_server_ends_it(fake: FakeOllama) -> None:
    """In the second round as in the first."""
    for replies in ([Reply.error(400, "boom")], [calls(("f", {})), Reply.error(500, "boom")]):
        with pytest.raises(ResponseError, match="boom"):
            await run(fake, [Tool.of(lambda: "x", name="f")], *replies)
    with pytest.raises(IncompleteStreamError):
        await run(fake, [], Reply.json({"message": {"content": "x", "role": "a"}, "done": False}))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_of_asyncio_that_a_tool_waits_for_is_cancelled(fake: FakeOllama) -> None:
    """That is an error of the tool, and no cancellation of the run."""
    import asyncio  # noqa: PLC0415

    async def fails() -> None:
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task

    with pytest.raises(AbortError, match="the tool 'fails' was cancelled"):
        await run(fake, [fails], calls(("fails", {})))
    found = await run(fake, [fails], calls(("fails", {})), answer(), on_tool_error="tell")
    assert "cancelled" in found.messages[-2].content


async def test_an_exception_without_a_text(fake: FakeOllama) -> None:
    """The model is told of its class."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    async def fails() -> None:
        raise Mute

    await run(fake, [fails], calls(("fails", {})), answer(), on_tool_error="tell")
    assert sent(fake)[-1]["content"] == "Error: Mute"


class Ends(BaseException):
    """What ends a program."""


@pytest.mark.parametrize("threaded", [False, True])
async def test_what_ends_the_program_leaves_as_itself(fake: FakeOllama, threaded: bool) -> None:
    """It ends the client, as it does from any of its tasks, and no group wraps it."""

    async def fails() -> None:
        raise Ends

    def fails_in_a_thread() -> None:
        raise Ends

    tool = Tool.of(fails_in_a_thread if threaded else fails, name="f")
    fake.script("/api/chat", calls(("f", {})))
    with pytest.raises(Ends):
        async with AsyncClient(fake.url) as client:
            with pytest.raises(AbortError):
                await client.run_tools("qwen3", [USER], [tool])
            await anyio.sleep_forever()


async def test_functions_that_give_coroutines(fake: FakeOllama) -> None:
    """What they give is awaited, whatever they look like."""

    def later(city: str) -> Any:
        return get_time(city)

    found = await run(
        fake, [later, Tool.of(functools.partial(get_time), name="p")],
        calls(("later", {"city": "a"}), ("p", {"city": "b"})), answer(),
    )  # fmt: skip
    assert [record.result for record in found.calls] == ["noon in a", "noon in b"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_thinking_goes_back(streamed: bool, anyio_backend: Any) -> None:
    """As a real server gave it."""
    reply = recording("0.33/think-stream" if streamed else "0.33/think-single")
    async with raw_server(replying(reply)) as url, AsyncClient(url) as client:
        given: dict[str, Any] = {"stream": streamed}
        found = await client.run_tools("thinky", [USER], [get_weather], **given)
        if streamed:
            async with found as stream:
                texts = [text async for text in stream.iter_text()]
            found = stream.result()
            assert "".join(texts) == found.text
    assert found.messages[1].thinking == "It is blue. mendatanguser\nthe sky scatters light"
    assert found.text.startswith("It is blue.")


# -- side by side ----------------------------------------------------------------------------------


async def test_calls_of_a_round_run_side_by_side(fake: FakeOllama) -> None:
    """At most `max_parallel` of them, which begin in the model's order; results are in order too."""
    running = peak = 0
    began: list[int] = []

    async def work(n: int) -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        began.append(n)
        for _ in range(10 - n):
            await anyio.lowlevel.checkpoint()
        running -= 1
        return n

    wanted = calls(*[("work", {"n": n}) for n in range(8)])
    found = await run(fake, [work], wanted, answer(), max_parallel=3)
    assert peak == 3
    assert sorted(began) == list(range(8))
    assert set(began[:3]) == {0, 1, 2}
    assert [record.result for record in found.calls] == list(range(8))
    assert [message.content for message in found.messages[2:-1]] == [str(n) for n in range(8)]


async def test_a_tool_can_use_the_client(fake: FakeOllama) -> None:
    """Though only one request may be in flight; synchronous ones through their thread."""
    async with AsyncClient(fake.url, max_in_flight=1) as client:

        async def ask(question: str) -> str:
            return (await client.chat("llama3.2", [Message("user", question)])).text

        def ask_from_thread(question: str) -> str:
            return anyio.from_thread.run(ask, question)

        async def nested(question: str) -> str:
            run = await client.run_tools("qwen3", [Message("user", question)], [])
            return run.text

        names = ("ask", "ask_from_thread", "nested")
        for stream in (False, True):
            fake.script("/api/chat", calls(*[(name, {"question": "?"}) for name in names]))
            with anyio.fail_after(10):
                found = await client.run_tools(
                    "qwen3", [USER], [ask, ask_from_thread, nested], stream=stream
                )
                if stream:
                    async with found as events:
                        async for _ in events:
                            pass
                    found = events.result()
            assert len(found.calls) == 3
            assert all(record.result for record in found.calls)


async def test_context_variables_reach_tools(fake: FakeOllama) -> None:
    """Those of the caller, in the loop and in threads, and in `approve`."""
    user = contextvars.ContextVar("user", default="nobody")
    seen: list[str] = []

    async def one() -> str:
        return user.get()

    def two() -> str:
        return user.get()

    def approve(_: Any) -> bool:
        seen.append(user.get())
        return True

    user.set("ann")
    found = await run(fake, [one, two], calls(("one", {}), ("two", {})), answer(), approve=approve)
    assert [record.result for record in found.calls] == ["ann", "ann"]
    assert seen == ["ann", "ann"]
