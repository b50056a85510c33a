"""What the model says to a checked request: its tokens, cut as the options say."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from ollama_sc.testing import _model, _version
from ollama_sc.testing._replies import Generated
from ollama_sc.testing._state import Limits
from ollama_sc.testing._version import Version


@dataclass(frozen=True, slots=True)
class Wanted:
    """A checked request of either endpoint."""

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
class Said:
    """What the model says."""

    thinking: Sequence[str]
    content: Iterable[str]
    calls: Sequence[Mapping[str, Any]]
    calls_at_end: bool
    done_reason: str


def say(request: Wanted, limits: Limits, script: Generated) -> Said:
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
    said = Said(
        thinking=thinking,
        content=islice(content, length),
        calls=_calls(script.tool_calls, request.version),
        calls_at_end=script.calls_at_end,
        done_reason="stop",
    )
    endless = script == Generated() and request.format is None
    said = _cut_at_length(said, request, length, endless=endless)
    said = _cut_at_stop(said, request.options.get("stop") or ())
    return replace(said, done_reason=script.done_reason) if script.done_reason else said


def _cut_at_length(said: Said, request: Wanted, length: int, *, endless: bool) -> Said:
    limit: int = request.options.get("num_predict", -1)
    total = len(said.thinking) + length
    if limit <= 0 or (total <= limit and not endless):
        return said
    thinking = said.thinking[:limit]
    content = islice(said.content, limit - len(thinking))
    return replace(said, thinking=thinking, content=content, done_reason="length")


def _cut_at_stop(said: Said, stops: Iterable[str]) -> Said:
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
