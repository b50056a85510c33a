"""`POST /api/chat` and `POST /api/generate`: checks a request, and has the model answer it."""

import json
from collections.abc import Mapping
from typing import Any

from ollama_sc.testing import (
    _fields,
    _gojson,
    _images,
    _lookup,
    _model,
    _saying,
    _version,
    _wording,
)
from ollama_sc.testing._fields import ApiError, Fields
from ollama_sc.testing._replies import NDJSON, Generated, Message, json_message
from ollama_sc.testing._saying import Wanted
from ollama_sc.testing._state import State
from ollama_sc.testing._store import StoredModel

_TOP_LOGPROBS = 20
_CLOUD_OFF = "remote model is unavailable"
_TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the "
    "prompt, adjust the context length in settings, or use a model with a longer context length"
)


def answer(request: object, body: bytes, *, chat: bool, state: State, script: Generated) -> Message:
    """Answer a chat or a generate request; the script says what the model shall say."""
    fields = Fields.of_body(body, "ChatRequest" if chat else "GenerateRequest")
    stream = fields.boolean("stream") is not False
    try:
        wanted = _check(request, fields, state, chat=chat, stream=stream)
        if isinstance(wanted, Message):
            return wanted
        said = _saying.say(wanted, state.limits, script)
        if stream:
            lines = _wording.lines(wanted, said)
            return Message(200, NDJSON, lines, stream=True, rate=state.limits.token_rate)
        return _wording.single(wanted, said, state.limits)
    except ApiError as exc:
        if exc.in_stream and stream:
            data = _gojson.encode(exc.body)
            return Message(exc.status, "application/json", (data,), chunked=True)
        raise


def _check(
    request: object, fields: Fields, state: State, *, chat: bool, stream: bool
) -> Wanted | Message:
    """Refuse what the server refuses, in its order; a Message where there is nothing to say."""
    spelling = fields.string("model")
    messages = fields.objects("messages", "Message") if chat else []
    texts = (message.string("content") for message in messages)
    prompt = "\n".join(texts) if chat else fields.string("prompt")
    images = len(fields.items("images")) if not chat else 0
    tools = fields.items("tools") if chat else []
    think = _fields.think(fields, state.version)
    keep_alive = _fields.keep_alive(fields)
    raw = not chat and bool(fields.boolean("raw"))
    top_logprobs = fields.integer("top_logprobs")
    if not 0 <= top_logprobs <= _TOP_LOGPROBS:
        raise ApiError(400, "top_logprobs must be between 0 and 20")
    nameless = ApiError(400, "model is required") if chat else ApiError(404, "model '' not found")
    missing = "model '{name}' not found"
    found = _lookup.find(spelling, state, missing=missing, empty=nameless)
    model = found.model
    # What goes upstream as a normal call is not answered here at once.
    empty = not messages if chat else not prompt and not images and found.via != "stub"
    head = _head(found, state)
    if empty and keep_alive == 0 and found.via != "cloud":
        state.loaded.unload(model)
        return _done_at_once(head, "unload", chat=chat)
    path = "/api/chat" if chat else "/api/generate"
    state.cloud.check(found.via, _CLOUD_OFF, path, stream=stream)
    if model.can("image"):
        return _images.answer(head, fields, state)
    if raw and any(fields.value(name) for name in ("system", "template", "context")):
        raise ApiError(400, "raw mode does not support template, system, or context")
    _check_template(fields.string("template") if not chat else "")
    thinks = _check_capabilities(
        model, spelling, chat=chat, tools=bool(tools), think=think,
        suffix=not chat and bool(fields.string("suffix")),
    )  # fmt: skip
    options = _fields.options(fields)
    context = int(options.get("num_ctx") or model.context)
    if found.via == "local":
        state.loaded.use(request, model, keep_alive, context)
    if empty:
        return _done_at_once(head, "load", chat=chat)
    if fields.boolean("_debug_render_only") and state.version.has(_version.DEBUG):
        count = sum(len(message.items("images")) for message in messages) if chat else images
        return json_message(_wording.rendered(head, prompt, count, chat=chat))
    if state.version.has(_version.LENGTHS):
        _check_length(fields, _model.words(prompt), context)
    return Wanted(
        chat=chat,
        head=head,
        version=state.version,
        stream=stream,
        options=options,
        prompt=prompt,
        thinks=thinks,
        format=_fields.response_format(fields),
        logprobs=bool(fields.boolean("logprobs")),
        top_logprobs=top_logprobs,
        raw=raw,
        tools=bool(tools),
    )


def _head(found: _lookup.Found, state: State) -> dict[str, Any]:
    """The fields that each object of the reply begins with."""
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
    """Refuse what the model cannot do; returns whether it thinks."""
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
        inner = {
            "error": {
                "code": 400,
                "message": f"the request has {tokens} tokens, the context {context}",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": tokens,
                "n_ctx": context,
            }
        }
        raise ApiError(400, json.dumps(inner, separators=(",", ":")), in_stream=True)
    if fields.boolean("shift") is False:
        raise ApiError(400, _TOO_LONG, in_stream=True)


def _done_at_once(head: Mapping[str, Any], reason: str, *, chat: bool) -> Message:
    end = {"done": True, "done_reason": reason}
    return json_message(_wording.piece(head, "", chat=chat) | end)
