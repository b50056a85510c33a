"""Management of models and blobs: tags, ps, copy, delete, blobs."""

from typing import Any
from urllib.parse import unquote

from ollama_sc.testing import _version
from ollama_sc.testing._go import gojson
from ollama_sc.testing._go.fields import ApiError, Fields
from ollama_sc.testing._replies import Message, json_message
from ollama_sc.testing._state.blobs import Upload, is_digest
from ollama_sc.testing._state.names import parse_name
from ollama_sc.testing._state.state import State
from ollama_sc.testing._state.store import StoredModel

EMPTY = (b"",)


def tags(state: State) -> Message:
    """All models, newest first."""
    return json_message({"models": [_tag(model, state) for model in state.store.newest_first()]})


def _tag(model: StoredModel, state: State) -> dict[str, Any]:
    details = model.details()
    newer = state.version.has(_version.NEWER_ENGINE)
    if newer and not model.spec.remote_model:
        details["context_length"] = model.spec.context_length
        details["embedding_length"] = state.store.dimensions
    entry: dict[str, Any] = {"name": model.name.display, "model": model.name.display}
    if state.version.has(_version.REMOTE):
        entry |= model.remote()
    entry |= {
        "modified_at": gojson.local_timestamp(model.modified_ns),
        "size": model.spec.size,
        "digest": model.digest,
        "details": details,
    }
    if newer and model.capabilities:
        entry["capabilities"] = list(model.capabilities)
    return entry


def ps(state: State) -> Message:
    """The loaded models, the last to expire first."""
    return json_message({"models": [loaded.entry() for loaded in state.loaded.now()]})


def copy(body: bytes, state: State) -> Message:
    """Copy a model."""
    fields = Fields.of_body(body, "CopyRequest")
    texts = {key: fields.string(key) for key in ("source", "destination")}
    source, destination = (parse_name(text) for text in texts.values())
    if source is None:
        raise ApiError(400, f'source "{texts["source"]}" is invalid')
    if destination is None:
        raise ApiError(400, f'destination "{texts["destination"]}" is invalid')
    model = state.store.find(source)
    if model is None:
        raise ApiError(404, f'model "{texts["source"]}" not found')
    if source.key != destination.key:
        state.store.put(model.copied(destination))
    return Message(200, None, EMPTY)


def delete(body: bytes, state: State) -> Message:
    """Delete a model; if it is loaded, it stays so until it expires."""
    fields = Fields.of_body(body, "DeleteRequest")
    spelling = fields.string("model") or fields.string("name")
    if not spelling:
        raise ApiError(400, "model is required")
    name = parse_name(spelling)
    if name is None:
        raise ApiError(400, f'name "{spelling}" is invalid')
    model = state.store.find(name)
    if model is None:
        raise ApiError(404, f"model '{spelling}' not found")
    state.store.delete(model)
    return Message(200, None, EMPTY)


def digest_in(path: str) -> str:
    """The digest in a path under `/api/blobs/`."""
    return unquote(path.rpartition("/")[2])


def head_blob(digest: str, state: State) -> Message:
    """Whether a blob exists: 200 or 404."""
    if not is_digest(digest):
        raise ApiError(400, "invalid digest format")
    if digest not in state.store.blobs:
        raise ApiError(404, f'blob "{digest}" not found')
    return Message(200, None, EMPTY)


def begin_blob(digest: str, state: State) -> Upload | None:
    """The receiver of an upload; None if the server responds without its body."""
    if not is_digest(digest) or digest in state.store.blobs:
        return None
    return Upload()


def post_blob(digest: str, upload: Upload | None, state: State) -> Message:
    """Store a complete upload under its true digest."""
    if not is_digest(digest):
        raise ApiError(400, "invalid digest format")
    if upload is None:
        return Message(200, None, EMPTY)
    state.store.blobs.put(upload.digest, upload.blob)
    if upload.digest != digest:
        text = f'digest mismatch, expected "{digest}", got "{upload.digest}"'
        raise ApiError(400, text)
    return Message(201, None, EMPTY)
