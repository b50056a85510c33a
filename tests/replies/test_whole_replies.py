"""A reply in one piece becomes its type, or an error."""

from __future__ import annotations

import gc
import weakref
from codecs import BOM_UTF8
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc import (
    EmbedResponse,
    ListResponse,
    ModelNotFoundError,
    OllamaError,
    ProtocolError,
    ResponseError,
    VersionResponse,
)
from ollama_sc._replies.errors import error_reply
from ollama_sc._replies.ndjson import check_type
from tests.replies.support import ERROR, LABEL, reply


def test_a_whole_reply() -> None:
    """A reply in one piece becomes its type, white space around it notwithstanding."""
    assert reply(VersionResponse, b' {"version":"0.33.0"}\r\n').version == "0.33.0"
    assert reply(EmbedResponse, b'{"model":"m","embeddings":[]}').embeddings == []
    assert reply(Any, b'{"a":[1,null]}') == {"a": [1, None]}
    assert reply(dict[str, int], b'{"a":1}') == {"a": 1}


def test_a_reply_behind_a_byte_order_mark() -> None:
    """Python and JavaScript read it where a reply is in one piece; so does a failure's."""
    assert reply(VersionResponse, BOM_UTF8 + b'{"version":"1"}').version == "1"
    assert reply(ListResponse, BOM_UTF8 + b'{"models":null}').models == []
    assert reply(dict[str, int], BOM_UTF8 + b'{"a":1}') == {"a": 1}
    with pytest.raises(ProtocolError, match="missing required field"):
        reply(VersionResponse, BOM_UTF8 + b"{}")
    with pytest.raises(ResponseError, match="boom"):
        reply(VersionResponse, BOM_UTF8 + ERROR)
    failure = error_reply(404, {}, BOM_UTF8 + b'{"error":"model not found"}', request=LABEL)
    assert type(failure) is ModelNotFoundError
    assert failure.error == "model not found"


@pytest.mark.parametrize(
    "body", [b'{"models":null}', b'{"models":[]}', b"{}", b'{"models":[],"x":1}']
)
def test_a_list_that_is_null_is_empty(body: bytes) -> None:
    """`models: null`, which some servers send, is an empty list, and so is its absence."""
    assert reply(ListResponse, body).models == []


def test_a_listed_model_with_nulls() -> None:
    """A model whose manifest lacks much is listed with what there is."""
    body = b"""{"models":[{"name":"x","model":"x","modified_at":"0001-01-01T00:00:00Z","size":0,
        "digest":"","details":{"families":null,"family":null,"context_length":null},
        "capabilities":null},{"name":"y","details":null,"modified_at":null,"size":null}]}"""
    first, second = reply(ListResponse, body).models
    assert first.details.families is None
    assert first.capabilities is None
    assert second.details is None
    assert second.modified_at is None


@pytest.mark.parametrize("status", [200, 201, 299])
def test_an_error_object_in_a_whole_reply(status: int) -> None:
    """An error object is an error whatever the status, with that status."""
    for type_ in (VersionResponse, Any, dict[str, str]):
        with pytest.raises(ResponseError) as caught:
            reply(type_, ERROR, status)
        assert caught.value.status_code == status
        assert caught.value.error == "boom"


def test_an_error_that_is_null_is_none_in_a_whole_reply() -> None:
    """`error: null` says that there is no error."""
    assert reply(VersionResponse, b'{"version":"1","error":null}').version == "1"


@pytest.mark.parametrize(
    "body",
    [b"", b"  ", b"\xff", b"{", b"[]", b"null", b"<html>", b'{"version":5}', b'{"version":null}']
    + [b"\xff\xfe{\0}\0", b'{"version":"1"}{"version":"2"}', b'{"version":"1"} x', b"{" * 100_000]
    + [b'{"error":' + b"[" * 100_000, b'{"error":"x"', b'{"version":"1","error":' + b"[" * 900],
    ids=lambda body: ascii(body)[:30],
)
def test_a_whole_reply_that_is_not_the_apis(body: bytes) -> None:
    """Anything else is a ProtocolError with the beginning of what arrived."""
    with pytest.raises(ProtocolError) as caught:
        reply(VersionResponse, body)
    assert caught.value.excerpt == body[:200]
    assert caught.value.request == LABEL
    assert len(str(caught.value)) < 1200


def test_the_excerpt_of_binary_garbage_can_be_printed() -> None:
    """Bytes that are no text are shown as escapes."""
    with pytest.raises(ProtocolError) as caught:
        reply(VersionResponse, b"\x1b[2J\xff\xfe\x00\n")
    assert str(caught.value).isprintable()


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.binary(max_size=200))
def test_any_body_is_a_reply_or_an_ollama_error(body: bytes) -> None:
    """Arbitrary bytes as a whole reply are the type asked for, or an OllamaError."""
    try:
        found = reply(VersionResponse, body)
    except OllamaError as error:
        assert error.request == LABEL
    else:
        assert isinstance(found, VersionResponse)


def test_types_made_at_run_time_do_not_stay() -> None:
    """Not more than some hundreds of them."""
    alive = []
    for number in range(600):
        made = msgspec.defstruct(f"Made{number}", [("x", int)])
        check_type(made)
        alive.append(weakref.ref(made))
    del made
    gc.collect()
    assert sum(one() is not None for one in alive) <= 256
