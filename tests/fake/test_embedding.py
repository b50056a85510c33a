"""The fake's embeddings: `/api/embed`, `/v1/embeddings` and the older `/api/embeddings`."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

import pytest

from ollama_sc.testing import FakeOllama
from tests.fake.support import ask
from tests.support import recording

pytestmark = pytest.mark.anyio


async def test_embeddings_depend_on_the_text_alone():
    """Equal texts have equal unit vectors in the order of the input; others have others."""
    async with FakeOllama() as fake:
        got = (
            await ask(fake, "/api/embed", {"model": "all-minilm", "input": ["a b", "", "a b"]})
        ).json()
        one = (await ask(fake, "/api/embed", {"model": "nomic-embed-text", "input": "a b"})).json()
    a, empty, again = got["embeddings"]
    assert a == again == one["embeddings"][0] != empty
    assert got["prompt_eval_count"] == 4
    assert all(len(vector) == 768 for vector in got["embeddings"])
    assert math.hypot(*a) == pytest.approx(1, abs=1e-6)
    assert list(got) == [
        "model",
        "embeddings",
        "total_duration",
        "load_duration",
        "prompt_eval_count",
    ]


async def test_embedding_rules():
    """dimensions cuts and normalises again, long texts are truncated, nothing gives nothing."""

    async def embed(**fields: Any) -> dict[str, Any]:
        return (await ask(fake, "/api/embed", {"model": "all-minilm", **fields})).json()

    async with FakeOllama(dimensions=16) as fake:
        whole = (await embed(input="x"))["embeddings"][0]
        cut = (await embed(input="x", dimensions=4))["embeddings"][0]
        assert len((await embed(input="x", dimensions=99))["embeddings"][0]) == 16
        long = await embed(input="a b c d", options={"num_ctx": 2})
        short = await embed(input="a b")
        for nothing in ("", [], None):
            assert await embed(input=nothing) == {"model": "all-minilm", "embeddings": []}
        assert await embed() == {"model": "all-minilm", "embeddings": []}
    length = math.hypot(*whole[:4])
    assert cut == pytest.approx([number / length for number in whole[:4]], abs=1e-7)
    assert long["embeddings"] == short["embeddings"]
    assert long["prompt_eval_count"] == 2


async def test_embeddings_survive_float32():
    """The decimal form is the shortest of no more than 8 places, so both forms have the same float32."""
    async with FakeOllama() as fake:
        vector = (await ask(fake, "/api/embed", {"model": "all-minilm", "input": "x"})).json()[
            "embeddings"
        ][0]
    assert all(round(number, 8) == number for number in vector)
    as_floats = struct.unpack("<768f", struct.pack("<768f", *vector))
    assert [round(number, 8) for number in as_floats] == pytest.approx(vector, abs=6e-8)


# ---------------------------------------------------------------------------------------------
# In other forms


async def test_base64_embeddings_are_the_floats():
    """/v1/embeddings has the same float32 in both forms and in /api/embed."""
    asked = {"model": "all-minilm", "input": ["a", "b c"]}
    async with FakeOllama(dimensions=16) as fake:
        native = (await ask(fake, "/api/embed", asked)).json()
        plain = await ask(fake, "/v1/embeddings", asked)
        coded = (await ask(fake, "/v1/embeddings", asked | {"encoding_format": "BASE64"})).json()
        single = (await ask(fake, "/v1/embeddings", asked | {"input": ""})).json()
    assert plain.content.endswith(b"\n")
    assert list(plain.json()) == ["object", "data", "model", "usage"]
    for item, code, vector in zip(
        plain.json()["data"], coded["data"], native["embeddings"], strict=True
    ):
        raw = base64.b64decode(code["embedding"])
        assert raw == struct.pack("<16f", *item["embedding"]) == struct.pack("<16f", *vector)
    assert coded["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert len(single["data"]) == 1


@pytest.mark.parametrize(
    ("fields", "status", "kind", "text"),
    [
        ({"encoding_format": "hex"}, 400, "invalid_request_error",
         "Invalid value for 'encoding_format' = hex. Supported values: ['float', 'base64']."),
        ({"input": []}, 400, "invalid_request_error", "invalid input"),
        ({"input": [[1, 2]]}, 400, "invalid_request_error", "invalid input type"),
        ({"model": "nope"}, 404, "not_found_error", 'model "nope" not found, try pulling it first'),
    ],
)  # fmt: skip
async def test_openai_errors(fields, status, kind, text):
    """Errors are objects in OpenAI's form."""
    async with FakeOllama() as fake:
        got = await ask(fake, "/v1/embeddings", {"model": "all-minilm", "input": "x", **fields})
    error = {"message": text, "type": kind, "param": None, "code": None}
    assert (got.status_code, got.json()) == (status, {"error": error})


async def test_legacy_embeddings():
    """One vector of float32 that were widened, not normalised; errors of the model are 500."""
    async with FakeOllama(dimensions=8) as fake:
        got = (await ask(fake, "/api/embeddings", {"model": "all-minilm", "prompt": "x"})).json()
        empty = (await ask(fake, "/api/embeddings", {"model": "all-minilm"})).json()
        nameless = await ask(fake, "/api/embeddings", {"prompt": "x"})
        long = {"model": "all-minilm", "prompt": "a b c", "options": {"num_ctx": 2}}
        refused = await ask(fake, "/api/embeddings", long)
        assert fake.loaded
    assert list(got) == ["embedding"]
    assert list(struct.unpack("<8f", struct.pack("<8f", *got["embedding"]))) == got["embedding"]
    assert sum(number * number for number in got["embedding"]) > 2
    assert empty == {"embedding": []}
    assert (nameless.status_code, nameless.json()["error"]) == (400, "model is required")
    assert refused.status_code == 500


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/api/embed", "embed-unsupported"),
        ("/v1/embeddings", "v1-embeddings-unsupported"),
        ("/api/embeddings", "embeddings-unsupported"),
    ],
)
async def test_a_model_that_cannot_embed(path: str, name: str):
    """A newer server's runner refuses it, as it was recorded."""
    recorded = recording(f"0.33/{name}")
    async with FakeOllama(version="0.33.0-rc2", models=["gemma3:270m", "novel"]) as fake:
        body = {"model": "gemma3:270m", "input": "x", "prompt": "x"}
        found = await ask(fake, path, body)
        assert f"HTTP/1.1 {found.status_code} ".encode() in recorded
        assert found.content == recorded.partition(b"\r\n\r\n")[2]
        assert (await ask(fake, path, body | {"model": "novel"})).status_code == 200
