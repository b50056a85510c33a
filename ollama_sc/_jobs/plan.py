"""The checked arguments of jobs: all that a job needs beside its clients and its texts. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ollama_sc._api.base import BaseClient
from ollama_sc._timeouts import Timeouts

from .endpoints import Endpoint, endpoints_for
from .served_model import ServedModel
from .servers import Server, Servers
from .settings import JobSettings, MaxInFlight, split_fields


class Plan(NamedTuple):
    """The checked arguments of one job or more.

    Attributes:
        label: what errors call such a job.
        settings: its batches, retries and callbacks.
        max_in_flight: how many requests each server may have.
        endpoints: that requests can be sent to, the fastest first.
        timeout: of each request.
        model: its name.
        digest: the model's, where it is known.
    """

    label: str
    settings: JobSettings
    max_in_flight: Sequence[MaxInFlight]
    endpoints: Sequence[Endpoint]
    timeout: Timeouts | float | None
    model: str
    digest: str | None = None

    def make_servers(self, clients: Sequence[BaseClient]) -> Servers:
        """The servers of some clients, none of them warmed up."""
        pairs = zip(clients, self.max_in_flight, strict=True)
        return Servers(
            [Server(client, limit, self.endpoints, self.timeout) for client, limit in pairs],
            ServedModel(self.model, self.digest),
        )


def make_plan(model: str, fields: Mapping[str, Any], server_count: int) -> Plan:
    """Check the arguments of jobs on a number of servers.

    Raises:
        TypeError: an unknown field.
        RequestError: an invalid value.
    """
    settings, request_fields = split_fields(fields)
    max_in_flight = settings.max_in_flight_per_server(server_count)
    endpoints = endpoints_for(model, request_fields)
    timeout = request_fields.get("timeout")
    if timeout is not None:
        Timeouts.of(timeout)
    label = f"embed_many, model {model!r:.100}"
    return Plan(label, settings, max_in_flight, endpoints, timeout, model)
