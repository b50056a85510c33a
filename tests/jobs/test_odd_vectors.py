"""Replies with vectors that are missing, are no numbers, or whose places are told oddly."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.jobs.support import MODEL, NATIVE, QUICK, quick_body, texts
from tests.support import plain_reply, raw_server, read_request

from ollama_sc import AsyncClient, EmbedError, ProtocolError
from ollama_sc._jobs import endpoints

ROW = struct.pack("<2f", 1, 2)
# A vector of two numbers as JSON, and whether anything of it is left.
ODD = {
    "null": "null",
    "nothing": "[]",
    "nulls": "[null,null]",
    "a null": "[1,null]",
    "NaN": "[NaN,1]",
    "nan": "[1,nan]",
    "-nan": "[-nan,1]",
    "nan(ind)": "[1, -nan(ind) ]",
    "inf": "[inf,1]",
    "-Infinity": "[1 , -Infinity]",
    "1e400": "[1e400,1]",
    "-1e999": "[0,-1e999]",
    "many digits": f"[{'9' * 400},1]",
    "texts": '["NaN","inf"]',
    "one null": "[null]",
    "NaN alone": "NaN",
    "a text alone": '"NaN"',
    "no text": '""',
    "an empty object": "{}",
}


def native_body(*vectors: str) -> bytes:
    return b'{"model":"m","embeddings":[%s]}' % ",".join(vectors).encode()


def openai_body(*vectors: str) -> bytes:
    items = [f'{{"embedding":{vector},"index":{n}}}' for n, vector in enumerate(vectors)]
    return b'{"object":"list","data":[%s]}' % ",".join(items).encode()


def as_base64(row: bytes) -> str:
    return json.dumps(base64.b64encode(row).decode())


@pytest.mark.anyio
@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("path", [NATIVE, QUICK])
@pytest.mark.parametrize("kind", ODD)
async def test_an_odd_vector_fails_its_text_alone(anyio_backend: Any, kind: str, path: str) -> None:
    """The bytes are the server's; the text is refused, its neighbours have their vectors.

    Over `/v1/embeddings` a vector of numbers makes the job go on over `/api/embed`.
    """

    def vector(text: str, base64: bool) -> str:
        if text == "text 1":
            return ODD[kind]
        return as_base64(ROW) if base64 else "[1,2]"

    async def handle(stream: Any) -> None:
        while request := await read_request(stream):
            head, _, body = request.partition(b"\r\n\r\n")
            quick = head.startswith(b"POST /v1/")
            asked = json.loads(body)["input"]
            make = openai_body if quick else native_body
            await stream.send(plain_reply(make(*(vector(text, quick) for text in asked))))

    fields: Any = {"truncate": False} if path == NATIVE else {}
    async with raw_server(handle) as url, AsyncClient(url) as client:
        async with client.embed_many(MODEL, texts(3), on_error="skip", **fields) as batches:
            (batch,) = [batch async for batch in batches]
        assert batch.vectors[[0, 2]].tolist() == [[1, 2]] * 2
        assert np.isnan(batch.vectors[1]).all()
        assert list(batch.failures) == [1]
        assert batch.failures[1] in (
            "its vector is not finite",
            "the server gives no vector for it",
        )
        with pytest.raises(EmbedError, match="text 1 cannot be embedded: "):
            await client.embed_array(MODEL, texts(3), **fields)


@pytest.mark.parametrize("vector", ["null", '""', "[]"])
def test_no_vector_in_base64(vector: str) -> None:
    """A missing one among others is a text without a vector, not another endpoint."""
    quick, _ = endpoints.endpoints_for(MODEL, {})
    body = openai_body(as_base64(ROW), vector, as_base64(ROW))
    assert quick.read(body, 200) == [ROW, b"", ROW]
    without = body.replace(b'"embedding":%s,' % vector.encode(), b"")
    assert quick.read(without, 200) == [ROW, b"", ROW]
    nothing = b'{"data":[{"embedding":%s},null]}' % as_base64(ROW).encode()
    assert quick.read(nothing, 200) == [ROW, b""]


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize(
    "body", [b"{}", b'{"data":7,"embeddings":7}', b'{"data":[7],"embeddings":[7]}',
             b'{"data":[{"embedding":[[]]}],"embeddings":[[[]]]}',
             b'{"data":[{"embedding":true}],"embeddings":[true]}',
             b'{"data":[{"embedding":[true]}],"embeddings":[[true]]}'],
)  # fmt: skip
def test_an_error_names_the_endpoints_own_field(quick: bool, body: bytes) -> None:
    """What is no list of vectors is an error that speaks of what was asked for."""
    endpoint = endpoints.endpoints_for(MODEL, {})[0 if quick else 1]
    with pytest.raises(ProtocolError) as caught:
        endpoint.read(body, 200)
    text = str(caught.value).partition("(")[2].partition(")")[0]
    if text:
        assert ("data" in text) is quick
        assert ("embeddings" in text) is not quick


# -- places ----------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([None, "x", True, 1.5, [1], {}]), min_size=1, max_size=5))
def test_an_index_that_nobody_needs(odd: list[Any]) -> None:
    """Whatever stands there, vectors in order are taken in order."""
    rows = [struct.pack("<2f", number, 0) for number in range(len(odd))]
    data = json.loads(quick_body(*rows))
    for item, index in zip(data["data"], odd, strict=True):
        item["index"] = index
    assert endpoints.endpoints_for(MODEL, {})[0].read(json.dumps(data).encode(), 200) == rows


@given(st.permutations(range(5)), st.sampled_from([int, float, str]))
def test_an_order_that_is_told(order: list[int], kind: Any) -> None:
    """Each place once: the vectors are put where they belong, however the number is written."""
    rows = [struct.pack("<2f", number, 0) for number in range(5)]
    items = [
        {"embedding": base64.b64encode(rows[place]).decode(), "index": kind(place)}
        for place in order
    ]
    body = json.dumps({"data": items}).encode()
    assert endpoints.endpoints_for(MODEL, {})[0].read(body, 200) == rows


@given(
    st.lists(
        st.sampled_from([0, 1, 2, 7, -1, 2**70, "1", "2", None, "x", 1e300]), min_size=3, max_size=3
    )
)
def test_an_order_that_cannot_be_trusted(indexes: list[Any]) -> None:
    """Is not guessed: either the vectors are where they belong, or it is an error."""
    rows = [struct.pack("<2f", number, 0) for number in range(3)]
    items = [
        {"embedding": base64.b64encode(row).decode(), "index": index}
        for row, index in zip(rows, indexes, strict=True)
    ]
    body = json.dumps({"data": items}).encode()
    read = endpoints.endpoints_for(MODEL, {})[0].read
    numbers = [None if index in (None, "x") else int(float(index)) for index in indexes]
    if all(number in (None, place) for place, number in enumerate(numbers)):
        assert read(body, 200) == rows
    elif None not in numbers and sorted(numbers) == [0, 1, 2]:
        assert [read(body, 200)[number] for number in numbers] == rows
    else:
        with pytest.raises(ProtocolError, match="out of order"):
            read(body, 200)
