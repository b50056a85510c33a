"""`POST /api/chat` and `POST /api/generate`."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from ollama_sc.testing import _fields, _gojson, _model
from ollama_sc.testing._fields import ApiError, Fields
from ollama_sc.testing._replies import JSON, NDJSON, Generated, Message, json_message
from ollama_sc.testing._store import ModelStore, StoredModel, parse_name

_CONTEXT = 4096  # tokens, where the request has no num_ctx
_TOP_LOGPROBS = 20
_LOAD_NS = 41_234_567
_PROMPT_NS = 80_123  # for each token of the prompt
_TOKEN_NS = 70_321  # for each token of the answer, at least
_TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the "
    "prompt, adjust the context length in settings, or use a model with a longer context length"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How the server generates: tokens of a default answer, and tokens a second."""

    tokens: int
    token_rate: float | None


@dataclass(frozen=True, slots=True)
class _Request:
    """A checked request of either endpoint."""

    chat: bool
    model: str
    stream: bool
    options: Mapping[str, Any]
    prompt: str
    thinks: bool
    format: object
    logprobs: bool
    top_logprobs: int
    raw: bool
    tools: bool


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the model says."""

    thinking: Sequence[str]
    content: Iterable[str]
    calls: Sequence[Mapping[str, Any]]
    calls_at_end: bool
    done_reason: str


def answer(
    body: bytes, *, chat: bool, store: ModelStore, limits: Limits, script: Generated
) -> Message:
    """Answer a chat or a generate request; the script says what the model shall say."""
    fields = Fields.of_body(body, "ChatRequest" if chat else "GenerateRequest")
    stream = fields.boolean("stream") is not False
    try:
        checked = _check(fields, store, chat=chat, stream=stream)
        if isinstance(checked, Message):
            return checked
        said = _say(checked, limits, script)
        if stream:
            lines = _lines(checked, said)
            return Message(200, NDJSON, lines, stream=True, rate=limits.token_rate)
        return _single(checked, said, limits)
    except ApiError as exc:
        if exc.in_stream and stream:
            data = _gojson.encode({"error": exc.text})
            return Message(exc.status, "application/json", (data,), chunked=True)
        raise


# ---------------------------------------------------------------------------------------------
# Checking


def _check(fields: Fields, store: ModelStore, *, chat: bool, stream: bool) -> "_Request | Message":
    """Refuse what the server refuses, in its order; a Message where there is nothing to say."""
    spelling = fields.string("model")
    messages = fields.objects("messages", "Message") if chat else []
    prompt = _prompt_of(messages) if chat else fields.string("prompt")
    images = fields.images() if not chat else 0
    tools = fields.objects("tools", "Tool") if chat else []
    think = _fields.think(fields)
    keep_alive = _fields.keep_alive(fields)
    fields.mapping("options")
    raw = not chat and bool(fields.boolean("raw"))
    top_logprobs = fields.integer("top_logprobs")
    if not 0 <= top_logprobs <= _TOP_LOGPROBS:
        raise ApiError(400, "top_logprobs must be between 0 and 20")
    model = _find(spelling, store, chat=chat)
    empty = not messages if chat else not prompt and not images
    if empty and keep_alive == 0:
        return _done_at_once(spelling, "unload", chat=chat)
    if raw and any(fields.value(name) for name in ("system", "template", "context")):
        raise ApiError(400, "raw mode does not support template, system, or context")
    _check_template(fields.string("template") if not chat else "")
    thinks = _check_capabilities(
        model, spelling, chat=chat, tools=bool(tools), think=think,
        suffix=not chat and bool(fields.string("suffix")),
    )  # fmt: skip
    options = _fields.options(fields)
    if empty:
        return _done_at_once(spelling, "load", chat=chat)
    _check_length(fields, _model.words(prompt), options.get("num_ctx") or _CONTEXT)
    return _Request(
        chat=chat,
        model=spelling,
        stream=stream,
        options=options,
        prompt=prompt,
        thinks=thinks,
        format=_fields.response_format(fields),
        logprobs=bool(fields.boolean("logprobs")),
        top_logprobs=top_logprobs,
        raw=raw,
        tools=bool(tools),
    )


def _prompt_of(messages: Sequence[Fields]) -> str:
    texts: list[str] = []
    for message in messages:
        message.string("role")
        texts.append(message.string("content"))
        message.images()
        for call in message.objects("tool_calls", "ToolCall"):
            Fields(call.mapping("function"), "ToolCallFunction").mapping("arguments")
    return "\n".join(texts)


def _find(spelling: str, store: ModelStore, *, chat: bool) -> StoredModel:
    if not spelling:
        raise ApiError(400, "model is required") if chat else ApiError(404, "model '' not found")
    name = parse_name(spelling)
    if name is None:
        raise ApiError(400, "invalid model name")
    model = store.find(name)
    if model is None:
        raise ApiError(404, f"model '{spelling}' not found")
    return model


def _check_template(template: str) -> None:
    if template.count("{{") != template.count("}}"):
        raise ApiError(500, "template: :1: unclosed action")


def _check_capabilities(
    model: StoredModel,
    spelling: str,
    *,
    chat: bool,
    tools: bool,
    think: bool | str | None,
    suffix: bool,
) -> bool:
    """Refuse what the model cannot do; returns whether it thinks."""
    if not model.can("completion"):
        verb = "chat" if chat else "generate"
        raise ApiError(400, f'"{spelling}" does not support {verb}')
    if tools and not model.can("tools"):
        raise ApiError(400, f"{model.name.full} does not support tools")
    if suffix and not model.can("insert"):
        raise ApiError(400, f"{model.name.full} does not support insert")
    if think and not model.can("thinking"):
        raise ApiError(400, f'"{spelling}" does not support thinking')
    return model.can("thinking") and think is not False


def _check_length(fields: Fields, tokens: int, context: int) -> None:
    if tokens <= context:
        return
    if fields.boolean("truncate") is False:
        inner = {
            "error": {
                "code": 400,
                "message": f"the request has {tokens} tokens, the context {context}",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": tokens,
                "n_ctx": context,
            }
        }
        raise ApiError(400, json.dumps(inner, separators=(",", ":")), in_stream=True)
    if fields.boolean("shift") is False:
        raise ApiError(400, _TOO_LONG, in_stream=True)


def _done_at_once(model: str, reason: str, *, chat: bool) -> Message:
    return json_message(_object(chat, model, "") | {"done": True, "done_reason": reason})


# ---------------------------------------------------------------------------------------------
# Saying


def _say(request: _Request, limits: Limits, script: Generated) -> _Answer:
    """Choose the tokens, and cut them as the options say."""
    thinking: Sequence[str] = script.thinking or ()
    if script.thinking is None and request.thinks:
        thinking = _model.thinking_tokens()
    content: Iterable[str]
    if script.tokens is not None:
        content, length = script.tokens, len(script.tokens)
    elif script.tool_calls:
        content, length = (), 0
    elif request.format is not None:
        found = _model.divide(_model.json_text(request.format))
        content, length = found, len(found)
    else:
        content, length = _model.text_tokens(request.prompt), limits.tokens
        if request.options.get("num_predict", -1) > 0:
            length = request.options["num_predict"]  # it has that much to say, and more
            length -= min(len(thinking), length)
    said = _Answer(
        thinking=thinking,
        content=islice(content, length),
        calls=_calls(script.tool_calls),
        calls_at_end=script.calls_at_end,
        done_reason="stop",
    )
    endless = script == Generated() and request.format is None
    said = _cut_at_length(said, request, length, endless=endless)
    said = _cut_at_stop(said, request.options.get("stop") or ())
    return replace(said, done_reason=script.done_reason) if script.done_reason else said


def _cut_at_length(said: _Answer, request: _Request, length: int, *, endless: bool) -> _Answer:
    limit: int = request.options.get("num_predict", -1)
    total = len(said.thinking) + length
    if limit <= 0 or (total <= limit and not endless):
        return said
    thinking = said.thinking[:limit]
    content = islice(said.content, limit - len(thinking))
    return replace(said, thinking=thinking, content=content, done_reason="length")


def _cut_at_stop(said: _Answer, stops: Iterable[str]) -> _Answer:
    wanted = [stop for stop in stops if stop]
    if not wanted:
        return said
    text = ""
    kept: list[str] = []
    for token in said.content:
        text += token
        kept.append(token)
        found = [at for stop in wanted if (at := text.find(stop)) >= 0]
        if found:
            return replace(said, content=_shorten(kept, min(found)), done_reason="stop")
    return replace(said, content=kept)


def _shorten(tokens: Sequence[str], length: int) -> list[str]:
    """The tokens up to so many characters."""
    kept: list[str] = []
    for token in tokens:
        kept.append(token[:length])
        length -= len(kept[-1])
    return [token for token in kept if token]


def _calls(calls: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for index, call in enumerate(calls):
        if "function" in call:
            found.append(call)
            continue
        function = {
            "index": index,
            "name": call["name"],
            "arguments": call.get("arguments", {}),
        }
        found.append({"id": call.get("id", f"call_fake{index:04d}"), "function": function})
    return found


# ---------------------------------------------------------------------------------------------
# Wording: the objects on the wire


def _object(
    chat: bool,  # noqa: FBT001
    model: str,
    content: str,
    thinking: str = "",
    calls: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The fields up to and without `done`. A generate reply has its calls at the end instead."""
    head: dict[str, Any] = {"model": model, "created_at": _gojson.timestamp()}
    text: dict[str, Any] = {"role": "assistant", "content": content} if chat else {}
    if not chat:
        text["response"] = content
    if thinking:
        text["thinking"] = thinking
    if chat and calls:
        text["tool_calls"] = list(calls)
    return head | ({"message": text} if chat else text)


def _lines(request: _Request, said: _Answer) -> Iterator[bytes]:
    """The lines of a stream, each made when its turn comes."""
    clock = _Clock(request)
    chat = request.chat
    for thinking, token in chain(
        ((True, token) for token in said.thinking), ((False, token) for token in said.content)
    ):
        clock.count += 1
        text = ("", token) if thinking else (token, "")
        part = _object(chat, request.model, *text)
        part["done"] = False
        if request.logprobs:
            part["logprobs"] = [_logprob(token, request.top_logprobs)]
        yield _gojson.encode(part) + b"\n"
    calls = said.calls
    if calls and not said.calls_at_end:
        part = _object(chat, request.model, "", calls=calls) | {"done": False}
        if not chat:
            part["tool_calls"] = list(calls)
        yield _gojson.encode(part) + b"\n"
        calls = ()
    last = _object(chat, request.model, "", calls=calls)
    yield _gojson.encode(last | _end(request, said, clock, calls)) + b"\n"


def _single(request: _Request, said: _Answer, limits: Limits) -> Message:
    """The object of a request that wants no stream; it takes as long as the stream would."""
    clock = _Clock(request)
    content = list(said.content)
    tokens = [*said.thinking, *content]
    clock.count = len(tokens)
    # Chat drops calls from before the end unless the request brought tools.
    kept = request.tools or said.calls_at_end or not request.chat
    calls = said.calls if kept else ()
    logprobs = (
        [_logprob(token, request.top_logprobs) for token in tokens] if request.logprobs else []
    )
    whole = _object(
        request.chat, request.model, "".join(content), "".join(said.thinking), calls
    ) | _end(request, said, clock, calls, logprobs)
    delay = len(tokens) / limits.token_rate if limits.token_rate else 0.0
    return Message(200, JSON, (_gojson.encode(whole),), delay=delay)


class _Clock:
    """Counts and times of one answer."""

    def __init__(self, request: _Request) -> None:
        self.start = time.perf_counter_ns()
        self.prompt = max(1, _model.words(request.prompt))
        self.count = 0

    def metrics(self) -> dict[str, int]:
        prompt = self.prompt * _PROMPT_NS
        evaluation = max(time.perf_counter_ns() - self.start, self.count * _TOKEN_NS)
        found = {
            "total_duration": _LOAD_NS + prompt + evaluation,
            "load_duration": _LOAD_NS,
            "prompt_eval_count": self.prompt,
            "prompt_eval_duration": prompt,
            "eval_count": self.count,
            "eval_duration": evaluation if self.count else 0,
        }
        return {name: value for name, value in found.items() if value}


def _end(
    request: _Request,
    said: _Answer,
    clock: _Clock,
    calls: Sequence[Mapping[str, Any]],
    logprobs: Sequence[object] = (),
) -> dict[str, Any]:
    """The final object from `done` on."""
    end: dict[str, Any] = {"done": True, "done_reason": said.done_reason}
    found = {"logprobs": list(logprobs)} if logprobs else {}
    if request.chat:
        return end | found | clock.metrics()
    if not request.raw:
        end["context"] = list(range(2, 2 + clock.prompt + clock.count))
    end |= clock.metrics()
    if calls:
        end["tool_calls"] = list(calls)
    return end | found


def _logprob(token: str, top: int) -> dict[str, object]:
    entry = _model.logprob(token)
    if top:
        entry["top_logprobs"] = [_model.logprob(token, rank) for rank in range(top)]
    return entry
