"""A reply whose text is a value of a type: its schema goes out, and the text is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar, cast

from ollama_sc._errors import IncompleteStreamError, OutputError, RequestError
from ollama_sc._replies.ndjson import is_truncated
from ollama_sc._wire_object import with_parsed
from ollama_sc.types import ChatResponse, GenerateResponse

from . import arguments

T = TypeVar("T")
Reply = ChatResponse[Any] | GenerateResponse[Any]
R = TypeVar("R", ChatResponse[Any], GenerateResponse[Any])

_SHOWN = 80  # characters of a reply in an error


class Output(Generic[T]):
    """The type of a reply's text.

    Attributes:
        schema: what the server is told of it.
        attempts: how often the model may try.
    """

    def __init__(self, type_: Any, schema: dict[str, Any], attempts: int) -> None:
        self.schema = schema
        self.attempts = attempts
        self._type = type_

    def sent(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a request, with the schema in place of the type."""
        kept = {key: value for key, value in fields.items() if key != "attempts"}
        return kept | {"format": self.schema}

    def read(self, reply: R, label: str) -> R:
        """The reply with its text as a value, in `parsed`.

        Raises:
            OutputError: it is none.
        """
        return with_parsed(reply, self.parse(reply, label))

    def parse_whole(self, reply: Any, label: str) -> T:
        """The value that a stream's text is, once there is no more to come.

        Raises:
            IncompleteStreamError: there may be.
            OutputError: it is none.
        """
        if not reply.complete:
            raise IncompleteStreamError(
                "the reply is not whole: iterate over the stream first",
                partial=reply,
                request=label,
            )
        return self.parse(reply, label)

    def parse(self, reply: Reply, label: str) -> T:
        """The value that the reply's text is.

        Raises:
            OutputError: it is none.
        """
        from ollama_sc._schemas import forms  # noqa: PLC0415 - whoever made this has it

        text = reply.text
        cut = reply.done_reason == "length"
        try:
            value: T = forms.decode(text, self._type)
        except forms.Misfit as error:
            what = f"the reply does not fit {forms.name_of(self._type)}: {error}"
            raise _error(what, reply, label, "misfit", error.path) from error
        except ValueError as error:
            endless = isinstance(error.__cause__, RecursionError)
            if cut and (endless or is_truncated(text.encode("utf-8", "replace"))):
                raise _truncated(reply, label) from error
            if (reply.message if isinstance(reply, ChatResponse) else reply).tool_calls:
                why = "the model wants tools called, see response"
            else:
                why = f"is `format` ignored by the server? {text[:_SHOWN]!r}"
            raise _error(f"the reply is no JSON: {why}", reply, label, "not_json") from error
        if cut and text.strip()[-1:].isdigit():  # of a number, nobody knows whether it is whole
            raise _truncated(reply, label)
        return value


def _truncated(reply: Reply, label: str) -> OutputError:
    what = "the reply was cut off before its end: raise num_predict, or num_ctx"
    return _error(what, reply, label, "truncated")


def _error(
    what: str,
    reply: Reply,
    label: str,
    reason: Literal["truncated", "not_json", "misfit"],
    path: str = "$",
) -> OutputError:
    return OutputError(
        what, text=reply.text, path=path, reason=reason, response=reply, request=label
    )


def output_of(fields: Mapping[str, Any], *, stream: bool, prompted: bool) -> Output[Any] | None:
    """The type that is a call's ``format``; ``None`` for any other format.

    Args:
        fields: the call's.
        stream: whether it is streamed.
        prompted: whether there is anything to be answered.

    Raises:
        RequestError: the type has no JSON schema, or `attempts` cannot be.
    """
    given = fields.get("format")
    attempts = fields.get("attempts")
    if given is None or isinstance(given, str | dict):
        if attempts is not None:
            raise RequestError("attempts is for replies of a type: give one as format=")
        return None
    from ollama_sc._schemas import forms  # noqa: PLC0415 - most programs have no such type

    if not forms.is_type_form(given):
        if attempts is not None:
            raise RequestError("attempts is for replies of a type: give one as format=")
        return None  # a mapping of some kind, or nonsense: as it is checked where it is sent
    number = cast("int", 1 if attempts is None else arguments.count("attempts", attempts))
    if stream and number > 1:
        raise RequestError("attempts cannot be with stream=True: what has been shown stays shown")
    if not prompted:
        raise RequestError(
            f"format={forms.name_of(given)} needs something to answer: without it the server loads "
            "the model, and says nothing"
        )
    try:
        schema = forms.once_for_each(_schema_of, given)
    except TypeError as error:
        raise RequestError(f"format cannot be {forms.name_of(given)}: {error}") from error
    return Output(given, schema, number)


def _schema_of(type_: Any) -> dict[str, Any]:
    from ollama_sc._schemas import forms, narrow  # noqa: PLC0415 - as above

    return narrow.for_output(forms.schema_of(type_))


def asked_again(error: OutputError) -> str:
    """What the model is told of a reply that was not what was asked for."""
    if error.reason == "truncated":
        why = "it was cut off; be shorter"
    elif error.reason == "not_json":
        why = "it is no JSON"
    else:
        why = str(error.__cause__)
    return f"That answer cannot be read: {why}. Answer again, with JSON alone."
