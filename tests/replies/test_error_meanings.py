"""The class of an error follows what it is about, in whatever words a server says it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc import ModelNotFoundError, ResponseError, ServerBusyError
from ollama_sc._replies.errors import error_reply


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


PLACES = [
    "path not found",
    "Path Not Found",
    "404 page not found",
    "Not Found",
    "not found.",
    "404 Not Found",
    "File Not Found",
    "The requested resource was not found",
    "The requested resource could not be found.",
    "Resource does not exist",
    "Function not found",
    "404: service not found",
    "No such API",
    "no such route",
    "No route for {path}",
    "Cannot {asked}",
    "Invalid URL ({asked})",
    "unknown endpoint",
    "Unexpected endpoint or method. ({asked})",
    "{path} is not here",
    "no handler for this request",
]
MODELS = [
    "model '{model}' not found",
    'model "{model}" not found, try pulling it first',
    "The model `{model}` does not exist or you do not have access to it.",
    "Model not found",
    "no such model: {model}",
    "unknown model {model}",
    "'{model}' not found",
    "no such thing as {model}",
]
# Where a model has no name that is a word of these.
NAMED = [
    "{model} not found",
    "{model}: not found",
    "404 {model} was not found",
    "{model}: manifest unknown",
]
USES = ["/api/chat", "/api/generate", "/api/embed", "/api/show", "/v1/chat/completions"]
OTHERS = ["DELETE /api/delete", "POST /api/copy", "POST /api/push"]
NAMES = st.sampled_from(
    ["llama3.2", "path", "page", "url", "hf.co/some/route", "x", "e", "endpoint:latest", "model"]
)
WRAPPED = st.sampled_from(
    [
        lambda text: {"error": text},
        lambda text: {"error": {"message": text, "type": "not_found_error", "code": 404}},
        lambda text: {"error": msgspec.json.encode({"error": {"message": text}}).decode()},
        lambda text: {"StatusCode": 404, "error": text},
    ]
)


def reply(asked: str, model: str, text: str, wrap: object) -> ResponseError:
    text = text.format(asked=asked, path=asked.partition(" ")[2], model=model)
    label = f"{asked}, model {model!r}" if model else asked
    return error_reply(404, {}, msgspec.json.encode(wrap(text)), request=label)  # type: ignore[operator]


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.sampled_from([f"POST {path}" for path in USES] + OTHERS), NAMES, WRAPPED, st.data())
def test_a_404_is_about_a_model_or_a_path(
    asked: str, model: str, wrap: object, data: st.DataObject
) -> None:
    """Whatever the words, the wrapping and the model's name; and only a use can be mended."""
    place = data.draw(st.sampled_from(PLACES))
    assert type(reply(asked, model, place, wrap)) is ResponseError
    error = reply(asked, model, data.draw(st.sampled_from(MODELS)), wrap)
    assert type(error) is ModelNotFoundError
    if model not in ("path", "page", "url", "endpoint:latest"):
        named = data.draw(st.sampled_from(NAMED))
        assert type(reply(asked, model, named, wrap)) is ModelNotFoundError
    advised = asked not in OTHERS and "pull" not in error.error
    assert str(error).endswith("; pull it first") == advised


@pytest.mark.parametrize("asked", ["GET /api/version", "GET /api/tags", "GET /prefix/api/ps"])
@pytest.mark.parametrize("text", [*PLACES, "model not found", "whatever"])
def test_what_needs_no_model_misses_none(asked: str, text: str) -> None:
    """A 404 of a call without a model is never about one, whatever else it says."""
    coded = {"error": {"message": text, "code": "model_not_found", "param": "model"}}
    assert type(reply(asked, "", text, lambda _: coded)) is ResponseError
    assert type(reply(asked, "", text, lambda text: {"error": text})) is ResponseError


@pytest.mark.parametrize(
    "error", [{"message": "gone", "param": "model"}, {"message": "no", "code": "model_not_found"}]
)
def test_a_code_says_that_it_is_the_model(error: dict[str, str]) -> None:
    """Compatible APIs say it beside the text."""
    body = msgspec.json.encode({"error": error})
    assert type(error_reply(404, {}, body, request="POST /v1/x")) is ModelNotFoundError


def test_a_server_without_internet_has_no_full_queue() -> None:
    """`me()` says 503 then; a gateway's page and a queue are what they are for every other call."""
    unavailable = b'{"error":"account unavailable"}'
    error = error_reply(503, {}, unavailable, request="POST /api/me")
    assert type(error) is ResponseError
    assert error.status_code == 503
    for body in (b"<title>503</title>", b"", b'{"error":"server busy, please try again."}'):
        assert type(error_reply(503, {}, body, request="POST /api/me")) is ServerBusyError
