"""Error objects, and lines that are not the API's, end a stream behind its good parts."""

from __future__ import annotations

from types import NoneType
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc import (
    AuthorizationError,
    ChatResponse,
    ListResponse,
    ModelNotFoundError,
    OllamaError,
    ProgressResponse,
    ProtocolError,
    RateLimitError,
    ResponseError,
)
from ollama_sc._replies.ndjson import decode_reply
from tests.replies.support import DONE, ERROR, HARMLESS, LABEL, A, B, contents, decode, part

# -- error objects ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [([], [A]), ([A], [B]), ([A, B], []), ([HARMLESS], [DONE]), ([A, b"", B], [b"", DONE])],
    ids=["first", "between", "last", "after a harmless one", "blank lines"],
)
@pytest.mark.parametrize(
    "error", [ERROR, b' { "error" : "boom" } ', b'{"status":"x","error":"boom","y":null}']
)
def test_an_error_object_anywhere(before: list[bytes], after: list[bytes], error: bytes) -> None:
    """An error object ends the stream with its text, behind the parts that came before it."""
    body = b"\n".join([*before, error, *after, b""])
    expected = contents(decode([b"\n".join([*before, b""])]))
    for position in range(len(body)):
        outcome = decode([body[:position], body[position:]])
        assert contents(outcome) == expected, position
        assert type(outcome.error) is ResponseError, position
        assert outcome.error.error == "boom"
        assert outcome.error.status_code == 200
        assert outcome.error.request == LABEL
        assert not outcome.complete


ODD = st.sampled_from(
    [
        b'"\\ud83d"',
        b'{"\\udc00":1}',
        b"1e400",
        b"9" * 5000,
        b'[-1e999,"\\ud800\\ud800"]',
        b'"\xff"',
        b"null",
        b"1" * 30,
    ]
)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(ODD, ODD, st.sampled_from(["status", "StatusCode", "signin_url", "\\ud800"]), st.booleans())
def test_an_error_object_in_any_json(odd: bytes, other: bytes, name: str, first: bool) -> None:
    """JSON that Python and JavaScript read is an error object, too, also one with odd things beside."""
    error = b'"error":{"message":"boom","code":' + odd + b"}"
    beside = b'"' + name.encode() + b'":' + other
    body = b"{" + b",".join([beside, error] if first else [error, beside]) + b"}"
    for type_ in (ListResponse, ChatResponse, ProgressResponse, NoneType, Any):
        for after in (b"", b"\n", b' {"x":1}'):
            with pytest.raises(ResponseError, match="boom"):
                decode_reply(type_, body + after, 200, LABEL)
    outcome = decode([A + b"\n" + body + b"\n"])
    assert contents(outcome) == ["a"]
    assert isinstance(outcome.error, ResponseError)
    assert outcome.error.error == "boom"
    str(outcome.error).encode()


@pytest.mark.parametrize("cut", [True, False])
def test_an_error_object_without_newline(cut: bool) -> None:
    """The last line may be an error without its newline, as remote models send it."""
    outcome = decode([A + b"\n", ERROR[:5], ERROR[5:]], cut=cut)
    assert contents(outcome) == ["a"]
    assert type(outcome.error) is ResponseError


@pytest.mark.parametrize("cut", [True, False])
def test_half_an_error_object_is_no_error(cut: bool) -> None:
    """A stream that stops inside an error object is incomplete; nobody can know the error."""
    for position in range(1, len(ERROR)):
        outcome = decode([A + b"\n" + ERROR[:position]], cut=cut)
        assert contents(outcome) == ["a"]
        assert outcome.error is None
        assert not outcome.complete


@pytest.mark.parametrize(
    ("line", "cls"),
    [
        (b'{"error":{"message":"boom"}}', ResponseError),
        (b'{"error":"{\\"error\\":{\\"code\\":400,\\"message\\":\\"boom\\"}}"}', ResponseError),
        (b'{"StatusCode":429,"Status":"429 Too Many","error":"boom"}', RateLimitError),
        (b'{"StatusCode":404,"error":"boom"}', ModelNotFoundError),
        (b'{"StatusCode":401,"error":"boom","signin_url":"https://x"}', AuthorizationError),
        (part(done=True)[:-1] + b',"error":"boom"}', ResponseError),
    ],
)
def test_error_objects_of_every_shape(line: bytes, cls: type) -> None:
    """Remote models' errors in a stream are of the class that their own status says."""
    outcome = decode([A + b"\n" + line + b"\n"])
    assert type(outcome.error) is cls
    assert outcome.error.error == "boom"


@pytest.mark.parametrize(
    "line",
    [
        HARMLESS,
        part('he said "error": no'),
        part("x", role="error"),
        part("x")[:-1] + b',"error":null}',
        part("x")[:-1] + b',"new_field":{"error":"not ours"}}',
        part("x")[:-1] + b',"status":"error"}',
        part("x")[:-1] + b',"_debug_info":{"rendered_template":"\\"error\\""}}',
    ],
)
def test_the_word_error_elsewhere_is_no_error(line: bytes) -> None:
    """Only a key "error" of the object itself, with a value, makes it an error."""
    outcome = decode([A + b"\n" + line + b"\n" + DONE + b"\n"])
    assert len(outcome.parts) == 3
    assert outcome.error is None
    assert outcome.complete
    assert decode([line], cut=False).error is None


# -- lines that are not the API's ------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b"<html><body>502</body></html>",
        b"5",
        b"null",
        b'"text"',
        b"[]",
        b"[" + A + b"]",
        b"{}",
        b'{"model":"x","done":false}',
        b'{"message":"text","done":false}',
        b'{"message":{"role":5},"done":false}',
        b'{"message":{"role":"a"},"done":"no"}',
        b"\xef\xbb\xbf" + A,
        A[:-1],
        A + b"}",
        A + b" x",
        b"data: " + A,
        b"\x00",
        b"\x1f\x8b\x08\x00",
        A.replace(b'"a"', b'"\xff"'),
        A.replace(b'"a"', b'"\xed\xa0\x80"'),
        A.replace(b'"a"', b'"\x01"'),
        A.replace(b'"a"', b"NaN"),
    ],
    ids=ascii,
)
def test_a_line_that_is_not_the_apis(line: bytes) -> None:
    """A bad line is a ProtocolError that shows it, behind the good parts before it."""
    body = A + b"\n" + B + b"\n" + line + b"\n" + DONE + b"\n"
    for split in (len(body), len(A) + 1, len(A + B) + 2, len(A + B) + 3):
        outcome = decode([body[:split], body[split:]])
        assert contents(outcome) == ["a", "b"]
        assert type(outcome.error) is ProtocolError
        assert outcome.error.request == LABEL
        assert outcome.error.excerpt == line[:200]
        assert outcome.error.__cause__ is not None
        str(outcome.error).encode()  # no half characters
        assert not outcome.complete


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"message":{"content":"x"},"done":true,}', "JSON is malformed: trailing comma"),
        (b'{"message":{"content":"x"},"done":true}{}', "JSON is malformed: trailing characters"),
        (b'{"message":{"content":"x"},"eval_count":NaN}', "JSON is malformed: invalid character"),
        (b'{"message":{"new":' + b"[" * 5000 + b"]" * 5000 + b"}}", "maximum recursion"),
    ],
    ids=["comma", "two objects", "NaN", "deep"],
)
def test_what_is_no_json_is_told_as_that(line: bytes, what: str) -> None:
    """And not as a field of the API that could be missing from it, which is no fault."""
    error = decode([line + b"\n"]).error
    assert type(error) is ProtocolError
    assert str(error).startswith(f"{LABEL}: not JSON ({what}")


@pytest.mark.parametrize(
    ("line", "cls"),
    [
        (b"garbage", ProtocolError),
        (b"<html>", ProtocolError),
        (b"5", ProtocolError),
        (b"[]", ProtocolError),
        (b"{}", ProtocolError),
        (A + b"}", ProtocolError),
        (A[:-1], type(None)),
        (A[:30], type(None)),
        (A.partition(b'a"')[0] + b"\xc3", type(None)),
        (A.partition(b'a"')[0] + b"\xf0\x9f\x98", type(None)),
        (A.replace(b'"a"', b'"\xc3a"'), ProtocolError),
        (A.replace(b'"a"', b'"a\xff"'), ProtocolError),
        (A.replace(b'"a"', b'"\xed\xa0\x80"'), ProtocolError),
    ],
    ids=ascii,
)
def test_a_bad_last_line_of_a_reply_that_ended(line: bytes, cls: type) -> None:
    """Where a reply ends properly, half an object is merely incomplete, and garbage an error."""
    outcome = decode([A + b"\n" + line], cut=False)
    assert contents(outcome) == ["a"]
    assert type(outcome.error) is cls
    assert not outcome.complete


@pytest.mark.parametrize("line", [b"garbage", b"5", A + b"}", b"\xff", b"[" * 100], ids=ascii)
def test_a_bad_last_line_of_a_broken_connection(line: bytes) -> None:
    """Where the connection broke, what is wrong with the last line is that, and no more."""
    outcome = decode([A + b"\n" + line], cut=True)
    assert contents(outcome) == ["a"]
    assert outcome.error is None
    assert not outcome.complete


def test_a_whole_last_part_of_a_broken_connection_counts() -> None:
    """A terminal object that arrived is the end, although its newline did not."""
    assert decode([A + b"\n" + DONE], cut=True).complete


def deep(levels: int, *, inside: str) -> bytes:
    nested = b"[" * levels + b"]" * levels
    return {
        "nothing": nested,
        "an object": b'{"a":' * levels + b"1" + b"}" * levels,
        "an unknown field": A[:-1] + b',"new":' + nested + b"}",
        "an error": b'{"error":' + nested + b"}",
        "an error's text": msgspec.json.encode({"error": '{"a":' + nested.decode()}),
        "arguments": part(
            tool_calls=[{"function": {"name": "f", "arguments": {"a": "DEEP"}}}]
        ).replace(b'"DEEP"', nested),
        "arguments beside a null": part(
            thinking=5, tool_calls=[{"function": {"name": "f", "arguments": {"a": "DEEP"}}}]
        )
        .replace(b'"DEEP"', nested)
        .replace(b'"content": ""', b'"content": null')
        .replace(b'"thinking": 5', b'"thinking": null'),
    }[inside]


@pytest.mark.parametrize(
    "inside",
    [
        "nothing",
        "an object",
        "an unknown field",
        "an error",
        "an error's text",
        "arguments",
        "arguments beside a null",
    ],
)
@pytest.mark.parametrize("levels", [300, 600, 900, 100_000])
def test_deep_nesting_is_a_part_or_an_error(inside: str, levels: int) -> None:
    """However deep a line is nested, nothing but a part or an OllamaError comes of it."""
    line = deep(levels, inside=inside)
    for outcome in (decode([A + b"\n" + line + b"\n"]), decode([A + b"\n" + line])):
        assert contents(outcome)[0] == "a"
        assert len(outcome.parts) == 2 or isinstance(outcome.error, OllamaError)
    cut = decode([A + b"\n" + line[: len(line) // 2]])
    assert contents(cut) == ["a"]
