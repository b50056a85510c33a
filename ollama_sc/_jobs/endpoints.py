"""How texts are sent and how vectors are read: two endpoints that give the same values.

``POST /v1/embeddings`` sends the float32 values themselves, in base64: half the bytes, and a tenth
of the time to decode. It has neither `truncate` nor `keep_alive` nor `options`, and servers before
0.12.7 answer it with JSON numbers. ``POST /api/embed`` has all of them, and always sends JSON
numbers.

Until its batch is complete, a vector is the bytes of its float32 values, little-endian; there are
none where the server gave no vector for a text.
"""

from __future__ import annotations

import re
import struct
from array import array
from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ollama_sc._api import arguments
from ollama_sc._api.fields import EmbedFields
from ollama_sc._errors import ProtocolError
from ollama_sc._http.messages import Request
from ollama_sc._replies.errors import NOT_JSON
from ollama_sc._replies.ndjson import decode_reply, protocol_error, raise_error_object

from . import odd_vectors

VectorBytes = bytes  # of float32 values, little-endian
VALUE_BYTES = 4

_NATIVE = "/api/embed"
_BASE64 = "/v1/embeddings"
_NEGATIVE_ZERO = re.compile(rb"(?<=[\[,])-0(?=[,\]])")
_BASE64_FIELDS = {"model", "dimensions", "truncate"}


class NoBase64Error(Exception):
    """The server answered with JSON numbers where base64 was requested."""


class _Item(msgspec.Struct):
    embedding: bytes | list[float]  # bytes: msgspec reads base64 into them
    index: int | None = None


class _Base64Reply(msgspec.Struct):
    data: list[_Item]
    error: Any = None


class _NativeReply(msgspec.Struct):
    embeddings: list[list[float]]
    error: Any = None


_base64_decoder = msgspec.json.Decoder(_Base64Reply)
_native_decoder = msgspec.json.Decoder(_NativeReply)


class Endpoint:
    """One of the endpoints that give vectors.

    Args:
        path: below the server's host.
        body: what each request sends beside its texts, the model included.
        base64: whether the vectors come as base64.

    Attributes:
        label: what errors call a request to it.
    """

    def __init__(self, path: str, body: Mapping[str, Any], *, base64: bool) -> None:
        self.label = f"POST {path}, model {body['model']!r:.100}"
        self._base64 = base64
        self._path = path
        self._body = body

    def request(self, texts: list[str]) -> Request:
        """Encode the request for some texts.

        Raises:
            UnicodeEncodeError: one of them cannot be encoded in UTF-8.
        """
        # The hook is for subclasses of `str`, such as numpy's.
        body = msgspec.json.encode({**self._body, "input": texts}, enc_hook=str.__str__)
        return Request("POST", self._path, self.label, body)

    def read(self, body: bytes, status: int) -> list[VectorBytes]:
        """Decode the vectors of a reply.

        Raises:
            ResponseError: the reply is an error of the server's.
            ProtocolError: it is neither vectors nor an error.
            NoBase64Error: its vectors are JSON numbers, and base64 was requested.
        """
        body = body.removeprefix(BOM_UTF8)
        try:
            if self._base64:
                base64_reply = _base64_decoder.decode(body)
                if base64_reply.error is None:
                    return self._rows(base64_reply.data)
            else:
                native_reply = _native_decoder.decode(_keep_negative_zeros(body))
                if native_reply.error is None:
                    return [_pack_float32(values) for values in native_reply.embeddings]
        except NOT_JSON:
            raise_error_object(body, status, self.label)
            if (rows := self._read_leniently(body)) is not None:
                return rows
        # No vectors: decoded like any other reply, it raises what it is instead.
        type_ = _Base64Reply if self._base64 else _NativeReply
        decode_reply(type_, body, status, self.label)
        raise protocol_error("not a reply with vectors", body, self.label)

    def _rows(self, items: Sequence[_Item]) -> list[VectorBytes]:
        """The vectors of a reply in base64, in the order of the texts."""
        rows: list[VectorBytes] = []
        in_order = True
        for number, item in enumerate(items):
            if item.index is not None and item.index != number:
                in_order = False
            if not isinstance(item.embedding, bytes):
                if item.embedding:
                    raise NoBase64Error
                item.embedding = b""
            rows.append(item.embedding)
        return rows if in_order else self._sorted(rows, [item.index for item in items])

    def _sorted(self, rows: list[VectorBytes], indexes: Sequence[int | None]) -> list[VectorBytes]:
        """The vectors of a reply whose indexes are not simply those of the texts.

        Raises:
            ProtocolError: the indexes do not say to which text each vector belongs.
        """
        places = odd_vectors.places(indexes)
        if places is None:
            raise ProtocolError("the vectors are out of order", request=self.label)
        return [rows[place] for place in places]

    def _read_leniently(self, body: bytes) -> list[VectorBytes] | None:
        """The vectors of a reply that is not quite the API's; ``None`` where there are none."""
        found = odd_vectors.parse(body)
        if not self._base64:
            vectors = odd_vectors.native(found)
            return None if vectors is None else [_pack_float32(values) for values in vectors]
        items = odd_vectors.openai(found)
        if items is None:
            return None
        if any(isinstance(item.embedding, list) for item in items):
            raise NoBase64Error
        rows = [item.embedding for item in items if isinstance(item.embedding, bytes)]
        return self._sorted(rows, [item.index for item in items])


def endpoints_for(model: str, fields: Mapping[str, Any]) -> list[Endpoint]:
    """The endpoints that a job can use, the fastest first.

    Raises:
        RequestError: a field that cannot be right.
    """
    request = arguments.build_request(_NATIVE, model, EmbedFields, fields, input=[])
    assert isinstance(request.body, bytes)
    body: dict[str, Any] = msgspec.json.decode(request.body)
    del body["input"]
    native = Endpoint(_NATIVE, body, base64=False)
    if body.keys() <= _BASE64_FIELDS and body.get("truncate") is not False:
        sent = {name: value for name, value in body.items() if name != "truncate"}
        return [Endpoint(_BASE64, {**sent, "encoding_format": "base64"}, base64=True), native]
    return [native]


def _keep_negative_zeros(body: bytes) -> bytes:
    """Keep the sign of negative zeros, which the server writes as an integer: ``-0``."""
    if b"-0," in body or b"-0]" in body:
        return _NEGATIVE_ZERO.sub(b"-0.0", body)
    return body


def _pack_float32(values: list[float]) -> VectorBytes:
    """The nearest float32 values, as bytes."""
    try:
        return struct.pack(f"<{len(values)}f", *values)
    except OverflowError:  # beyond float32, hence infinite, which the check of vectors reports
        return array("f", values).tobytes()


def check_rows(rows: list[VectorBytes], count: int, dimensions: int, label: str) -> None:
    """Raise ProtocolError unless there are `count` vectors, of `dimensions` values each or none."""
    if len(rows) != count:
        raise ProtocolError(f"{count} texts were answered with {len(rows)} vectors", request=label)
    for row in rows:
        if len(row) != dimensions * VALUE_BYTES and row:
            raise ProtocolError(
                f"a vector has {len(row) / VALUE_BYTES:g} dimensions, the first one {dimensions}",
                request=label,
            )
