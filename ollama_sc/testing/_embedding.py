"""`POST /api/embed`."""

import time
from typing import Any, cast

import anyio.lowlevel

from ollama_sc.testing import _fields, _model
from ollama_sc.testing._fields import ApiError, Fields
from ollama_sc.testing._replies import Message, json_message
from ollama_sc.testing._store import ModelStore, parse_name

_CONTEXT = 2048  # tokens, where the request has no num_ctx
_AT_ONCE = 16  # texts between two checkpoints
_LOAD_NS = 626_705


async def embed(body: bytes, store: ModelStore, dimensions: int) -> Message:
    """Answer a request for embeddings."""
    start = time.perf_counter_ns()
    fields = Fields.of_body(body, "EmbedRequest")
    spelling = fields.string("model")
    truncate = fields.boolean("truncate") is not False
    wanted = fields.integer("dimensions")
    _fields.keep_alive(fields)
    texts = _texts(fields.value("input"))
    _find(spelling, store)
    context = _fields.options(fields).get("num_ctx") or _CONTEXT
    if not texts:
        return json_message({"model": spelling, "embeddings": []})
    if not truncate and any(_model.words(text) > context for text in texts):
        raise ApiError(400, "the input length exceeds the context length")
    keep = wanted if 0 < wanted < dimensions else dimensions
    vectors: list[list[float]] = []
    tokens = 0
    for index, text in enumerate(texts):
        if index % _AT_ONCE == _AT_ONCE - 1:
            await anyio.lowlevel.checkpoint()
        words = text.split()
        tokens += min(len(words), context)
        shown = " ".join(words[:context]) if len(words) > context else text
        vectors.append(_model.embedding(shown, dimensions, keep))
    reply: dict[str, Any] = {
        "model": spelling,
        "embeddings": vectors,
        "total_duration": time.perf_counter_ns() - start + _LOAD_NS,
        "load_duration": _LOAD_NS,
    }
    if tokens:
        reply["prompt_eval_count"] = tokens
    return json_message(reply)


def _texts(value: object) -> list[str]:
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    items = cast("list[object]", value) if isinstance(value, list) else [None]
    if not all(isinstance(item, str) for item in items):
        raise ApiError(400, "invalid input type")
    return cast("list[str]", items)


def _find(spelling: str, store: ModelStore) -> None:
    if not spelling:
        raise ApiError(404, "model '' not found")
    name = parse_name(spelling)
    if name is None:
        raise ApiError(400, "invalid model name")
    if store.find(name) is None:
        raise ApiError(404, f'model "{spelling}" not found, try pulling it first')
