"""The exception tree: its bases, its texts, and that everything in it pickles."""

from __future__ import annotations

import copy
import enum
import pickle
from datetime import timedelta
from typing import Any

import pytest

import ollama_sc
from ollama_sc import (
    AbortError,
    AuthorizationError,
    ChatResponse,
    ClientClosedError,
    ConnectError,
    EmbedError,
    IncompleteStreamError,
    Message,
    ModelNotFoundError,
    OllamaError,
    OutputError,
    ProtocolError,
    RateLimitError,
    RequestError,
    RequestTimeout,
    ResponseError,
    ServerBusyError,
    ToolError,
)


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


LABEL = "POST /api/chat, model 'llama3.2'"


def with_attribute(error: OllamaError, name: str, value: object) -> OllamaError:
    setattr(error, name, value)
    return error


EXAMPLES: list[OllamaError] = [
    OllamaError("text", request=LABEL),
    RequestError("text", request=LABEL),
    OutputError("text", text="{}", path="$.a", reason="misfit", request=LABEL),
    ToolError("text", request=LABEL),
    ClientClosedError("text", request=LABEL),
    ConnectError("text", request=LABEL),
    RequestTimeout("text", limit="first_chunk", seconds=2.5, request=LABEL),
    AbortError("text", reason="shutting down", request=LABEL),
    ResponseError("text", error="boom", status_code=500, request=LABEL),
    ModelNotFoundError("text", error="boom", status_code=404, request=LABEL),
    with_attribute(
        AuthorizationError("text", error="boom", status_code=401, request=LABEL),
        "signin_url",
        "https://example.com/connect",
    ),
    with_attribute(
        RateLimitError("text", error="boom", status_code=429, request=LABEL), "retry_after", 3.5
    ),
    ServerBusyError("text", error="boom", status_code=503, request=LABEL),
    ProtocolError("text", excerpt=b"<html>\xff", request=LABEL),
    EmbedError("text", index=7, reason="too long", request=LABEL),
    IncompleteStreamError(
        "text", partial=ChatResponse(message=Message("assistant", "Half a"), done=False)
    ),
    IncompleteStreamError("text", partial=None, request=LABEL),
]
COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "oldest pickle": lambda error: pickle.loads(pickle.dumps(error, 0)),
    "newest pickle": lambda error: pickle.loads(pickle.dumps(error, pickle.HIGHEST_PROTOCOL)),
}

BASES: dict[type[OllamaError], tuple[type, ...]] = {
    OutputError: (OllamaError, ValueError),
    ToolError: (OllamaError,),
    OllamaError: (Exception,),
    RequestError: (OllamaError, ValueError),
    ClientClosedError: (OllamaError, RuntimeError),
    ConnectError: (OllamaError, ConnectionError),
    RequestTimeout: (OllamaError, TimeoutError),
    AbortError: (OllamaError,),
    ResponseError: (OllamaError,),
    ModelNotFoundError: (ResponseError,),
    AuthorizationError: (ResponseError,),
    RateLimitError: (ResponseError,),
    ServerBusyError: (ResponseError,),
    ProtocolError: (OllamaError,),
    EmbedError: (OllamaError,),
    IncompleteStreamError: (OllamaError,),
}


@pytest.mark.parametrize(("cls", "bases"), BASES.items())
def test_the_tree_has_the_bases_that_it_is_drawn_with(cls: type, bases: tuple[type, ...]) -> None:
    """Each class has exactly the bases that the documentation draws, builtin ones included."""
    assert cls.__bases__ == bases


def test_the_tree_is_whole() -> None:
    """Every exception that the package exports is in the table above, and has an example."""
    exported = {
        value
        for value in vars(ollama_sc).values()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert exported == set(BASES)
    assert {type(example) for example in EXAMPLES} == exported


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_a_copy_has_every_attribute(error: OllamaError, how: str) -> None:
    """Copied or pickled, an error keeps its class, text, request and every attribute."""
    twin: Any = COPIES[how](error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert repr(twin) == repr(error)
    assert twin.args == error.args
    assert vars(twin) == vars(error)
    assert twin.request == error.request


@pytest.mark.parametrize("cls", BASES)
def test_an_error_without_arguments_can_be_shown_and_pickled(cls: type[OllamaError]) -> None:
    """Every class can be made without arguments, as people do in tests, and still works."""
    error = cls()
    assert str(error) == ""
    assert error.request is None
    assert type(pickle.loads(pickle.dumps(error))) is cls


def test_notes_survive_pickling() -> None:
    """A note that somebody added to an error is there after pickling."""
    error = AbortError("aborted", reason=object())
    error.add_note("while embedding row 7")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["while embedding row 7"]


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("not me")

    def __repr__(self) -> str:
        return "<unpicklable>"


class WithoutRepr(Unpicklable):
    def __repr__(self) -> str:
        raise RuntimeError("no repr either")


def a_local_number() -> object:
    class Why(enum.IntEnum):
        SHUTDOWN = 1

    return Why.SHUTDOWN


def a_local_text() -> object:
    class Why(str):
        pass

    return Why("shutdown")


@pytest.mark.parametrize(
    "reason",
    [
        Unpicklable(),
        WithoutRepr(),
        lambda: None,
        (number for number in ()),
        [Unpicklable()],
        a_local_number(),
        a_local_text(),
    ],
    ids=["object", "no repr", "function", "generator", "nested", "local IntEnum", "local str"],
)
def test_an_abort_pickles_whatever_its_reason(reason: object) -> None:
    """A reason that cannot be pickled does not keep its AbortError from being pickled."""
    twin = pickle.loads(pickle.dumps(AbortError("aborted", reason=reason, request=LABEL)))
    assert type(twin) is AbortError
    assert twin.request == LABEL
    assert str(twin) == f"{LABEL}: aborted"
    assert twin.reason is not None


def test_the_pickled_reason_that_cannot_be_kept_is_its_repr() -> None:
    """Where a reason cannot be pickled, its repr takes its place."""
    twin = pickle.loads(pickle.dumps(AbortError("aborted", reason=Unpicklable())))
    assert twin.reason == "<unpicklable>"


@pytest.mark.parametrize("reason", [("user", 7), timedelta(seconds=5), b"x", {"code": 3}, 1.5, 0])
def test_a_reason_that_can_be_pickled_is_kept(reason: object) -> None:
    """A reason that pickles comes out as what it was, not as text about it."""
    assert pickle.loads(pickle.dumps(AbortError("aborted", reason=reason))).reason == reason


def test_a_copy_has_the_very_reason() -> None:
    """`copy.copy` keeps the reason itself, whatever it is."""
    reason = Unpicklable()
    assert copy.copy(AbortError("aborted", reason=reason)).reason is reason


@pytest.mark.parametrize("error", EXAMPLES[:-2], ids=lambda error: type(error).__name__)
def test_the_text_names_the_request_once(error: OllamaError) -> None:
    """`str` begins with the endpoint and the model, and then says what happened."""
    assert str(error) == f"{LABEL}: text"


def test_without_a_request_the_text_stands_alone() -> None:
    """An error from before any request has just its text."""
    assert str(RequestError("the host is wrong")) == "the host is wrong"
    assert RequestError("the host is wrong").request is None


@pytest.mark.parametrize(
    ("raised", "caught"),
    [
        (RequestError("x"), ValueError),
        (ClientClosedError("x"), RuntimeError),
        (ConnectError("x"), ConnectionError),
        (ConnectError("x"), OSError),
        (RequestTimeout("x"), TimeoutError),
        (ServerBusyError("x"), ResponseError),
        (AbortError("x"), OllamaError),
    ],
)
def test_programs_can_catch_the_builtin(raised: OllamaError, caught: type[Exception]) -> None:
    """Code that knows nothing of this library catches its errors by the builtin classes."""
    with pytest.raises(caught) as info:
        raise raised
    assert info.value is raised


@pytest.mark.parametrize(
    "cls", [RequestTimeout, AbortError, ResponseError, ProtocolError, IncompleteStreamError]
)
def test_unlike_things_are_not_caught_by_builtins(cls: type[OllamaError]) -> None:
    """What has no builtin that fits is none of the connection, value and runtime errors."""
    assert not issubclass(cls, (ConnectionError, ValueError, RuntimeError))


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_the_cause_is_kept(error: OllamaError) -> None:
    """Raised from another exception, an error has that one as its cause."""
    cause = OSError(111, "refused")
    with pytest.raises(type(error)) as info:
        try:
            raise cause
        except OSError as caught:
            raise copy.copy(error) from caught
    assert info.value.__cause__ is cause


@pytest.mark.parametrize(
    ("arguments", "text", "error"),
    [
        ({"message": "boom (HTTP 500)", "error": "boom"}, "boom (HTTP 500)", "boom"),
        ({"error": "boom"}, "boom", "boom"),
        ({"message": "boom"}, "boom", "boom"),
        ({}, "", ""),
    ],
)
def test_a_response_error_needs_only_one_of_its_texts(
    arguments: dict[str, str], text: str, error: str
) -> None:
    """Of the message and the server's text, either stands in for the other."""
    made = ResponseError(**arguments)
    assert str(made) == text
    assert made.error == error
    assert made.status_code == 0


def test_attributes_of_errors_default_to_nothing() -> None:
    """What a server did not say is None."""
    assert AuthorizationError("x").signin_url is None
    assert RateLimitError("x").retry_after is None
    assert AbortError("x").reason is None
    assert RequestTimeout("x").seconds is None
    assert ProtocolError("x").excerpt == b""
