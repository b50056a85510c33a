"""What stands for a message, as a `Message` with all that was in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import msgspec

from ollama_sc._api import arguments
from ollama_sc._api.body import dump_model, encode
from ollama_sc._api.fields import MessageLike
from ollama_sc._errors import RequestError
from ollama_sc._replies.lenient import parse, read
from ollama_sc.types import ChatResponse, Message


def as_messages(given: Iterable[MessageLike]) -> list[Message]:
    """Messages that are checked, with keys of their own that the API does not have.

    Raises:
        RequestError: one of them is none.
    """
    if isinstance(given, Iterator):
        given = [*given]
    checked = arguments.messages(given)  # its errors name the place; images may be read only later
    return [as_message(item) for item in given] if checked else []


def as_message(item: object) -> Message:
    """One message; see `as_messages`."""
    if isinstance(item, ChatResponse):
        return cast("ChatResponse[Any]", item).message
    if isinstance(item, Message):
        return item
    found = dict(cast("Mapping[str, Any]", dump_model(item)))
    images = found.pop("images", None)
    data = encode(found, "a message")
    assert isinstance(data, bytes)
    try:
        message = read(Message, parse(data))
    except msgspec.ValidationError as error:
        raise RequestError(f"a message cannot be sent: {error}") from error
    if images is not None:
        message.images = list(images)
    return message
