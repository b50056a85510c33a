"""The metrics: those of the GenAI conventions, with their buckets, and our own."""

from __future__ import annotations

from opentelemetry.metrics import Histogram, Meter

_SECONDS = [0.01 * 2**power for power in range(14)]
_TOKENS = [4**power for power in range(14)]
# How long a model takes to load, or a request waits for others.
_LONG_SECONDS = [0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300]


class Instruments:
    """The instruments of one meter."""

    def __init__(self, meter: Meter) -> None:
        def seconds(name: str, description: str, buckets: list[float]) -> Histogram:
            return meter.create_histogram(
                name, "s", description, explicit_bucket_boundaries_advisory=buckets
            )

        self.duration = seconds(
            "gen_ai.client.operation.duration", "GenAI operation duration.", _SECONDS
        )
        self.first_chunk = seconds(
            "gen_ai.client.operation.time_to_first_chunk",
            "Time to receive the first chunk of a stream.",
            _SECONDS,
        )
        self.tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self.queue = seconds(
            "ollama_sc.client.queue.duration",
            "How long a request waited for its turn under max_in_flight.",
            _LONG_SECONDS,
        )
        self.load = seconds(
            "ollama_sc.client.load.duration",
            "How long the server took to load the model for a request.",
            _LONG_SECONDS,
        )
        self.batches = meter.create_counter(
            "ollama_sc.job.batches", "{batch}", "Batches that embedding jobs have embedded."
        )
        self.retries = meter.create_counter(
            "ollama_sc.job.retries", "{retry}", "Requests that embedding jobs sent again."
        )
        self.skipped = meter.create_counter(
            "ollama_sc.job.skipped_rows", "{row}", "Texts that embedding jobs could not embed."
        )
