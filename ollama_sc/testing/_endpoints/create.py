"""`POST /api/create`."""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, cast

from ollama_sc.testing._go.fields import ApiError, Fields
from ollama_sc.testing._replies import Message
from ollama_sc.testing._state.blobs import digest_of, is_digest
from ollama_sc.testing._state.names import Name, parse_name
from ollama_sc.testing._state.state import MODELS_DIR, State
from ollama_sc.testing._state.store import (
    FakeModel,
    Layer,
    StoredModel,
    config_layer,
    text_layers,
)

from .progress import Steps, progress_message
from .transfer import pull_steps

_QUANTIZABLE = ("F16", "BF16", "F32")
_QUANTIZED = ("F32", "F16", "Q4_K_S", "Q4_K_M", "Q8_0")
_QUANTIZE_DIGEST = "0000000000000000000"
_TEXTS = ("model_family", "base_name", "quantization_level", "parameter_size")
_SHOWN = ((".Tools", "tools"), (".Suffix", "insert"), (".Thinking", "thinking"))
_COUNTS = ("context_length", "embedding_length")


@dataclass(frozen=True, slots=True)
class _CreateRequest:
    """A validated create request."""

    name: Name
    base: str
    files: Mapping[str, str] | None
    adapters: Mapping[str, str]
    drafts: Mapping[str, str]
    quantize: str
    remote_host: str
    changes: Mapping[str, Any]
    license: tuple[str, ...]
    parameters: Mapping[str, Any]


@dataclass(slots=True)
class _Build:
    """The model that a create request builds, so far."""

    spec: FakeModel
    weights: list[Layer]


async def create(body: bytes, state: State) -> Message:
    """Respond to a create request.

    A streamed one is abandoned when its client disconnects: no model is written.
    """
    fields = Fields.of_body(body, "CreateRequest")
    stream = fields.boolean("stream") is not False
    request = _check(fields)
    return await progress_message(_steps(request, state), stream=stream)


# ---------------------------------------------------------------------------------------------
# Validation: errors before there is a stream


def _check(fields: Fields) -> _CreateRequest:
    files = _files(fields, "files")
    adapters = _files(fields, "adapters") or {}
    drafts = _files(fields, "draft_files") or {}
    name = parse_name(fields.string("model") or fields.string("name"))
    if fields.string("draft_quantize") and not drafts:
        raise ApiError(400, "--draft-quantize requires a DRAFT model")
    if name is None:
        raise ApiError(400, "invalid model name")
    changes: dict[str, Any] = {
        key: text
        for key in ("template", "system", "renderer", "parser", "requires")
        if (text := fields.string(key))
    }
    messages = cast("list[Mapping[str, Any] | None]", fields.items("messages"))
    if messages:
        changes["messages"] = tuple(message or {} for message in messages)
    return _CreateRequest(
        name=name,
        base=fields.string("from"),
        files=files,
        adapters=adapters,
        drafts=drafts,
        quantize=(fields.string("quantize") or fields.string("quantization")).upper(),
        remote_host=fields.string("remote_host"),
        changes=changes | _info(fields.mapping("info")),
        license=_license(fields.value("license")),
        parameters=fields.mapping("parameters"),
    )


def _files(fields: Fields, key: str) -> dict[str, str] | None:
    if fields.value(key) is None:
        return None
    files = cast("dict[str, str]", fields.mapping(key))
    for path, digest in files.items():
        if not path or path.startswith("/") or not {"", ".", ".."}.isdisjoint(path.split("/")):
            raise ApiError(400, "file path must be relative")
        if not is_digest(str(digest)):
            raise ApiError(400, "invalid digest format")
    return files


def _license(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,) if value else ()
    items = cast("list[object]", value) if isinstance(value, list) else []
    return tuple(str(item) for item in items)


def _info(info: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a model that `info` sets."""
    for key in _TEXTS:
        if not isinstance(info.get(key, ""), str):
            raise ApiError(400, f'info field "{key}" must be a string')
    for key in _COUNTS:
        value = info.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ApiError(400, f'info field "{key}" must be a number')
        if not 0 <= value < 1 << 63 or value != int(value):
            raise ApiError(400, f'info field "{key}" must be a non-negative integer')
    found: dict[str, Any] = {}
    capabilities = info.get("capabilities")
    if capabilities and isinstance(capabilities, list):
        found["capabilities"] = tuple(str(item) for item in cast("list[object]", capabilities))
    if info.get("model_family"):
        found["family"] = info["model_family"]
    found |= {key: info[key] for key in ("quantization_level", "parameter_size") if info.get(key)}
    if info.get("context_length"):
        found["context_length"] = int(info["context_length"])
    return found


# ---------------------------------------------------------------------------------------------
# The steps


async def _steps(request: _CreateRequest, state: State) -> Steps:
    builds: list[_Build] = []
    async with aclosing(_weights(request, state, builds)) as steps:
        async for step in steps:
            yield step
    build = builds[0]
    base = build.spec
    template = request.changes.get("template", "")
    if template.count("{{") != template.count("}}"):
        raise ApiError(400, "template error: template: :1: unclosed action")
    spec = replace(
        base,
        **{"capabilities": _capabilities(base, template), **request.changes},
        name=request.name.display,
        license=(*base.license, *request.license),
        parameters={**base.parameters, **request.parameters},
    )
    texts = [] if request.remote_host else text_layers(spec)
    layers = [*build.weights, *texts]
    for layer in layers:
        known = layer.digest in state.store.blobs
        verb = "using existing" if known else "creating new"
        yield {"status": f"{verb} layer {layer.digest}"}
    yield {"status": "writing manifest"}
    layers.append(config_layer(layers))
    spec = replace(spec, size=sum(layer.size for layer in layers))
    state.store.put(StoredModel(spec, request.name, tuple(layers), time.time_ns()))
    yield {"status": "success"}


def _capabilities(base: FakeModel, template: str) -> tuple[str, ...] | None:
    """Those of the base, and what a new template can show."""
    more = (name for variable, name in _SHOWN if variable in template)
    return base.capabilities and tuple(dict.fromkeys((*base.capabilities, *more)))


async def _weights(request: _CreateRequest, state: State, builds: list[_Build]) -> Steps:
    """Find the weights and the inherited properties; appends the result to `builds`."""
    if request.remote_host:
        builds.append(_remote(request))
        return
    source: AsyncGenerator[dict[str, Any]]
    if request.base:
        source = _from_model(request, state, builds)
    elif request.files is not None:
        source = _from_files(request, state, builds)
    else:
        raise ApiError(400, "neither 'from' or 'files' was specified")
    async with aclosing(source) as steps:
        async for step in steps:
            yield step
    build = builds[0]
    if request.adapters:
        if len(request.adapters) > 1:
            raise ApiError(400, "only one adapter is currently supported")
        for layer in _open(request.adapters, state, "adapter"):
            yield {"status": "parsing GGUF"}
            build.weights.append(layer)
    build.weights += _open(request.drafts, state, "draft")
    if request.quantize:
        for step in _quantize(build, request.quantize):
            yield step


def _remote(request: _CreateRequest) -> _Build:
    if request.drafts:
        raise ApiError(400, "DRAFT cannot be used with remote models")
    if not request.base or parse_name(request.base) is None:
        raise ApiError(400, "invalid model name")
    scheme, mark, host = request.remote_host.rpartition("://")
    if not host or (mark and scheme not in ("http", "https")):
        raise ApiError(400, "bad remote")
    url = f"{scheme or 'https'}://{host}"
    if ":" not in host:
        url += ":80" if scheme == "http" else ":443"
    spec = FakeModel(
        request.base,
        ("completion",),
        families=(),
        family="",
        parameter_size="",
        quantization_level="",
        format="",
        remote_model=request.base,
        remote_host=url,
    )
    return _Build(spec, [])


async def _from_model(request: _CreateRequest, state: State, builds: list[_Build]) -> Steps:
    name = parse_name(request.base)
    if name is None:
        raise ApiError(400, "invalid model name")
    if state.store.find(name) is None:
        async with aclosing(pull_steps(state, name)) as steps:
            async for step in steps:
                if step["status"] != "success":
                    yield step
    model = state.store.find(name)
    if model is None:  # deleted while its last lines were sent
        raise ApiError(500, "pull model manifest: file does not exist")
    spec = replace(
        model.spec,
        capabilities=model.capabilities,
        family=model.family,
        parent_model=model.name.display,
    )
    kinds = ("model", "adapter", "draft")
    builds.append(_Build(spec, [layer for layer in model.layers if layer.kind in kinds]))


async def _from_files(request: _CreateRequest, state: State, builds: list[_Build]) -> Steps:
    files = request.files or {}
    safetensors = bool(files) and all(path.endswith((".safetensors", ".json")) for path in files)
    heads = [state.store.blobs[d].head for d in files.values() if d in state.store.blobs]
    named = bool(files) and all(path.endswith(".gguf") for path in files)
    if not safetensors and not named and (b"GGUF" not in heads or not files):
        raise ApiError(400, "unknown type")
    if named and any(head != b"GGUF" for head in heads):
        raise ApiError(400, "supplied file was not in GGUF format")
    weights: list[Layer] = []
    if safetensors:
        weights.append(_converted(files, state))
        yield {"status": "converting model"}
    else:
        for path, digest in files.items():
            yield {"status": "parsing GGUF"}
            weights += _open({path: digest}, state, "model")
    level = "F16" if safetensors or request.quantize else "unknown"
    spec = FakeModel(
        request.name.display,
        ("completion",),
        "llama",
        parameter_size="75K",
        quantization_level=level,
        context_length=8192,
    )
    builds.append(_Build(spec, weights))


def _converted(files: Mapping[str, str], state: State) -> Layer:
    parts = _open(files, state, "model")
    joined = "".join(part.digest for part in parts).encode()
    return Layer(digest_of(joined), sum(part.size for part in parts))


def _open(files: Mapping[str, str], state: State, kind: str) -> Sequence[Layer]:
    found: list[Layer] = []
    for digest in files.values():
        if digest not in state.store.blobs:
            path = f"{MODELS_DIR}/blobs/{digest.replace(':', '-')}"
            raise ApiError(500, f"open {path}: no such file or directory")
        found.append(Layer(digest.replace("-", ":"), state.store.blobs[digest].size, kind))
    return found


def _quantize(build: _Build, level: str) -> list[dict[str, Any]]:
    old = build.spec.quantization_level
    if level not in _QUANTIZED:
        known = ", ".join(_QUANTIZED)
        raise ApiError(500, f"unsupported quantization type {level} - supported types are {known}")
    if old not in _QUANTIZABLE:
        raise ApiError(500, "quantization is only supported for F16, BF16 and F32 models")
    if old == level:
        return []
    total = sum(layer.size for layer in build.weights)
    build.spec = replace(build.spec, quantization_level=level)
    build.weights = [
        Layer(digest_of(f"{layer.digest} {level}".encode()), max(1, layer.size // 4), layer.kind)
        for layer in build.weights
    ]
    status = f"quantizing {old} model to {level}"
    lines: list[dict[str, Any]] = [
        {"status": status, "digest": _QUANTIZE_DIGEST, "total": total, "completed": total * n // 4}
        for n in range(1, 5)
    ]
    return [*lines, {"status": "verifying conversion"}]
