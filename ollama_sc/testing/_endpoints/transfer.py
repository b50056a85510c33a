"""`POST /api/pull` and `POST /api/push`."""

import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from ollama_sc.testing._go.fields import ApiError, Fields
from ollama_sc.testing._replies import Message
from ollama_sc.testing._state.names import Name, parse_name
from ollama_sc.testing._state.registry import FakeLayer, Manifest
from ollama_sc.testing._state.state import MODELS_DIR, State
from ollama_sc.testing._state.store import Layer, StoredModel

from .progress import Steps, progress_message


async def pull(body: bytes, state: State) -> Message:
    """Respond to a pull request."""
    fields = Fields.of_body(body, "PullRequest")
    stream = fields.boolean("stream") is not False
    name = parse_name(fields.string("model") or fields.string("name"))
    if name is None:
        raise ApiError(400, "invalid model name")
    return await progress_message(pull_steps(state, name), stream=stream)


async def pull_steps(state: State, name: Name) -> Steps:
    """The statuses of a pull; the last step stores the model."""
    yield {"status": "pulling manifest"}
    manifest = state.registry.manifest(name)
    for layer in manifest.layers:
        async with aclosing(_layer_steps(state, layer, manifest.scripts)) as steps:
            async for step in steps:
                yield step
    yield {"status": "verifying sha256 digest"}
    yield {"status": "writing manifest"}
    model = _stored(manifest)
    if state.store.put(model):
        yield {"status": "removing unused layers"}
    yield {"status": "success"}


def _stored(manifest: Manifest) -> StoredModel:
    return StoredModel(manifest.spec, manifest.name, manifest.layers, time.time_ns())


async def _layer_steps(state: State, layer: Layer, scripts: Mapping[str, FakeLayer]) -> Steps:
    script = scripts.get(layer.digest)
    shown = None if script is None else script.progress
    if layer.digest in state.store.blobs:
        if shown != ():
            yield _line("pulling", layer, layer.size)
        return
    download = state.registry.download(layer, script)
    download.join()
    try:
        if shown is None:
            yield _line("pulling", layer, download.completed)
            while await download.tick(state.registry):
                yield _line("pulling", layer, download.completed)
        else:
            for completed in shown:
                yield _line("pulling", layer, completed)
                await download.tick(state.registry)
            while await download.tick(state.registry):
                pass
        state.registry.finish(download, state.store.blobs)
    finally:
        download.leave()


def _line(verb: str, layer: Layer, completed: int) -> dict[str, Any]:
    line: dict[str, Any] = {
        "status": f"{verb} {layer.digest.removeprefix('sha256:')[:12]}",
        "digest": layer.digest,
        "total": layer.size,
        "completed": completed,
    }
    return {name: value for name, value in line.items() if value}


async def push(body: bytes, state: State) -> Message:
    """Respond to a push request."""
    fields = Fields.of_body(body, "PushRequest")
    stream = fields.boolean("stream") is not False
    spelling = fields.string("model") or fields.string("name")
    if not spelling:
        raise ApiError(400, "model is required")
    name = parse_name(spelling)
    if name is None:
        raise ApiError(400, "invalid model name")
    return await progress_message(_push_steps(state, name), stream=stream)


async def _push_steps(state: State, name: Name) -> Steps:
    yield {"status": "retrieving manifest"}
    registry = state.registry
    model = state.store.find(name)
    if model is None:
        yield {"status": "couldn't retrieve manifest"}
        path = f"{MODELS_DIR}/manifests/{name.path}/{name.tag}"
        raise ApiError(500, f"open {path}: no such file or directory")
    if registry.push_error is not None:
        raise ApiError(500, registry.push_error)
    if name.namespace == "library" or not state.cloud.signed_in:
        raise ApiError(500, "unauthorized: access denied")
    for layer in model.layers:
        if layer.digest not in registry.blobs:
            upload = registry.upload(layer)
            yield _line("pushing", layer, 0)
            while await upload.tick(registry) and upload.completed < layer.size:
                yield _line("pushing", layer, upload.completed)
            registry.blobs.add(layer.digest)
        yield _line("pushing", layer, layer.size)
    yield {"status": "pushing manifest"}
    registry.add(model.copied(name).spec)
    yield {"status": "success"}
