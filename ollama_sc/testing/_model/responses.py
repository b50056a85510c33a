"""The response objects of a completion: the lines of a stream, or the single object."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from ollama_sc.testing import _version
from ollama_sc.testing._go import gojson
from ollama_sc.testing._replies import JSON, Message
from ollama_sc.testing._state.state import Limits

from . import synthetic
from .completion import Completion, GenerationRequest

_LOAD_NS = 41_234_567
_PROMPT_NS = 80_123  # per token of the prompt
_TOKEN_NS = 70_321  # per token of the completion, at least
_REPEATS = 31  # so many identical tokens in a row are sent; one more ends the reply, undone


def piece(
    head: Mapping[str, Any],
    content: str,
    thinking: str = "",
    calls: Sequence[Mapping[str, Any]] = (),
    *,
    chat: bool,
) -> dict[str, Any]:
    """The fields before `done`. A generate response has its calls at the end instead."""
    found: dict[str, Any] = {**head, "created_at": gojson.timestamp()}
    text: dict[str, Any] = {"role": "assistant", "content": content} if chat else {}
    if not chat:
        text["response"] = content
    if thinking:
        text["thinking"] = thinking
    if chat and calls:
        text["tool_calls"] = list(calls)
    return found | ({"message": text} if chat else text)


def rendered(head: Mapping[str, Any], prompt: str, images: int, *, chat: bool) -> dict[str, Any]:
    """The object for `_debug_render_only`."""
    found: dict[str, Any] = {**head, "created_at": gojson.timestamp()}
    found |= {"message": {"role": "", "content": ""}} if chat else {"response": ""}
    debug: dict[str, Any] = {"rendered_template": prompt}
    if images:
        debug["image_count"] = images
    return found | {"done": False, "_debug_info": debug}


def lines(request: GenerationRequest, completion: Completion) -> Iterator[bytes]:
    """The lines of a stream, each generated when it is due."""
    clock = _Clock(request)
    chat = request.chat
    tokens = _Tokens(completion)
    for thinking, token in tokens:
        clock.count += 1
        text = ("", token) if thinking else (token, "")
        part = piece(request.head, *text, chat=chat)
        part["done"] = False
        if request.logprobs:
            part["logprobs"] = [_logprob(token, request)]
        yield gojson.encode(part) + b"\n"
    if tokens.repeated:
        return
    calls = completion.calls
    clock.count_calls(calls)
    if not completion.calls_at_end:
        for call in calls:
            part = piece(request.head, "", calls=[call], chat=chat) | {"done": False}
            if not chat:
                part["tool_calls"] = [call]
            yield gojson.encode(part) + b"\n"
        calls = ()
    last = piece(request.head, "", calls=calls, chat=chat)
    yield gojson.encode(last | _end(request, completion, clock, calls)) + b"\n"


def single(request: GenerationRequest, completion: Completion, limits: Limits) -> Message:
    """The single object of a request without stream; delayed for as long as the stream takes."""
    clock = _Clock(request)
    found = _Tokens(completion)
    marked = list(found)
    tokens = [token for _, token in marked]
    clock.count = len(tokens)
    clock.count_calls(completion.calls)
    # Chat drops calls that precede the final object unless the request has tools.
    kept = request.tools or completion.calls_at_end or not request.chat
    calls = completion.calls if kept else ()
    logprobs = [_logprob(token, request) for token in tokens] if request.logprobs else []
    content = "".join(token for thinking, token in marked if not thinking)
    text = (content, "".join(token for thinking, token in marked if thinking))
    if found.repeated:
        whole = piece(request.head, *text, chat=request.chat) | {"done": False}
        whole |= {"logprobs": logprobs} if logprobs else {}
    else:
        whole = piece(request.head, *text, calls, chat=request.chat)
        whole |= _end(request, completion, clock, calls, logprobs)
    delay = len(tokens) / limits.token_rate if limits.token_rate else 0.0
    return Message(200, JSON, (gojson.encode(whole),), delay=delay)


class _Tokens:
    """The tokens of a completion, and whether they are thinking; one time.

    Attributes:
        repeated: Whether the guard against repetition has ended them.

    """

    def __init__(self, completion: Completion) -> None:
        self.repeated = False
        self._tokens: Iterable[tuple[bool, str]] = chain(
            ((True, token) for token in completion.thinking),
            ((False, token) for token in completion.content),
        )

    def __iter__(self) -> Iterator[tuple[bool, str]]:
        last, count = None, 0
        for thinking, token in self._tokens:
            count = count + 1 if token == last else 1
            last = token
            self.repeated = count > _REPEATS
            if self.repeated:
                return
            yield thinking, token


class _Clock:
    """Counts and durations of one completion."""

    def __init__(self, request: GenerationRequest) -> None:
        self.start = time.perf_counter_ns()
        self.prompt = max(1, synthetic.words(request.prompt))
        self.count = 0

    def count_calls(self, calls: Sequence[Mapping[str, Any]]) -> None:
        self.count += sum(synthetic.words(str(call)) for call in calls)

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
    request: GenerationRequest,
    completion: Completion,
    clock: _Clock,
    calls: Sequence[Mapping[str, Any]],
    logprobs: Sequence[object] = (),
) -> dict[str, Any]:
    """The fields of the final object from `done` on."""
    end: dict[str, Any] = {"done": True, "done_reason": completion.done_reason}
    found = {"logprobs": list(logprobs)} if logprobs else {}
    if request.chat:
        return end | found | clock.metrics()
    if not request.raw:
        end["context"] = list(range(2, 2 + clock.prompt + clock.count))
    end |= clock.metrics()
    if calls:
        end["tool_calls"] = list(calls)
    return end | found


def _logprob(token: str, request: GenerationRequest) -> dict[str, object]:
    entry = synthetic.logprob(token)
    if request.top_logprobs:
        entry["top_logprobs"] = [
            synthetic.logprob(token, rank) for rank in range(request.top_logprobs)
        ]
    if not request.version.has(_version.LOGPROB_BYTES):
        entry.pop("bytes")
    return entry
