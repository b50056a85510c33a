"""The completion of a validated request: its tokens, truncated as the options require."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from ollama_sc.testing import _version
from ollama_sc.testing._replies import Generated
from ollama_sc.testing._state.state import Limits
from ollama_sc.testing._version import Version

from . import synthetic


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A validated chat or generate request."""

    chat: bool
    head: Mapping[str, Any]
    version: Version
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
class Completion:
    """The model's output."""

    thinking: Sequence[str]
    content: Iterable[str]
    calls: Sequence[Mapping[str, Any]]
    calls_at_end: bool
    done_reason: str


def complete(request: GenerationRequest, limits: Limits, script: Generated) -> Completion:
    """Choose the tokens and truncate them as the options require."""
    thinking: Sequence[str] = script.thinking or ()
    if script.thinking is None and request.thinks:
        thinking = synthetic.thinking_tokens()
    content: Iterable[str]
    if script.tokens is not None:
        content, length = script.tokens, len(script.tokens)
    elif script.tool_calls:
        content, length = (), 0
    elif request.format is not None:
        found = synthetic.divide(synthetic.json_text(request.format))
        content, length = found, len(found)
    else:
        content, length = synthetic.text_tokens(request.prompt), limits.tokens
        if request.options.get("num_predict", -1) > 0:
            length = request.options["num_predict"]  # so many tokens are available, and more
            length -= min(len(thinking), length)
    completion = Completion(
        thinking=thinking,
        content=islice(content, length),
        calls=_calls(script.tool_calls, request.version),
        calls_at_end=script.calls_at_end,
        done_reason="stop",
    )
    endless = script == Generated() and request.format is None
    completion = _cut_at_length(completion, request, length, endless=endless)
    completion = _cut_at_stop(completion, request.options.get("stop") or ())
    if script.done_reason:
        return replace(completion, done_reason=script.done_reason)
    return completion


def _cut_at_length(
    completion: Completion, request: GenerationRequest, length: int, *, endless: bool
) -> Completion:
    limit: int = request.options.get("num_predict", -1)
    total = len(completion.thinking) + length
    if limit <= 0 or (total <= limit and not endless):
        return completion
    thinking = completion.thinking[:limit]
    content = islice(completion.content, limit - len(thinking))
    return replace(completion, thinking=thinking, content=content, done_reason="length")


def _cut_at_stop(completion: Completion, stops: Iterable[str]) -> Completion:
    stops = [stop for stop in stops if stop]
    if not stops:
        return completion
    text = ""
    kept: list[str] = []
    for token in completion.content:
        text += token
        kept.append(token)
        found = [at for stop in stops if (at := text.find(stop)) >= 0]
        if found:
            return replace(completion, content=_shorten(kept, min(found)), done_reason="stop")
    return replace(completion, content=kept)


def _shorten(tokens: Sequence[str], length: int) -> list[str]:
    """The tokens of the first `length` characters."""
    kept: list[str] = []
    for token in tokens:
        kept.append(token[:length])
        length -= len(kept[-1])
    return [token for token in kept if token]


def _calls(calls: Iterable[Mapping[str, Any]], version: Version) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for index, call in enumerate(calls):
        if "function" in call:
            found.append(call)
            continue
        function: dict[str, Any] = {"index": index} if version.has(_version.CALL_INDEX) else {}
        function |= {"name": call["name"], "arguments": call.get("arguments", {})}
        id_ = {"id": call.get("id", f"call_fake{index:04d}")}
        found.append((id_ if version.has(_version.CALL_ID) else {}) | {"function": function})
    return found
