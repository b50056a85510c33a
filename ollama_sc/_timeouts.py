"""Timeouts: what a client and each call accept as ``timeout``."""

from __future__ import annotations

import httpx
import msgspec

from ._errors import RequestError


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Timeouts of a request, each in seconds; ``None`` is no limit.

    A server sends nothing at all, not even headers, while a request is queued, its model is loading
    and its prompt is being read. That silence counts for `first_chunk`, which therefore has no
    limit unless you set one.

    Attributes:
        connect: for opening a connection, the TLS handshake included. No limit in a browser, which
            does not tell when there is one.
        first_chunk: from the request being sent until the answer begins.
        idle: for each silence after that, and for each piece of an upload. The clock stands still
            while your own code holds the stream back.
        total: for the whole request, the wait under `max_in_flight` included. Of a stream, until
            its last part has arrived.
    """

    connect: float | None = 10.0
    first_chunk: float | None = None
    idle: float | None = None
    total: float | None = None

    @classmethod
    def of(cls, value: Timeouts | httpx.Timeout | float) -> Timeouts:
        """Read a ``timeout=`` argument.

        A number means what it means in httpx: the limit for connecting and for each silence. Of
        httpx's ``Timeout``, ``connect`` and ``read`` count: nothing waits for a pool here.

        Raises:
            RequestError: it is no positive number.
        """
        if isinstance(value, Timeouts):
            limits = value
        elif isinstance(value, httpx.Timeout):
            limits = cls(connect=value.connect, first_chunk=value.read, idle=value.read)
        elif not isinstance(value, int | float):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise RequestError(
                "timeout: write a number of seconds, or Timeouts(connect=..., first_chunk=..., "
                f"idle=..., total=...), not {value!r:.80}"
            )
        else:
            limits = cls(connect=value, first_chunk=value, idle=value)
        for name in cls.__struct_fields__:
            seconds = getattr(limits, name)
            if seconds is None:
                continue
            if isinstance(seconds, bool) or not isinstance(seconds, int | float):
                raise RequestError(f"timeout: {name} must be a number of seconds, not {seconds!r}")
            try:
                possible = float(seconds) > 0
            except OverflowError:
                possible = False
            if not possible:
                raise RequestError(f"timeout: {name} must be above zero seconds, not {seconds!r}")
        return limits
