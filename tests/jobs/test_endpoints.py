"""How jobs ask and read: two ways with the same bits, and replies that are not what was asked."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.jobs.support import MODEL, NATIVE, QUICK, quick_body, texts

from ollama_sc import AsyncClient, ModelNotFoundError, ProtocolError, ResponseError
from ollama_sc._jobs import endpoints
from ollama_sc.testing import FakeOllama, Reply
from ollama_sc.testing._go import gojson

DIMENSIONS = 768  # of the fixture `fake`: as the model has
ROW = np.ones(4, "<f4").tobytes()


# -- the same bits ---------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("dimensions", [None, 5])
async def test_both_ways_give_the_same_bits(fake: FakeOllama, dimensions: int | None) -> None:
    """Whatever the way, the float32 values are the server's."""
    async with AsyncClient(fake.url) as client:
        quick = await client.embed_array(MODEL, texts(50), dimensions=dimensions)
        native = await client.embed_array(MODEL, texts(50), dimensions=dimensions, keep_alive="5m")
    assert {request.path for request in fake.requests} == {QUICK, NATIVE}
    assert quick.shape == (50, dimensions or 768)
    assert quick.tobytes() == native.tobytes()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_every_float32_survives_both_ways(values: list[float]) -> None:
    """As the server writes them: base64, or the shortest decimal that is the same float32."""
    row = struct.pack(f"<{len(values)}f", *values)
    quick, native = endpoints.endpoints_for(MODEL, {})
    assert quick.read(quick_body(row), 200) == [row]
    shortest = [float(str(np.float32(value))) for value in values]
    body = gojson.encode({"model": MODEL, "embeddings": [shortest]})
    assert native.read(body, 200) == [row]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        ("-0", -0.0),
        ("0", 0.0),
        ("2e-7", 2e-7),
        ("1.4e-45", 1.4e-45),
        ("3.4028235e38", 3.4028235e38),
    ],
)
def test_numbers_as_go_writes_them(text: str, value: float) -> None:
    """Whole numbers, signed zeros, one digit in an exponent, the ends of the range."""
    (row,) = endpoints.endpoints_for(MODEL, {})[1].read(
        b'{"embeddings":[[%s]]}' % text.encode(), 200
    )
    assert row == struct.pack("<f", value)


# -- which way -------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, QUICK),
        ({"truncate": True}, QUICK),
        ({"dimensions": 5}, QUICK),
        ({"truncate": False}, NATIVE),
        ({"keep_alive": 60}, NATIVE),
        ({"options": {"num_ctx": 512}}, NATIVE),
        ({"extra": {"novel": 1}}, NATIVE),
    ],
)
async def test_the_way_is_chosen_by_what_it_knows(
    fake: FakeOllama, fields: dict[str, Any], path: str
) -> None:
    """The quicker way, where it can carry what the job says; and it carries that."""
    async with AsyncClient(fake.url) as client:
        await client.embed_array(MODEL, texts(3), **fields)
    assert {request.path for request in fake.requests} == {path}
    sent = fake.requests[-1].json
    wanted = {"model": MODEL, "input": texts(3), **fields.get("extra", fields)}
    if path == QUICK:
        wanted.pop("truncate", None)
        wanted["encoding_format"] = "base64"
    assert sent == wanted


@pytest.mark.anyio
@pytest.mark.parametrize("lacking", ["page", "method", "JSON", "base64"])
async def test_servers_that_lack_the_quicker_way(anyio_backend: Any, lacking: str) -> None:
    """One request finds out; all others go the other way, with the same bits."""
    version = "0.12.6" if lacking == "base64" else "0.33.0"
    async with FakeOllama(version=version) as fake, AsyncClient(fake.url) as client:
        expected = await client.embed_array(MODEL, texts(9), keep_alive="5m")
        fake.requests.clear()
        if lacking == "page":
            fake.always(QUICK, Reply.text("404 page not found", 404, "text/plain"))
        elif lacking == "method":
            fake.always(QUICK, Reply.text("405 method not allowed", 405, "text/plain"))
        elif lacking == "JSON":
            fake.always(QUICK, Reply.error(404, "no such route"))
        found = await client.embed_array(MODEL, texts(9), batch_size=2)
        paths = [request.path for request in fake.requests]
    assert found.tobytes() == expected.tobytes()
    assert paths == [QUICK, *[NATIVE] * 6]


@pytest.mark.anyio
async def test_a_missing_model_is_the_native_error(fake: FakeOllama) -> None:
    """Whichever way was tried first."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ModelNotFoundError) as caught:
            await client.embed_array("no-such-model", texts(3))
    assert caught.value.error == 'model "no-such-model" not found, try pulling it first'
    assert [request.path for request in fake.requests] == [QUICK, NATIVE]


@pytest.mark.anyio
async def test_a_server_that_changes_meanwhile(fake: FakeOllama) -> None:
    """An older one in its place is asked the other way, in the middle of a job."""
    older = Reply.json({"data": [{"embedding": [1.0] * 768, "index": n} for n in range(3)]})
    async with AsyncClient(fake.url) as client:
        expected = await client.embed_array(MODEL, texts(12))
        fake.requests.clear()
        fake.script(QUICK, Reply.default(), Reply.default(), older)
        found = await client.embed_array(MODEL, texts(12), batch_size=3, max_in_flight=1)
    assert found.tobytes() == expected.tobytes()
    assert [request.path for request in fake.requests] == [QUICK] * 3 + [NATIVE] * 3


@pytest.mark.anyio
async def test_kinds_of_text(fake: FakeOllama) -> None:
    """Empty ones, numpy's, and whatever else is a text."""

    class Text(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "something else"

    given_texts = ["", np.str_("b"), Text("c"), "\N{SNOWMAN} <&> \u2028"]
    async with AsyncClient(fake.url) as client:
        for truncate in (None, False):
            expected = (await client.embed(MODEL, ["", "b", "c", given_texts[3]])).embeddings
            found = await client.embed_array(MODEL, given_texts, truncate=truncate)
            assert found.tolist() == np.array(expected, np.float32).tolist()
            assert await client.embed_array(MODEL, np.array(["b"])) is not None


# -- replies that are not what was asked for -------------------------------------------------------


WRONG = {
    "fewer": (quick_body(ROW), "2 texts were answered with 1 vectors"),
    "more": (quick_body(ROW, ROW, ROW), "2 texts were answered with 3 vectors"),
    "shorter": (quick_body(ROW, ROW[:12]), "a vector has 3 dimensions, the first one 4"),
    "cut": (quick_body(ROW, ROW[:-1]), "a vector has 3.75 dimensions, the first one 4"),
    "longer": (quick_body(ROW, ROW + ROW), "a vector has 8 dimensions"),
    "order": (quick_body(ROW, ROW).replace(b'"index": 0', b'"index": 1'), "out of order"),
    "no base64": (b'{"data":[{"embedding":"!!!"}]}', "not a reply with vectors|not a reply of the"),
    "no vectors": (b'{"object":"list"}', "not a reply of the API"),
    "no JSON": (b"{", "not JSON"),
    "nothing": (b"", "the reply is empty"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("kind", WRONG)
async def test_replies_that_are_wrong_end_the_job(anyio_backend: Any, kind: str) -> None:
    """As many vectors as texts, all as long as the first: else a ProtocolError says what it is."""
    body, match = WRONG[kind]
    async with FakeOllama(dimensions=4) as fake, AsyncClient(fake.url) as client:
        reply = Reply.text(body.decode(), content_type="application/json")
        fake.script(QUICK, Reply.default(), reply)
        with pytest.raises(ProtocolError, match=match) as caught:
            await client.embed_array(MODEL, texts(2))
    assert caught.value.request == f"POST {QUICK}, model '{MODEL}'"
    assert len(fake.requests) == 2


@pytest.mark.anyio
@pytest.mark.parametrize(
    "body", [quick_body(), quick_body(b""), quick_body(b"abc"), quick_body(ROW, ROW)]
)
async def test_a_wrong_answer_to_the_first_request(anyio_backend: Any, body: bytes) -> None:
    """The same, where the job is entered."""
    async with FakeOllama(dimensions=4) as fake, AsyncClient(fake.url) as client:
        fake.always(QUICK, Reply.text(body.decode(), content_type="application/json"))
        with pytest.raises(ProtocolError):
            async with client.embed_many(MODEL, texts(2)):
                raise AssertionError
    assert len(fake.requests) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("truncate", [None, False])
async def test_an_error_in_a_successful_reply(fake: FakeOllama, truncate: bool | None) -> None:
    """An error object is an error wherever it stands, beside vectors too."""
    reply = {"data": [], "embeddings": [], "error": "half way"}
    fake.always(QUICK, Reply.json(reply))
    fake.always(NATIVE, Reply.json(reply))
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ResponseError, match="half way"):
            await client.embed_array(MODEL, texts(2), truncate=truncate)


# -- endpoints that are closed ---------------------------------------------------------------------

CLOSED = {
    **{str(status): Reply.error(status, "because") for status in (400, 401, 403, 410, 418, 501)},
    "a page": Reply.html(403),
    "a page, 200": Reply.html(200),
    "an error, 200": Reply.json({"error": "Unexpected endpoint or method."}),
    "a redirect": Reply.raw(
        b"HTTP/1.1 302 Found\r\nLocation: https://example.invalid/\r\nContent-Length: 0\r\n\r\n"
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize("how", CLOSED)
async def test_an_endpoint_that_is_closed_in_another_way(fake: FakeOllama, how: str) -> None:
    """The other one is asked once, and if it answers, it is used from then on."""
    fake.always(QUICK, CLOSED[how])
    async with AsyncClient(fake.url) as client:
        found = await client.embed_array(MODEL, texts(9), batch_size=3)
        assert [request.path for request in fake.requests] == [QUICK, *[NATIVE] * 4]
        assert found.tobytes() == (await client.embed_array(MODEL, texts(9))).tobytes()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("native", "status"),
    [(Reply.error(401, "who are you"), 401), (Reply.text("404 page not found", 404), 403)],
)
async def test_a_server_that_is_closed(fake: FakeOllama, native: Reply, status: int) -> None:
    """Each is asked once; the error is that of the endpoint that the server has."""
    fake.always(QUICK, Reply.error(403, "not for you"))
    fake.always(NATIVE, native)
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ResponseError) as caught:
            await client.embed_array(MODEL, texts(3))
    assert caught.value.status_code == status
    assert [request.path for request in fake.requests] == [QUICK, NATIVE]


@pytest.mark.anyio
@pytest.mark.parametrize("status", [401, 403, 410, 501])
async def test_an_endpoint_that_is_closed_meanwhile(fake: FakeOllama, status: int) -> None:
    """The same in the middle of a job."""
    fake.script(QUICK, Reply.default(), Reply.default(), *[Reply.error(status, "closed")] * 9)
    async with AsyncClient(fake.url) as client:
        found = await client.embed_array(MODEL, texts(12), batch_size=3, max_in_flight=1)
    assert len(found) == 12
    assert [request.path for request in fake.requests] == [QUICK] * 3 + [NATIVE] * 3
