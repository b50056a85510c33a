"""What is counted: requests and their tokens, and embedding jobs."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest

from ollama_sc import AsyncClient, EmbedError, ResponseError, telemetry
from ollama_sc.testing import FakeOllama, Reply
from tests import forking
from tests.support import MESSAGES, ROOT, exhaust
from tests.telemetry.conftest import Recorded


@pytest.mark.anyio
async def test_requests_and_tokens(fake: FakeOllama, recorded: Recorded) -> None:
    """Durations with the error's type, tokens by kind, the first chunk of streams alone."""
    async with AsyncClient(fake.url, max_in_flight=1) as client:
        whole = await client.chat("llama3.2", MESSAGES)
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            await exhaust(stream)
        with pytest.raises(ResponseError):
            await client.chat("nobody", MESSAGES)
    metrics = recorded.metrics()
    durations = metrics["gen_ai.client.operation.duration"]
    assert {point.attributes.get("error.type"): point.count for point in durations} == {
        None: 2,
        "ModelNotFoundError": 1,
    }
    common = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": "llama3.2",
        "gen_ai.response.model": "llama3.2",
        "server.address": "127.0.0.1",
        "server.port": fake.port,
    }
    (good,) = [point for point in durations if "error.type" not in point.attributes]
    assert dict(good.attributes) == common
    assert list(good.explicit_bounds)[:3] == [0.01, 0.02, 0.04]
    tokens = {p.attributes["gen_ai.token.type"]: p for p in metrics["gen_ai.client.token.usage"]}
    assert tokens["input"].sum == 2 * whole.prompt_eval_count
    assert tokens["output"].sum == 2 * whole.eval_count
    assert dict(tokens["input"].attributes) == common | {"gen_ai.token.type": "input"}
    (first,) = metrics["gen_ai.client.operation.time_to_first_chunk"]
    assert first.count == 1
    assert sum(point.count for point in metrics["ollama_sc.client.queue.duration"]) == 3
    assert sum(point.count for point in metrics["ollama_sc.client.load.duration"]) == 2


@pytest.mark.anyio
async def test_an_embedding_job(
    anyio_backend: Any, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One span; counters of batches, retries and skipped rows; its requests in the metrics alone."""
    monkeypatch.setattr("ollama_sc._jobs.retries.WAIT_INITIAL", 0.01)
    monkeypatch.setattr("ollama_sc._jobs.retries.WAIT_JITTER", 0.01)

    def refuse(text: str) -> tuple[int, str] | None:
        return (400, "too long") if text == "bad" else None

    async with FakeOllama(embed_error=refuse, dimensions=4) as fake:
        fake.script("/v1/embeddings", Reply.default(), Reply.busy())  # the warm-up, then a retry
        texts = ["good"] * 9 + ["bad"]
        async with AsyncClient(fake.url) as client:
            async with client.embed_many(
                "all-minilm", texts, batch_size=5, max_in_flight=1, on_error="skip"
            ) as batches:
                assert [len(batch.failures) async for batch in batches] == [0, 1]
        span = recorded.span
        assert span.name == "embed_many all-minilm"
        assert dict(span.attributes) == {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": "ollama",
            "gen_ai.request.model": "all-minilm",
            "ollama_sc.end": "complete",
            "ollama_sc.job.batches": 2,
            "ollama_sc.job.texts": 10,
            "ollama_sc.job.skipped_rows": 1,
            "ollama_sc.job.retries": 1,
        }
        metrics = recorded.metrics()
        for name, number in (("batches", 2), ("retries", 1), ("skipped_rows", 1)):
            (point,) = metrics[f"ollama_sc.job.{name}"]
            assert point.value == number
        durations = metrics["gen_ai.client.operation.duration"]
        assert sum(point.count for point in durations) == len(fake.requests)


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["error", "left", "aborted"])
async def test_a_job_that_ends_early(anyio_backend: Any, recorded: Recorded, how: str) -> None:
    """A failing text is the span's error; leaving and aborting are none."""
    async with FakeOllama(embed_error=lambda text: (400, "no") if text == "bad" else None) as fake:
        async with AsyncClient(fake.url) as client:
            texts = ["good"] * 100 + (["bad"] if how == "error" else [])
            try:
                async with client.embed_many("all-minilm", texts, batch_size=4) as batches:
                    async for _ in batches:
                        if how == "aborted":
                            client.abort("enough")
                        if how == "left":
                            break
            except Exception as error:
                assert isinstance(error, EmbedError) is (how == "error")
        span = recorded.span
        ends = {"error": "error", "left": "closed", "aborted": "aborted"}
        assert span.attributes["ollama_sc.end"] == ends[how]
        assert span.attributes.get("error.type") == ("EmbedError" if how == "error" else None)


# -- by itself -------------------------------------------------------------------------------------

PROGRAM = """
import json, os, sys
import anyio
import ollama_sc
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
how = sys.argv[1]
if how != "nothing":
    from opentelemetry import trace
if how not in ("nothing", "api"):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    exporter = InMemorySpanExporter()
if how in ("set up", "disabled", "broken"):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
if how == "broken":
    sys.modules["opentelemetry.metrics"] = None
    import opentelemetry
    del opentelemetry.metrics
if how == "disabled":
    import ollama_sc.telemetry
    ollama_sc.telemetry.disable()

async def main():
    async with ollama_sc.AsyncClient() as client:
        await client.generate("llama3.2", "Hi")

anyio.run(main)
spans = [] if how in ("nothing", "api") else [span.name for span in exporter.get_finished_spans()]
imported = "ollama_sc.telemetry" in sys.modules
print(json.dumps([spans, imported, "opentelemetry" in sys.modules]))
"""


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("nothing", [[], False, False]),
        ("api", [[], False, True]),
        ("imported", [[], True, True]),
        ("set up", [["text_completion llama3.2"], True, True]),
        ("disabled", [[], True, True]),
        ("broken", [[], False, True]),
    ],
)
def test_it_is_on_where_the_sdk_is_set_up(how: str, expected: Any) -> None:
    """And only there: without it nothing of OpenTelemetry is imported."""
    with FakeOllama() as fake:
        done = forking.run(["-c", PROGRAM, how], env={**os.environ, "OLLAMA_HOST": fake.url})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected


def test_what_the_document_says_to_write(tmp_path: Path) -> None:
    """Each block of docs/telemetry.md runs; its program prints the span of its request."""
    text = (ROOT / "docs/telemetry.md").read_text()
    program, *blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "program.py"
    path.write_text(program)
    with FakeOllama() as fake:
        environment = {**os.environ, "OLLAMA_HOST": fake.url}
        done = forking.run([str(path)], env=environment, cwd=ROOT, timeout=40)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["name"] == "chat llama3.2"
    level = logging.getLogger("ollama_sc").level
    try:
        for block in blocks:
            exec(block, {})
    finally:
        telemetry.disable()
        logging.getLogger("ollama_sc").setLevel(level)
    assert len(blocks) == text.count("```python") - 1 == 2
