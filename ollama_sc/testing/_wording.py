"""The objects on the wire for what the model says."""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from ollama_sc.testing import _gojson, _model, _version
from ollama_sc.testing._replies import JSON, Message
from ollama_sc.testing._saying import Said, Wanted
from ollama_sc.testing._state import Limits

_LOAD_NS = 41_234_567
_PROMPT_NS = 80_123  # for each token of the prompt
_TOKEN_NS = 70_321  # for each token of the answer, at least


def piece(
    head: Mapping[str, Any],
    content: str,
    thinking: str = "",
    calls: Sequence[Mapping[str, Any]] = (),
    *,
    chat: bool,
) -> dict[str, Any]:
    """The fields up to and without `done`. A generate reply has its calls at the end instead."""
    found: dict[str, Any] = {**head, "created_at": _gojson.timestamp()}
    text: dict[str, Any] = {"role": "assistant", "content": content} if chat else {}
    if not chat:
        text["response"] = content
    if thinking:
        text["thinking"] = thinking
    if chat and calls:
        text["tool_calls"] = list(calls)
    return found | ({"message": text} if chat else text)


def rendered(head: Mapping[str, Any], prompt: str, images: int, *, chat: bool) -> dict[str, Any]:
    """The answer to `_debug_render_only`."""
    found: dict[str, Any] = {**head, "created_at": _gojson.timestamp()}
    found |= {"message": {"role": "", "content": ""}} if chat else {"response": ""}
    debug: dict[str, Any] = {"rendered_template": prompt}
    if images:
        debug["image_count"] = images
    return found | {"done": False, "_debug_info": debug}


def lines(request: Wanted, said: Said) -> Iterator[bytes]:
    """The lines of a stream, each made when its turn comes."""
    clock = _Clock(request)
    chat = request.chat
    for thinking, token in chain(
        ((True, token) for token in said.thinking), ((False, token) for token in said.content)
    ):
        clock.count += 1
        text = ("", token) if thinking else (token, "")
        part = piece(request.head, *text, chat=chat)
        part["done"] = False
        if request.logprobs:
            part["logprobs"] = [_logprob(token, request)]
        yield _gojson.encode(part) + b"\n"
    calls = said.calls
    if calls and not said.calls_at_end:
        part = piece(request.head, "", calls=calls, chat=chat) | {"done": False}
        if not chat:
            part["tool_calls"] = list(calls)
        yield _gojson.encode(part) + b"\n"
        calls = ()
    last = piece(request.head, "", calls=calls, chat=chat)
    yield _gojson.encode(last | _end(request, said, clock, calls)) + b"\n"


def single(request: Wanted, said: Said, limits: Limits) -> Message:
    """The object of a request that wants no stream; it takes as long as the stream would."""
    clock = _Clock(request)
    content = list(said.content)
    tokens = [*said.thinking, *content]
    clock.count = len(tokens)
    # Chat drops calls from before the end unless the request brought tools.
    kept = request.tools or said.calls_at_end or not request.chat
    calls = said.calls if kept else ()
    logprobs = [_logprob(token, request) for token in tokens] if request.logprobs else []
    text = ("".join(content), "".join(said.thinking))
    whole = piece(request.head, *text, calls, chat=request.chat)
    whole |= _end(request, said, clock, calls, logprobs)
    delay = len(tokens) / limits.token_rate if limits.token_rate else 0.0
    return Message(200, JSON, (_gojson.encode(whole),), delay=delay)


class _Clock:
    """Counts and times of one answer."""

    def __init__(self, request: Wanted) -> None:
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
    request: Wanted,
    said: Said,
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


def _logprob(token: str, request: Wanted) -> dict[str, object]:
    entry = _model.logprob(token)
    if request.top_logprobs:
        entry["top_logprobs"] = [
            _model.logprob(token, rank) for rank in range(request.top_logprobs)
        ]
    if not request.version.has(_version.LOGPROB_BYTES):
        entry.pop("bytes")
    return entry
