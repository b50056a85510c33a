"""The arguments of jobs, all checked: what a job needs beside its clients and its texts. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ollama_sc._base import Calls
from ollama_sc._timeouts import Timeouts

from ._servers import Server, Servers
from ._settings import InFlight, Settings, split
from ._wire import Way, ways


class Plan(NamedTuple):
    """What jobs are to do.

    Attributes:
        label: what errors call such a job.
        settings: how it works.
        limits: how many requests each server may have.
        ways: in which a server can be asked, the quickest first.
        timeout: of each request.
    """

    label: str
    settings: Settings
    limits: Sequence[InFlight]
    ways: Sequence[Way]
    timeout: Timeouts | float | None

    def servers(self, clients: Sequence[Calls]) -> Servers:
        """The servers behind some clients, of which nothing is known yet."""
        pairs = zip(clients, self.limits, strict=True)
        return Servers([Server(client, limit, self.ways, self.timeout) for client, limit in pairs])


def plan(model: str, fields: Mapping[str, Any], servers: int) -> Plan:
    """Check the arguments of jobs on so many servers.

    Raises:
        TypeError: a field that there is not.
        RequestError: a value that cannot be right.
    """
    settings, request_fields = split(fields)
    limits = settings.in_flight(servers)
    ways_to_ask = ways(model, request_fields)
    timeout = request_fields.get("timeout")
    if timeout is not None:
        Timeouts.of(timeout)
    return Plan(f"embed_many, model {model!r:.100}", settings, limits, ways_to_ask, timeout)
