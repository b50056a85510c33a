"""Trying again, with stamina: which failures can pass, and when to ask again."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import cache
from importlib import import_module
from typing import TypeVar

from ollama_sc._errors import (
    ConnectError,
    RateLimitError,
    RequestTimeout,
    ResponseError,
)

T = TypeVar("T")

FIRST_WAIT = 0.5  # seconds before the second try; doubled for each one after it
LONGEST_WAIT = 30.0
JITTER = 1.0

_PASSING = {429, 502, 503, 504}  # too many requests, full queues, gateways without a server
_SERVER_ERROR = 500


def can_pass(error: Exception) -> bool:
    """Whether the same request can succeed later."""
    if isinstance(error, ResponseError):
        return error.status_code in _PASSING
    return isinstance(error, ConnectError | RequestTimeout)


def rest_after(error: Exception) -> float:
    """How many seconds a server is left alone after a failure, while others take its requests."""
    if not isinstance(error, ResponseError):
        return 0.0
    after = error.retry_after if isinstance(error, RateLimitError) else None
    return (FIRST_WAIT if after is None else after) + random.uniform(0, JITTER)  # noqa: S311


@cache
def has_stamina() -> bool:
    """Whether stamina is installed; imports it."""
    try:
        import_module("stamina")
    except ImportError:
        return False
    return True


class Policy:
    """What to do about the failures of one request: stamina's hook.

    Args:
        timeout: how long it is tried, in seconds; asking to wait longer is a refusal.
        again_on_500: whether a 500 is tried once more. It can be an accident of the model's
            runner, or the way in which a server says that a text cannot be embedded.
        elsewhere: whether another server could take the request at once.
        connect_attempts: how many broken connections are enough.
    """

    def __init__(
        self,
        *,
        timeout: float | None,
        again_on_500: bool = False,
        elsewhere: Callable[[], bool] = lambda: False,
        connect_attempts: Callable[[], float] = lambda: float("inf"),
    ) -> None:
        self._timeout = timeout
        self._again_on_500 = again_on_500
        self._elsewhere = elsewhere
        self._connect_attempts = connect_attempts
        self._connects = 0

    def __call__(self, error: Exception) -> bool | float:
        """Whether to try again, or after how many seconds."""
        if isinstance(error, ConnectError):
            self._connects += 1
            if self._connects >= self._connect_attempts():
                return False
        if can_pass(error) and self._elsewhere():
            return 0.0
        if isinstance(error, RateLimitError) and error.retry_after is not None:
            if self._timeout is not None and error.retry_after > self._timeout:
                return False
            return error.retry_after + random.uniform(0, JITTER)  # noqa: S311 - no secret
        if isinstance(error, ResponseError) and error.status_code == _SERVER_ERROR:
            once, self._again_on_500 = self._again_on_500, False
            return once
        return can_pass(error)


class Retries:
    """How often, and how long, a request is tried."""

    def __init__(self, attempts: int, timeout: float | None) -> None:
        self.timeout = timeout
        self._attempts = attempts

    async def __call__(self, work: Callable[[], Awaitable[T]], policy: Policy) -> T:
        """Do the work until it succeeds; raises what it failed with last."""
        if self._attempts == 1:
            return await work()
        from stamina import retry_context  # noqa: PLC0415

        async for attempt in retry_context(
            on=policy,
            attempts=self._attempts,
            timeout=self.timeout,
            wait_initial=FIRST_WAIT,
            wait_max=LONGEST_WAIT,
            wait_jitter=JITTER,
        ):
            # Outside of the attempt, which would swallow a cancellation for a moment.
            result, error = await _outcome(work)
            with attempt:
                if error is not None:
                    try:
                        raise error
                    finally:
                        del error
                return result  # type: ignore[return-value]  # no error, hence a result
        raise AssertionError("the last attempt raises")


async def _outcome(work: Callable[[], Awaitable[T]]) -> tuple[T | None, Exception | None]:
    try:
        return await work(), None
    except Exception as error:  # noqa: BLE001 - raised again, inside of the attempt
        return None, error
