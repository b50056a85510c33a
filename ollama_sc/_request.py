"""Arguments into the body of a request, or into an error that says what is wrong. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from inspect import Parameter, signature
from typing import Any, TypeVar, cast

import msgspec

from ._errors import RequestError
from ._fields import BodyFields
from ._http import Request
from .types import ChatResponse, Message

F = TypeVar("F", bound=Callable[..., Any])

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_NOT_SENT = BodyFields.__annotations__.keys()


def accepts(fields: type) -> Callable[[F], F]:
    """Let a method's ``**fields`` show as the keyword parameters that they are.

    Type checkers read them from the annotation; this is for `help` and `inspect.signature`.
    """

    def spelled_out(function: F) -> F:
        shown = signature(function)
        # Of the class and its bases, in their order: `__annotations__` of a TypedDict has all.
        keywords = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in fields.__annotations__.items()
        ]
        parameters = [p for p in shown.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
        function.__signature__ = shown.replace(parameters=[*parameters, *keywords])  # type: ignore[attr-defined]
        function.__fields__ = frozenset(fields.__annotations__)  # type: ignore[attr-defined]
        return function

    return spelled_out


def build(
    path: str,
    model: str,
    allowed: type,
    fields: Mapping[str, Any],
    **body: object,
) -> Request:
    """A ``POST`` about a model, with a JSON body.

    Raises:
        TypeError: a field that the call does not have.
        RequestError: a value that cannot be right.
    """
    unknown = fields.keys() - allowed.__annotations__.keys()
    if unknown:
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}")
    if not isinstance(model, str) or not model.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
        raise RequestError(f"the model must be a name such as 'llama3.2', not {model!r}")
    sent: dict[str, Any] = {"model": model, **body}
    sent.update((key, value) for key, value in fields.items() if key not in _NOT_SENT)
    if "debug_render_only" in sent:
        sent["_debug_render_only"] = sent.pop("debug_render_only")
    keep_alive = sent.get("keep_alive")
    if isinstance(keep_alive, timedelta):
        sent["keep_alive"] = keep_alive.total_seconds()
    sent = {key: value for key, value in sent.items() if value is not None}
    extra = fields.get("extra")
    if extra is not None:
        if not isinstance(extra, Mapping):
            raise RequestError(f"extra must be a mapping, not {type(extra).__name__}")
        sent.update(cast("Mapping[str, Any]", extra))
    _check_mapping(sent, "options")
    label = f"POST {path}, model {model!r}"
    return Request("POST", path, label, encode(sent, label))


def plain(method: str, path: str, json: object = None) -> Request:
    """A request to any endpoint; `json` is its body, where there is one."""
    method = method.upper()
    if method not in _METHODS:
        raise RequestError(f"the method must be one of {', '.join(_METHODS)}, not {method!r}")
    if not path.startswith("/") or any(ord(character) <= 0x20 for character in path):
        raise RequestError(f"the path must begin with a slash and have no spaces, not {path!r}")
    label = f"{method} {path}"
    if isinstance(json, Mapping):
        model = cast("Mapping[str, Any]", json).get("model")
        label += f", model {model!r}" if isinstance(model, str) else ""
    return Request(
        method, path, label, None if json is None else encode(cast("object", json), label)
    )


def encode(body: object, label: str) -> bytes:
    """JSON, or an error about what cannot be that."""
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise RequestError(f"the request is no JSON: {error}", request=label) from error


def messages(given: object) -> list[object]:
    """A conversation, each message checked; replies stand for their messages."""
    if given is None:
        return []
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise RequestError(
            "messages must be a list of messages, such as "
            f"[{{'role': 'user', 'content': 'Hello'}}], not {type(given).__name__}"
        )
    items = cast("Sequence[object]", given)
    return [_message(number, item) for number, item in enumerate(items)]


def _message(number: int, item: object) -> object:
    if isinstance(item, ChatResponse):
        return item.message
    if isinstance(item, Message):
        _check_role(number, item.role)
        return item
    if not isinstance(item, Mapping):
        raise RequestError(
            f"messages[{number}] must be a Message, a mapping or a ChatResponse, "
            f"not {type(item).__name__}"
        )
    mapping = cast("Mapping[str, Any]", item)
    _check_role(number, mapping.get("role"))
    content = mapping.get("content")
    if content is not None and not isinstance(content, str):
        raise RequestError(
            f"messages[{number}]: the content must be text, not {type(content).__name__}; "
            "images go into a list of their own, 'images'"
        )
    return dict(mapping)


def _check_role(number: int, role: object) -> None:
    if not isinstance(role, str) or not role.strip():
        raise RequestError(
            f"messages[{number}] needs a role: 'system', 'user', 'assistant' or 'tool'"
        )


def text(name: str, given: object) -> str | None:
    """A text, or nothing."""
    if given is not None and not isinstance(given, str):
        raise RequestError(f"{name} must be text, not {type(given).__name__}")
    return given


def embed_input(given: object) -> str | list[str]:
    """A text, or several."""
    if isinstance(given, str):
        return given
    if isinstance(given, bytes) or not isinstance(given, Sequence):
        raise RequestError(f"input must be a text or a list of texts, not {type(given).__name__}")
    items = list(cast("Sequence[object]", given))
    for number, item in enumerate(items):
        if not isinstance(item, str):
            raise RequestError(f"input[{number}] must be text, not {type(item).__name__}")
    return cast("list[str]", items)


def _check_mapping(sent: Mapping[str, Any], name: str) -> None:
    value = sent.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise RequestError(f"{name} must be a mapping, not {type(value).__name__}")
