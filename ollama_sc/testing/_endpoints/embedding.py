"""`POST /api/embed`, the older `POST /api/embeddings` and `POST /v1/embeddings`."""

import base64
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import anyio.lowlevel

from ollama_sc.testing import _version
from ollama_sc.testing._go import gojson
from ollama_sc.testing._go.fields import ApiError, Fields, read_keep_alive, read_options
from ollama_sc.testing._model import synthetic
from ollama_sc.testing._replies import Message, json_message
from ollama_sc.testing._state.state import State

from . import lookup

_CONTEXT = 2048  # tokens, if neither the request nor the model has a num_ctx
_AT_ONCE = 16  # texts between two checkpoints
_LOAD_NS = 626_705
_RAW_LENGTH = 8.0  # of the vectors of the older endpoint, which are not normalised
_MISSING = 'model "{name}" not found, try pulling it first'
_CANNOT = "This server does not support embeddings. Start it with `--embeddings`"
_TOO_LONG = "the input length exceeds the context length"


@dataclass(frozen=True, slots=True)
class _Embedded:
    """The vectors of some texts, and the number of their tokens."""

    vectors: list[list[float]]
    tokens: int


async def embed(request: object, body: bytes, state: State) -> Message:
    """Respond to `POST /api/embed`."""
    start = time.perf_counter_ns()
    fields = Fields.of_body(body, "EmbedRequest")
    truncate = fields.boolean("truncate") is not False
    requested = fields.integer("dimensions")
    keep_alive = read_keep_alive(fields)
    texts = _texts(fields.value("input"))
    options = read_options(fields)
    found = _find(fields, state, ApiError(404, "model '' not found"))
    context = _load(request, found, state, options, keep_alive)
    if not texts:
        return json_message({"model": found.shown, "embeddings": []})
    if not truncate and any(synthetic.words(text) > context for text in texts):
        raise ApiError(400, _TOO_LONG)
    embedded = await _embed(texts, state, requested, context)
    reply: dict[str, Any] = {
        "model": found.shown,
        "embeddings": embedded.vectors,
        "total_duration": time.perf_counter_ns() - start + _LOAD_NS,
        "load_duration": _LOAD_NS,
    }
    if embedded.tokens:
        reply["prompt_eval_count"] = embedded.tokens
    return json_message(reply)


async def legacy(request: object, body: bytes, state: State) -> Message:
    """Respond to `POST /api/embeddings`: one embedding, not normalised."""
    fields = Fields.of_body(body, "EmbeddingRequest")
    prompt = fields.string("prompt")
    keep_alive = read_keep_alive(fields)
    options = read_options(fields)
    found = _find(fields, state, ApiError(400, "model is required"))
    status = 500 if state.version.has(_version.NEWER_ENGINE) else 501
    context = _load(request, found, state, options, keep_alive, status)
    if not prompt:
        return json_message({"embedding": []})
    if synthetic.words(prompt) > context:
        raise ApiError(500, _TOO_LONG)
    embedded = await _embed([prompt], state, 0, context)
    numbers = [number * _RAW_LENGTH for number in embedded.vectors[0]]
    form = f"<{len(numbers)}f"
    return json_message({"embedding": list(struct.unpack(form, struct.pack(form, *numbers)))})


async def compatible(request: object, body: bytes, state: State) -> Message:
    """Respond to `POST /v1/embeddings` in OpenAI's format, errors included."""
    try:
        return await _compatible(request, body, state)
    except ApiError as exc:
        kinds = {400: "invalid_request_error", 404: "not_found_error"}
        kind = kinds.get(exc.status, "api_error")
        error = {"message": exc.text, "type": kind, "param": None, "code": None}
        return _line({"error": error}, exc.status)


async def _compatible(request: object, body: bytes, state: State) -> Message:
    fields = Fields.of_body(body, "openai.EmbedRequest")
    encoding = fields.string("encoding_format")
    if encoding.lower() not in ("", "float", "base64"):
        text = f"Invalid value for 'encoding_format' = {encoding}."
        raise ApiError(400, f"{text} Supported values: ['float', 'base64'].")
    requested = fields.integer("dimensions")
    value = fields.value("input")
    if value is None or value == []:
        raise ApiError(400, "invalid input")
    texts = [value] if isinstance(value, str) else _texts(value)
    found = _find(fields, state, ApiError(404, "model '' not found"))
    context = _load(request, found, state, {}, None)
    embedded = await _embed(texts, state, requested, context)
    as_text = encoding.lower() == "base64" and state.version.has(_version.BASE64)
    data = [
        {
            "object": "embedding",
            "embedding": _base64(vector) if as_text else vector,
            "index": index,
        }
        for index, vector in enumerate(embedded.vectors)
    ]
    usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    return _line({"object": "list", "data": data, "model": found.shown, "usage": usage}, 200)


def _line(value: object, status: int) -> Message:
    return Message(status, "application/json", (gojson.encode(value) + b"\n",))


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _texts(value: object) -> list[str]:
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    items = cast("list[object]", value) if isinstance(value, list) else [None]
    if not all(isinstance(item, str) for item in items):
        raise ApiError(400, "invalid input type")
    return cast("list[str]", items)


def _find(fields: Fields, state: State, empty: ApiError) -> lookup.Found:
    spelling = fields.string("model")
    found = lookup.find(spelling, state, missing=_MISSING, empty=empty)
    if found.via == "stub":
        raise ApiError(404, _MISSING.format(name=spelling))
    state.cloud.check(found.via, "remote model is unavailable", "/api/embed")
    return found


def _load(
    request: object,
    found: lookup.Found,
    state: State,
    options: Mapping[str, Any],
    keep_alive: float | None,
    status: int = 501,
) -> int:
    """Load the model and return its context length in tokens."""
    context = int(options.get("num_ctx") or found.model.own_context or _CONTEXT)
    context = min(context, found.model.spec.context_length)
    if found.via == "local":
        newer = state.version.has(_version.NEWER_ENGINE)
        if not (found.model.may_embed if newer else found.model.can("embedding")):
            raise ApiError(status, _CANNOT if newer else "this model does not support embeddings")
        state.loaded.use(request, found.model, keep_alive, context)
    return context


async def _embed(texts: list[str], state: State, requested: int, context: int) -> _Embedded:
    if not all(texts) and not state.version.has(_version.NEWER_ENGINE):
        raise ApiError(500, "Failed to create new sequence: no input provided")
    dimensions = state.store.dimensions
    keep = requested if 0 < requested < dimensions else dimensions
    vectors: list[list[float]] = []
    tokens = 0
    for index, text in enumerate(texts):
        if index % _AT_ONCE == _AT_ONCE - 1:
            await anyio.lowlevel.checkpoint()
        refused = state.limits.embed_error(text) if state.limits.embed_error else None
        if refused is not None:
            raise ApiError(*refused)
        words = text.split()
        tokens += min(len(words), context)
        shown = " ".join(words[:context]) if len(words) > context else text
        vectors.append(synthetic.embedding(shown, dimensions, keep))
    return _Embedded(vectors, tokens)
