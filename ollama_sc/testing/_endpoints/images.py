"""Image generation, a part of `POST /api/generate` from 0.14.3 to 0.32.5."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from ollama_sc.testing import _version
from ollama_sc.testing._go import gojson
from ollama_sc.testing._go.fields import ApiError, Fields
from ollama_sc.testing._replies import JSON, NDJSON, Message
from ollama_sc.testing._state.state import State

_STEPS = 4
_LARGEST = 4096
_IMAGE = base64.b64encode(b"\x89PNG\r\n\x1a\nsynthetic").decode()


def respond_with_image(head: Mapping[str, Any], fields: Fields, state: State) -> Message:
    """Respond to a request to a model that generates images."""
    if not state.version.has(_version.IMAGES) or state.version.has(_version.NO_IMAGES):
        raise ApiError(400, "image generation models are not currently supported")
    for name in ("width", "height"):
        if fields.integer(name) > _LARGEST:
            raise ApiError(400, f"{name} must be at most {_LARGEST}")
    if fields.boolean("stream") is not False:
        lines = _lines(head, fields.integer("steps") or _STEPS)
        return Message(200, NDJSON, lines, stream=True, rate=state.limits.token_rate)
    return Message(200, JSON, (_last(head),))


def _lines(head: Mapping[str, Any], steps: int) -> Iterator[bytes]:
    for step in range(1, steps + 1):
        part = {**head, "created_at": gojson.timestamp(), "response": "", "done": False}
        yield gojson.encode(part | {"completed": step, "total": steps}) + b"\n"
    yield _last(head) + b"\n"


def _last(head: Mapping[str, Any]) -> bytes:
    last = {**head, "created_at": gojson.timestamp(), "response": "", "done": True}
    return gojson.encode(last | {"done_reason": "stop", "image": _IMAGE})
