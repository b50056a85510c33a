"""A server's error replies into exceptions: every shape that an error can have."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc import (
    AuthorizationError,
    ModelNotFoundError,
    RateLimitError,
    ResponseError,
    ServerBusyError,
)
from ollama_sc._replies.errors import error_object, error_reply
from tests.support import recorded_body, recording


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


LABEL = "POST /api/chat, model 'x'"
SIGN_IN = "https://ollama.com/connect?name=box&key=c3NoLWVk"


def reply(status: int, body: bytes, **headers: str) -> ResponseError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return error_reply(status, httpx.Headers(named), body, request=LABEL)


def in_json(error: object, **others: object) -> bytes:
    return msgspec.json.encode({"error": error, **others})


# The table of section 3 of ollama-wire.md: what has a text of its own.
R, N, A, B = ResponseError, ModelNotFoundError, AuthorizationError, ServerBusyError
TABLE: list[tuple[int, type[ResponseError], str]] = [
    (400, R, "missing request body"),
    (400, R, "invalid character 'x' looking for beginning of value"),
    (400, R, "json: cannot unmarshal string into Go struct field ChatRequest.messages"),
    (404, N, "model 'x' not found"),
    (404, N, "model 'x:latest' not found"),
    (404, N, 'model "x" not found, try pulling it first'),
    (404, N, "model '' not found"),
    (404, N, 'model "x" not found'),
    (400, R, "model is required"),
    (400, R, "invalid model name"),
    (400, R, 'name "x" is invalid'),
    (400, R, 'source "x" is invalid'),
    (400, R, 'destination "x" is invalid'),
    (400, R, '"x" does not support thinking'),
    (400, R, "registry.ollama.ai/library/x:latest does not support tools"),
    (400, R, "registry.ollama.ai/library/x:latest does not support insert"),
    (400, R, '"x" does not support chat'),
    (400, R, '"x" does not support generate'),
    (
        400,
        R,
        'invalid think value: "v" (must be "high", "medium", "low", "max", true, or false)',
    ),
    (
        400,
        R,
        'think must be a boolean or string ("high", "medium", "low", "max", true, or false)',
    ),
    (400, R, "top_logprobs must be between 0 and 20"),
    (400, R, "raw mode does not support template, system, or context"),
    (400, R, "image generation models are not currently supported"),
    (400, R, "this model only supports one image while more than one image requested"),
    (500, R, "this model only supports one image while more than one image requested"),
    (400, R, 'time: invalid duration "abc"'),
    (400, R, 'time: missing unit in duration "3600"'),
    (400, R, "Unsupported type: 'bool'"),
    (500, R, 'invalid format: "\\"yaml\\""; expected "json" or a valid JSON Schema object'),
    (500, R, 'option "temperature" must be of type float32'),
    (500, R, "template: :1: unclosed action"),
    (
        400,
        R,
        "the prompt is longer than the context length currently available to the model; shorten "
        "the prompt, adjust the context length in settings, or use a model with a longer context "
        "length",
    ),
    (400, R, "invalid input type"),
    (400, R, "the input length exceeds the context length"),
    (400, R, "input after truncation exceeds maximum context length"),
    (400, R, "input exceeds maximum context length and cannot be truncated further"),
    (400, R, "embedding contains NaN or Inf values"),
    (400, R, "invalid digest format"),
    (400, R, 'digest mismatch, expected "sha256:a", got "sha256:b"'),
    (400, R, "file path must be relative"),
    (400, R, "--draft-quantize requires a DRAFT model"),
    (400, R, "neither 'from' or 'files' was specified"),
    (400, R, "unknown type"),
    (400, R, "bad remote"),
    (400, R, "template error: unclosed action"),
    (400, R, "DRAFT cannot be used with remote models"),
    (400, R, "only one adapter is currently supported"),
    (400, R, "supplied file was not in GGUF format"),
    (500, R, "quantization is only supported for F16, BF16 and F32 models"),
    (
        500,
        R,
        "unsupported quantization type ZZZ - supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0",
    ),
    (500, R, "open /m/blobs/sha256-1: no such file or directory"),
    (500, R, "pull model manifest: file does not exist"),
    (500, R, "pull model manifest: 429: <html>"),
    (500, R, "max retries exceeded: EOF"),
    (500, R, "digest mismatch, file must be downloaded again: want a, got b"),
    (500, R, "unqualified name: x"),
    (500, R, "unauthorized: access denied"),
    (500, R, 'realm host "a" does not match original host "b"'),
    (500, R, "error starting llama-server: exit status 1"),
    (500, R, "llama-server process has terminated: signal: killed"),
    (500, R, "timed out waiting for llama-server to start - progress 0.00"),
    (500, R, "unable to load full model on GPU"),
    (
        500,
        R,
        "model runner has unexpectedly stopped, this may be due to resource limitations or an "
        "internal error, check ollama server logs for details",
    ),
    (500, R, "an error was encountered while running the model: EOF"),
    (403, A, "ollama cloud is disabled: remote model is unavailable"),
    (403, A, "ollama cloud is disabled: remote model details are unavailable"),
    (403, A, "ollama cloud is disabled: web search is unavailable"),
    (403, A, "ollama cloud is disabled: web fetch is unavailable"),
    (401, A, "unauthorized"),
    (400, R, "this server cannot run this remote model"),
    (401, A, "you are not currently signed in"),
    (500, R, "there was an error signing out"),
    (503, B, "account unavailable"),
    (502, R, "dial tcp 192.0.2.1:443: connect: connection refused"),
    (503, B, "server busy, please try again.  maximum pending requests exceeded"),
    (499, R, "request canceled"),
    (429, RateLimitError, "weekly limit reached"),
]


@pytest.mark.parametrize(("status", "cls", "text"), TABLE, ids=lambda value: str(value)[:30])
def test_each_error_of_the_server(status: int, cls: type[ResponseError], text: str) -> None:
    """Every documented error is of the class that its status says, with the server's very text."""
    error = reply(status, in_json(text))
    assert type(error) is cls
    assert error.error == text
    assert error.status_code == status
    assert error.request == LABEL
    advice = "; pull it first" if cls is ModelNotFoundError and "pull" not in text else ""
    assert str(error) == f"{LABEL}: {text} (HTTP {status}){advice}"


@pytest.mark.parametrize(
    ("name", "status", "cls", "text"),
    [
        ("chat-missing-model", 404, N, "model 'nope' not found"),
        ("show-missing", 404, N, "model 'nope' not found"),
        ("copy-missing", 404, N, 'model "nope" not found'),
        ("delete-missing", 404, N, "model 'nope' not found"),
        ("generate-missing-model", 404, N, "model 'nope' not found"),
        ("embed-missing-model", 404, N, 'model "nope" not found, try pulling it first'),
        ("chat-empty-body", 400, R, "missing request body"),
        ("chat-think-unsupported", 400, R, '"gemma3:270m" does not support thinking'),
        (
            "chat-tools-unsupported",
            400,
            R,
            "registry.ollama.ai/library/gemma3:270m does not support tools",
        ),
        ("chat-bad-option", 500, R, 'option "temperature" must be of type float32'),
        ("embed-batch", 500, R, "Failed to create new sequence: no input provided"),
        ("not-found", 404, R, "HTTP 404 Not Found: 404 page not found"),
        ("wrong-method", 405, R, "HTTP 405 Method Not Allowed: 405 method not allowed"),
    ],
)
def test_recorded_errors(name: str, status: int, cls: type[ResponseError], text: str) -> None:
    """What a real server answered becomes the right class with its text."""
    assert recording(name).startswith(f"HTTP/1.1 {status} ".encode())
    error = reply(status, recorded_body(name))
    assert type(error) is cls
    assert error.error == text
    assert error.status_code == status


# -- wrappings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text"),
    [
        # the runner's own JSON, in a string
        ('{"error":{"code":400,"message":"too long","type":"exceed"}}', "too long"),
        ('{"error":"too long"}', "too long"),
        ('{"error":{"code":400}}', '{"code":400}'),
        # looks like JSON and is none, or is no error
        ("{", "{"),
        ("{not json}", "{not json}"),
        ('{"a":1}', '{"a":1}'),
        ("[1]", "[1]"),
        # compatible APIs
        ({"message": "no such model", "type": "not_found_error", "code": None}, "no such model"),
        ({"code": 5}, '{"code":5}'),
        ({"message": ""}, '{"message":""}'),
        ({"message": 5}, '{"message":5}'),
        # odd
        (5, "5"),
        (["a", 1], '["a",1]'),
        ("é漢🙂", "é漢🙂"),
    ],
)
def test_the_readable_part_of_an_error_is_its_text(error: object, text: str) -> None:
    """Whatever JSON is wrapped around it, the text is what a person can read."""
    found = reply(400, in_json(error))
    assert found.error == text
    assert str(found) == f"{LABEL}: {text} (HTTP 400)"


@pytest.mark.parametrize("error", [None, ""])
def test_an_error_that_says_nothing_gets_the_phrase_of_its_status(error: object) -> None:
    """A null or empty error text is the HTTP phrase, not the word "null"."""
    found = reply(500, in_json(error))
    assert found.error == "HTTP 500 Internal Server Error"
    assert str(found) == f"{LABEL}: HTTP 500 Internal Server Error"


@pytest.mark.parametrize(
    ("status", "cls"), [(400, R), (401, A), (403, A), (404, N), (429, RateLimitError), (503, B)]
)
def test_a_remote_models_status_counts(status: int, cls: type[ResponseError]) -> None:
    """A relayed error has the status of the server that it comes from, in a reply or a stream."""
    body = {"StatusCode": status, "Status": f"{status} Something", "error": "from afar"}
    for error in (
        reply(502, msgspec.json.encode(body)),
        error_object(body, 200, request=LABEL),
    ):
        assert type(error) is cls
        assert error.status_code == status
        assert error.error == "from afar"


@pytest.mark.parametrize("status", ["429", None, 429.0, [429], True, 0, -1, 10**25])
def test_a_relayed_status_that_is_none_is_ignored(status: object) -> None:
    """A StatusCode that is no HTTP status leaves the reply's own in force."""
    error = reply(503, in_json("from afar", StatusCode=status))
    assert type(error) is ServerBusyError
    assert error.status_code == 503


def test_sign_in_address() -> None:
    """A 401 says where a person can sign in, where the server does."""
    error = reply(401, in_json("unauthorized", signin_url=SIGN_IN))
    assert isinstance(error, AuthorizationError)
    assert error.signin_url == SIGN_IN
    for body in (in_json("unauthorized"), in_json("unauthorized", signin_url=None)):
        error = reply(401, body)
        assert isinstance(error, AuthorizationError)
        assert error.signin_url is None
    inside = error_object(
        {"StatusCode": 401, "error": "unauthorized", "signin_url": SIGN_IN}, 200, request=LABEL
    )
    assert isinstance(inside, AuthorizationError)
    assert inside.signin_url == SIGN_IN


# -- bodies that are no error object -------------------------------------------------------------


@pytest.mark.parametrize("body", [b"5", b"[]", b"null", b'"text"', b"{}", b'{"message":"x"}'])
def test_json_without_an_error_is_shown_as_it_is(body: bytes) -> None:
    """JSON that is no error object is shown, behind the status's phrase."""
    error = reply(500, body)
    assert type(error) is ResponseError
    assert error.error == f"HTTP 500 Internal Server Error: {body.decode()}"


@pytest.mark.parametrize(
    ("status", "cls", "text"),
    [
        (400, R, "HTTP 400 Bad Request"),
        (401, A, "HTTP 401 Unauthorized"),
        (403, A, "HTTP 403 Forbidden: an Ollama server refuses a Host or Origin"),
        (404, R, "HTTP 404 Not Found"),
        (429, RateLimitError, "HTTP 429 Too Many Requests"),
        (500, R, "HTTP 500 Internal Server Error"),
        (503, B, "HTTP 503 Service Unavailable"),
        (499, R, "HTTP 499"),
        (799, R, "HTTP 799"),
    ],
)
@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_an_empty_body_is_its_status(
    status: int, cls: type[ResponseError], text: str, body: bytes
) -> None:
    """With nothing in the body, the status alone says what happened."""
    error = reply(status, body)
    assert type(error) is cls
    assert error.status_code == status
    assert error.error.startswith(text)
    assert str(error) == f"{LABEL}: {error.error}"


NGINX = b"""<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad
Gateway</h1></center>\r\n<hr><center>nginx/1.25</center>\r\n</body>\r\n</html>\r\n"""


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (NGINX, "502 Bad Gateway"),
        (b"<TITLE lang=en>\n  Gone &amp; away\n</TITLE>", "Gone & away"),
        (b"<html><body><p>upstream &lt;x&gt;</p> died</body></html>", "upstream <x> died"),
        (b"no healthy upstream", "no healthy upstream"),
        (b"line one\nline two\n", "line one line two"),
        (b"<html", "<html"),
        ("Fehler ü".encode("latin-1"), "Fehler \ufffd"),
    ],
)
def test_the_page_of_a_proxy_is_one_readable_line(body: bytes, text: str) -> None:
    """Of a proxy's page, the title or the text is shown, on one line."""
    error = reply(502, body)
    assert type(error) is ResponseError
    assert error.error == f"HTTP 502 Bad Gateway: {text}"


def test_a_missing_page_is_no_missing_model() -> None:
    """A 404 without an error object means a wrong address, so it is no ModelNotFoundError."""
    for body in (b"404 page not found", b"", b"<title>Not Found</title>", b"{}"):
        assert type(reply(404, body)) is ResponseError


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error":"\xff"}', "\ufffd"),
        (b'{"error":"\\ud800"}', "\ufffd"),
        (b"\xff\xfe\x00", "HTTP 500 Internal Server Error: \ufffd\ufffd\x00"),
    ],
)
def test_bytes_that_are_no_text_are_an_error_reply_all_the_same(body: bytes, text: str) -> None:
    """Invalid UTF-8 and broken escapes lose nothing but themselves."""
    error = reply(500, body)
    assert type(error) is ResponseError
    assert error.error == text
    str(error).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"x" * 5_000_000,
        b"<p>" + b"word " * 1_000_000,
        b"<title>" + b"y" * 1_000_000,
        b'{"error":"' + b"x" * 65_000,  # cut off where the client stops reading
    ],
    ids=["text", "page", "title", "cut JSON"],
)
def test_an_enormous_page_is_shown_in_part(body: bytes) -> None:
    """Of a page without end, a few hundred characters are kept."""
    error = reply(500, body)
    assert len(str(error)) < 700
    assert str(error).endswith("…")


@pytest.mark.parametrize(
    "body",
    [b"<" * 65_536, b"<title" * 11_000, b"<title>" * 9_000, b"&" * 65_536, b"&#" * 30_000],
    ids=["<", "<title", "<title>", "&", "&#"],
)
def test_a_hostile_page_costs_little_time(body: bytes) -> None:
    """No page makes reading it take the square of its length: other requests wait meanwhile."""
    began = time.process_time()
    reply(502, body)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60_000,
        b'{"error":' * 7_000,
        b'{"error":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        msgspec.json.encode({"error": '{"a":' + "[" * 30_000}),
        msgspec.json.encode({"error": '{"error":' * 5_000}),
    ],
    ids=["list", "objects", "error", "in a string", "in a string, objects"],
)
def test_nesting_without_end_is_an_error_reply(body: bytes) -> None:
    """JSON that is nested deeper than Python can follow is an error reply like any other."""
    error = reply(500, body)
    assert type(error) is ResponseError
    assert error.status_code == 500


# -- Retry-After ---------------------------------------------------------------------------------


def retry_after(value: str) -> float | None:
    error = reply(429, in_json("slow down"), Retry_After=value)
    assert type(error) is RateLimitError
    return error.retry_after


@pytest.mark.parametrize(
    ("value", "seconds"), [("0", 0.0), ("5", 5.0), (" 120 ", 120.0), ("007", 7.0)]
)
def test_retry_after_in_seconds(value: str, seconds: float) -> None:
    """A number is that many seconds."""
    assert retry_after(value) == seconds


@pytest.mark.parametrize("zone", ["GMT", "-0000", "+0000"])
def test_retry_after_as_a_date(zone: str) -> None:
    """A date is the time until then, and one that has passed is none."""
    now = datetime.now(UTC)
    for minutes, low, high in ((2, 110, 120), (-2, 0, 0)):
        text = format_datetime(now + timedelta(minutes=minutes)).replace("+0000", zone)
        seconds = retry_after(text)
        assert seconds is not None
        assert low <= seconds <= high


@pytest.mark.parametrize(
    "value",
    ["", "soon", "-5", "5.5", "1e3", "nan", "inf", "١", "²", "5 seconds", "Wed", "Wed, 99 Oct 2099"]
    + ["Wed, 21 Oct 99999 07:28:00 GMT", "Wed, 21 Oct 2099 99:99:99 GMT", ",,,,", "x" * 10_000],
    ids=lambda text: text[:20],
)
def test_a_retry_after_that_makes_no_sense_is_none(value: str) -> None:
    """What is neither a whole number nor a date is as good as absent."""
    headers = {"retry-after": value}  # as it is: httpx.Headers would refuse some of these
    error = error_reply(429, headers, in_json("slow down"), request=LABEL)
    assert isinstance(error, RateLimitError)
    assert error.retry_after is None


@pytest.mark.parametrize(
    "value", ["1 Oct 99999999999999999999 07:28", "1 Jan 2020 00:00:00 +" + "9" * 30, "9" * 5000]
)
def test_numbers_without_end_in_a_retry_after_do_no_harm(value: str) -> None:
    """A number that no machine word holds raises nothing of its own."""
    seconds = retry_after(value)
    assert seconds is None or seconds >= 0


def test_without_retry_after_there_is_none() -> None:
    """Most servers do not say it."""
    error = reply(429, in_json("slow down"))
    assert isinstance(error, RateLimitError)
    assert error.retry_after is None
    inside = error_object({"StatusCode": 429, "error": "slow down"}, 200, request=LABEL)
    assert isinstance(inside, RateLimitError)
    assert inside.retry_after is None


# -- in the middle of a stream -------------------------------------------------------------------


def test_an_error_in_a_stream_has_the_streams_status() -> None:
    """An error object after a good start keeps the status 200 that the stream began with."""
    error = error_object({"error": "pull model manifest: EOF"}, 200, request=LABEL)
    assert type(error) is ResponseError
    assert error.status_code == 200
    assert error.error == "pull model manifest: EOF"


# -- anything ------------------------------------------------------------------------------------

ANY_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.integers(100, 999), st.binary(max_size=200), st.text(max_size=30))
def test_any_bytes_are_some_error(status: int, body: bytes, retry: str) -> None:
    """Whatever a server sends with an error status, one exception with that status comes out."""
    error = error_reply(status, {"retry-after": retry}, body, request=LABEL)
    assert isinstance(error, ResponseError)
    assert error.status_code == status
    assert str(error).startswith(f"{LABEL}: ")
    assert error.error


@settings(max_examples=150, derandomize=True, deadline=None)
@given(ANY_JSON, ANY_JSON, ANY_JSON, st.sampled_from([200, 400, 401, 404, 429, 500, 503]))
def test_any_error_object_is_some_error(
    error: Any, upstream: Any, signin: Any, status: int
) -> None:
    """Whatever JSON stands for the error, its status and its address, one exception comes out."""
    body = {"error": error, "StatusCode": upstream, "signin_url": signin}
    found = error_reply(status, {}, msgspec.json.encode(body), request=LABEL)
    assert isinstance(found, ResponseError)
    assert isinstance(found.error, str)
    assert found.error
    assert isinstance(found.status_code, int)
    assert isinstance(getattr(found, "signin_url", None), str | None)
