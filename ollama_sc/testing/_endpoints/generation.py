"""`POST /api/chat` and `POST /api/generate`: validates a request and returns its completion."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from ollama_sc.testing import _version
from ollama_sc.testing._go import gojson
from ollama_sc.testing._go.fields import (
    ApiError,
    Fields,
    read_format,
    read_keep_alive,
    read_options,
    read_think,
)
from ollama_sc.testing._model import responses, synthetic
from ollama_sc.testing._model.completion import GenerationRequest, complete
from ollama_sc.testing._replies import NDJSON, Generated, Message, json_message
from ollama_sc.testing._state.state import State
from ollama_sc.testing._state.store import StoredModel

from . import lookup
from .images import respond_with_image

_TOP_LOGPROBS = 20
_CLOUD_OFF = "remote model is unavailable"
_BLIND = "Multimodal data provided, but model does not support multimodal requests."
_BLIND_BEFORE = (
    "Failed to create new sequence: failed to process inputs: this model is missing data required "
    "for image input"
)
_TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the "
    "prompt, adjust the context length in settings, or use a model with a longer context length"
)


def respond(
    request: object, body: bytes, *, chat: bool, state: State, script: Generated
) -> Message:
    """Respond to a chat or a generate request; the script may set the model's output."""
    fields = Fields.of_body(body, "ChatRequest" if chat else "GenerateRequest")
    stream = fields.boolean("stream") is not False
    try:
        checked = _check(request, fields, state, chat=chat, stream=stream)
        if isinstance(checked, Message):
            return checked
        if state.limits.call_tools and script == Generated():
            script = replace(script, tool_calls=_calls(fields))
        completion = complete(checked, state.limits, script)
        if stream:
            lines = responses.lines(checked, completion)
            return Message(200, NDJSON, lines, stream=True, rate=state.limits.token_rate)
        return responses.single(checked, completion, state.limits)
    except ApiError as exc:
        if exc.in_stream and stream:
            data = gojson.encode(exc.body)
            return Message(exc.status, "application/json", (data,), chunked=True)
        raise


def _check(
    request: object, fields: Fields, state: State, *, chat: bool, stream: bool
) -> GenerationRequest | Message:
    """Raise the server's errors in its order; a Message if nothing is to be generated."""
    spelling = fields.string("model")
    messages = fields.objects("messages", "Message") if chat else []
    texts = (message.string("content") for message in messages)
    prompt = "\n".join(texts) if chat else fields.string("prompt")
    images = sum(len(one.items("images")) for one in (messages if chat else [fields]))
    tools = fields.items("tools") if chat else []
    think = read_think(fields, state.version)
    keep_alive = read_keep_alive(fields)
    raw = not chat and bool(fields.boolean("raw"))
    top_logprobs = fields.integer("top_logprobs")
    if not 0 <= top_logprobs <= _TOP_LOGPROBS:
        raise ApiError(400, "top_logprobs must be between 0 and 20")
    nameless = ApiError(400, "model is required") if chat else ApiError(404, "model '' not found")
    missing = "model '{name}' not found"
    found = lookup.find(spelling, state, missing=missing, empty=nameless)
    model = found.model
    # An empty request to a stub is relayed as a normal call.
    empty = not messages if chat else not prompt and not images and found.via != "stub"
    head = _head(found, state)
    if empty and keep_alive == 0 and found.via != "cloud":
        state.loaded.unload(model)
        return _single(head, "unload", chat=chat)
    path = "/api/chat" if chat else "/api/generate"
    state.cloud.check(found.via, _CLOUD_OFF, path, stream=stream)
    if model.can("image"):
        return respond_with_image(head, fields, state)
    if raw and any(fields.value(name) for name in ("system", "template", "context")):
        raise ApiError(400, "raw mode does not support template, system, or context")
    _check_template(fields.string("template") if not chat else "")
    thinks = _check_capabilities(
        model, spelling, chat=chat, tools=bool(tools), think=think,
        suffix=not chat and bool(fields.string("suffix")),
    )  # fmt: skip
    options = read_options(fields)
    context = int(options.get("num_ctx") or model.context)
    if found.via == "local":
        state.loaded.use(request, model, keep_alive, context)
    if empty:
        return _single(head, "load", chat=chat)
    if fields.boolean("_debug_render_only") and state.version.has(_version.DEBUG):
        return json_message(responses.rendered(head, prompt, images, chat=chat))
    if images and not model.may_see:
        newer = state.version.has(_version.NEWER_ENGINE)
        status, text = (400, _runner_error(_BLIND)) if newer else (500, _BLIND_BEFORE)
        raise ApiError(status, text, in_stream=True)
    if state.version.has(_version.LENGTHS):
        _check_length(fields, synthetic.words(prompt), context)
    return GenerationRequest(
        chat=chat,
        head=head,
        version=state.version,
        stream=stream,
        options=options,
        prompt=prompt,
        thinks=thinks,
        format=read_format(fields),
        logprobs=bool(fields.boolean("logprobs")),
        top_logprobs=top_logprobs,
        raw=raw,
        tools=bool(tools),
    )


def _calls(fields: Fields) -> tuple[Mapping[str, Any], ...]:
    """A call of each tool, unless the last message is the result of one."""
    messages = fields.objects("messages", "Message")
    if not messages or messages[-1].string("role") == "tool":
        return ()
    functions = [_mapping(_mapping(tool).get("function")) for tool in fields.items("tools")]
    schemas = [{"type": "object", **_mapping(one.get("parameters"))} for one in functions]
    return tuple(
        {"name": function["name"], "arguments": json.loads(synthetic.json_text(schema))}
        for function, schema in zip(functions, schemas, strict=True)
        if "name" in function
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _head(found: lookup.Found, state: State) -> dict[str, Any]:
    """The first fields of each object of the response."""
    remote = found.model.remote() if state.version.has(_version.REMOTE) else {}
    return {"model": found.shown, **remote}


def _check_template(template: str) -> None:
    if template.count("{{") != template.count("}}"):
        raise ApiError(500, "template: :1: unclosed action")


def _check_capabilities(
    model: StoredModel,
    spelling: str,
    *,
    chat: bool,
    tools: bool,
    think: bool | str | None,
    suffix: bool,
) -> bool:
    """Raise the errors for missing capabilities; returns whether the model thinks."""
    if not model.can("completion"):
        verb = "chat" if chat else "generate"
        raise ApiError(400, f'"{spelling}" does not support {verb}')
    if tools and not model.can("tools"):
        raise ApiError(400, f"{model.name.full} does not support tools")
    if suffix and not model.can("insert"):
        raise ApiError(400, f"{model.name.full} does not support insert")
    if think and not model.can("thinking"):
        raise ApiError(400, f'"{spelling}" does not support thinking')
    return model.can("thinking") and think is not False


def _check_length(fields: Fields, tokens: int, context: int) -> None:
    if tokens <= context:
        return
    if fields.boolean("truncate") is False:
        text = (
            f"request ({tokens} tokens) exceeds the available context size ({context} tokens), "
            "try increasing it"
        )
        counts = {"n_prompt_tokens": tokens, "n_ctx": context}
        inner = _runner_error(text, "exceed_context_size_error", **counts)
        raise ApiError(400, inner, in_stream=True)
    if fields.boolean("shift") is False:
        raise ApiError(400, _TOO_LONG, in_stream=True)


def _runner_error(text: str, kind: str = "invalid_request_error", **more: int) -> str:
    """An error of the model's runner: JSON, which the server puts into `error` as text."""
    inner = {"error": {"code": 400, "message": text, "type": kind, **more}}
    return json.dumps(inner, separators=(",", ":"))


def _single(head: Mapping[str, Any], reason: str, *, chat: bool) -> Message:
    end = {"done": True, "done_reason": reason}
    return json_message(responses.piece(head, "", chat=chat) | end)
