"""What a request asks for, as attributes of the GenAI conventions. Reads bodies, knows no spans."""

from __future__ import annotations

import ast
import re
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import msgspec

from ollama_sc._http.messages import Request

_OPERATIONS = {
    "/api/chat": "chat",
    "/api/generate": "text_completion",
    "/api/embed": "embeddings",
    "/api/embeddings": "embeddings",
    "/v1/embeddings": "embeddings",
}
_PORTS = {"http": 80, "https": 443}
# The options that have a name in the conventions, and what their values are.
_OPTIONS: dict[str, tuple[str, type]] = {
    "temperature": ("gen_ai.request.temperature", float),
    "top_p": ("gen_ai.request.top_p", float),
    "top_k": ("gen_ai.request.top_k", float),
    "frequency_penalty": ("gen_ai.request.frequency_penalty", float),
    "presence_penalty": ("gen_ai.request.presence_penalty", float),
    "num_predict": ("gen_ai.request.max_tokens", int),
    "seed": ("gen_ai.request.seed", int),
}


class _Body(msgspec.Struct):
    """What of a body becomes attributes; texts and images are passed over."""

    model: Any = ""
    options: Any = None
    format: Any = None
    dimensions: Any = None
    encoding_format: Any = None


_decode = msgspec.json.Decoder(_Body).decode


class Asked(NamedTuple):
    """What a request asks for.

    Attributes:
        operation: the conventions' name for it.
        model: its name.
        common: the attributes that metrics have, too.
        attributes: those of its span.
    """

    operation: str
    model: str
    common: dict[str, Any]
    attributes: dict[str, Any]


def asked(request: Request, url: str, *, streams: bool) -> Asked | None:
    """What a request asks for; ``None`` where it runs no model."""
    operation = _OPERATIONS.get(request.path)
    if operation is None or request.method != "POST":
        return None
    body = _body(request)
    model = body.model if isinstance(body.model, str) and body.model else _model_in(request.label)
    common = common_attributes(operation, model) | _server(url)
    attributes = common | {"gen_ai.request.stream": streams}
    attributes |= _settings(body)
    return Asked(operation, model, common, attributes)


def common_attributes(operation: str, model: str) -> dict[str, Any]:
    """The attributes of everything about a model."""
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": model,
    }


def body_of(request: Request) -> bytes:
    """A body as far as it is there before files are read."""
    body = request.body
    if isinstance(body, bytes):
        return body
    without_files = getattr(body, "without_files", None)
    return b"{}" if without_files is None else without_files()


def _body(request: Request) -> _Body:
    try:
        return _decode(body_of(request))
    except msgspec.MsgspecError:
        return _Body()


def _model_in(label: str) -> str:
    found = re.search(r", model ('.*'|\".*\")", label)
    try:
        return str(ast.literal_eval(found[1])) if found else ""
    except (SyntaxError, ValueError):
        return ""


def _server(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if not parts.hostname:
        return {}
    return {
        "server.address": parts.hostname,
        "server.port": parts.port or _PORTS.get(parts.scheme, 80),
    }


def _settings(body: _Body) -> dict[str, Any]:
    found: dict[str, Any] = {}
    options = cast("dict[str, Any]", body.options if isinstance(body.options, dict) else {})
    for name, (attribute, kind) in _OPTIONS.items():
        value = options.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[attribute] = kind(value)
    stop = options.get("stop")
    if stop and isinstance(stop, str | list):
        stops = [stop] if isinstance(stop, str) else cast("list[Any]", stop)
        found["gen_ai.request.stop_sequences"] = [str(each) for each in stops]
    if body.format:
        found["gen_ai.output.type"] = "json"
    if type(body.dimensions) is int:
        found["gen_ai.embeddings.dimension.count"] = body.dimensions
    if isinstance(body.encoding_format, str):
        found["gen_ai.request.encoding_formats"] = [body.encoding_format]
    return found
