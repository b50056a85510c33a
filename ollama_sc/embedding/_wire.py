"""How texts are asked for and how vectors are read: two ways, with the same values in the end.

``POST /v1/embeddings`` sends the float32 values themselves, in base64: half the bytes, and a tenth
of the time to read. It knows neither `truncate` nor `keep_alive` nor `options`, and servers before
0.12.7 answer it with numbers. ``POST /api/embed`` knows all of it and sends numbers always.

A row is the bytes of its float32 values, little-endian, until its batch is whole.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Mapping
from typing import Any

import msgspec

from ollama_sc import _request
from ollama_sc._errors import ProtocolError
from ollama_sc._fields import EmbedFields
from ollama_sc._http import Request
from ollama_sc._ndjson import decode_reply, not_the_api
from ollama_sc._server_errors import NOT_JSON

Row = bytes
VALUE_BYTES = 4

_NATIVE = "/api/embed"
_QUICK = "/v1/embeddings"
_MINUS_ZERO = re.compile(rb"(?<=[\[,])-0(?=[,\]])")
_QUICK_KNOWS = {"model", "dimensions", "truncate"}


class NoBase64Error(Exception):
    """The server answers with numbers where base64 was asked for."""


class _Item(msgspec.Struct):
    embedding: bytes | list[float]  # bytes: msgspec reads base64 into them
    index: int | None = None


class _QuickReply(msgspec.Struct):
    data: list[_Item]
    error: Any = None


class _NativeReply(msgspec.Struct):
    embeddings: list[list[float]]
    error: Any = None


_quick_decoder = msgspec.json.Decoder(_QuickReply)
_native_decoder = msgspec.json.Decoder(_NativeReply)


class Way:
    """One way to ask a server for vectors."""

    def __init__(self, path: str, body: Mapping[str, Any], *, quick: bool) -> None:
        self.label = f"POST {path}, model {body['model']!r:.100}"
        self._quick = quick
        self._path = path
        self._body = body

    def request(self, texts: list[str]) -> Request:
        """The request for so many texts.

        Raises:
            UnicodeEncodeError: one of them has no form in UTF-8.
        """
        # The hook is for what is a kind of text, such as numpy's.
        body = msgspec.json.encode({**self._body, "input": texts}, enc_hook=str.__str__)
        return Request("POST", self._path, self.label, body)

    def read(self, body: bytes, status: int) -> list[Row]:
        """The rows of a reply.

        Raises:
            ResponseError, ProtocolError: it is none.
            NoBase64Error: see there.
        """
        try:
            if self._quick:
                quick = _quick_decoder.decode(body)
                if quick.error is None:
                    return self._rows(quick.data)
            else:
                native = _native_decoder.decode(_with_signs(body))
                if native.error is None:
                    return [_row(values) for values in native.embeddings]
        except NOT_JSON:
            pass
        # Not what was meant: the usual way tells what it is instead.
        decode_reply(_NativeReply, body, status=status, request=self.label)
        raise not_the_api("not a reply with vectors", body, self.label)

    def _rows(self, items: list[_Item]) -> list[Row]:
        rows: list[Row] = []
        for number, item in enumerate(items):
            if item.index is not None and item.index != number:
                raise ProtocolError("the vectors are out of order", request=self.label)
            if not isinstance(item.embedding, bytes):
                raise NoBase64Error
            rows.append(item.embedding)
        return rows


def ways(model: str, fields: Mapping[str, Any]) -> list[Way]:
    """The ways in which a job can ask, the quickest first.

    Raises:
        RequestError: a field that cannot be right.
    """
    request = _request.build(_NATIVE, model, EmbedFields, fields, input=[])
    assert isinstance(request.body, bytes)
    body: dict[str, Any] = msgspec.json.decode(request.body)
    del body["input"]
    native = Way(_NATIVE, body, quick=False)
    if body.keys() <= _QUICK_KNOWS and body.get("truncate") is not False:
        quick = {name: value for name, value in body.items() if name != "truncate"}
        return [Way(_QUICK, {**quick, "encoding_format": "base64"}, quick=True), native]
    return [native]


def _with_signs(body: bytes) -> bytes:
    """Keep the sign of zero, which the server writes as a whole number."""
    if b"-0," in body or b"-0]" in body:
        return _MINUS_ZERO.sub(b"-0.0", body)
    return body


def _row(values: list[float]) -> Row:
    """The float32 values nearest to some numbers."""
    try:
        return struct.pack(f"<{len(values)}f", *values)
    except OverflowError:  # beyond float32: infinite, which is told where rows are checked
        return array("f", values).tobytes()


def check_rows(rows: list[Row], count: int, dimensions: int, label: str) -> None:
    """Raise ProtocolError unless there are so many rows of that length."""
    if len(rows) != count:
        raise ProtocolError(f"{count} texts were answered with {len(rows)} vectors", request=label)
    for row in rows:
        if len(row) != dimensions * VALUE_BYTES:
            raise ProtocolError(
                f"a vector has {len(row) / VALUE_BYTES:g} dimensions, the first one {dimensions}",
                request=label,
            )
