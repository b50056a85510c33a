"""Retries, with stamina: which errors are transient, and how long to wait after them.

Each is told to the logger ``ollama_sc``, which is silent unless a program says otherwise. What
stamina itself logs of them is dropped: it names neither the request nor the reason.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Collection
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from typing import TypeVar

import anyio

from ollama_sc._api.server import NOT_READY
from ollama_sc._errors import ConnectError, RequestTimeout, ResponseError
from ollama_sc._http.connection import is_unreadable

T = TypeVar("T")

_logger = logging.getLogger("ollama_sc")
_logger.addHandler(logging.NullHandler())
# Whether what stamina logs is of a retry here.
_retrying: ContextVar[bool] = ContextVar("_retrying", default=False)

# In seconds, as stamina has them: the first wait is doubled before each further attempt.
WAIT_INITIAL = 0.5
WAIT_MAX = 30.0
WAIT_JITTER = 1.0

# A server can ask for any wait. Where retries have no time limit, it is asked again after this.
_LONGEST_WAIT = 3600.0
SERVER_ERROR = 500
_WRONG_OPTION = 'option "'  # how the server's error begins, a 500 too, where an option is wrong
_RETRY = "trying again in %.1f s (attempt %d of %d): %s"


def is_transient(error: Exception) -> bool:
    """Whether the same request can succeed later: no connection, a busy server, a timeout."""
    if isinstance(error, ResponseError):
        return error.status_code in NOT_READY
    return isinstance(error, ConnectError | RequestTimeout) and not is_unreadable(error)


def _requested_wait(error: Exception) -> float | None:
    """The seconds that a busy server, or a gateway in front of one, wants to be left alone for."""
    if not isinstance(error, ResponseError) or not is_transient(error):
        return None
    return error.retry_after


def backoff_seconds(error: Exception) -> float:
    """For how many seconds a server gets no requests after an error, while others take them.

    There are three cases: an error response that says for how long; any other one, with the first
    wait of retries; no response, where the next warm-up finds out at once.
    """
    if not isinstance(error, ResponseError):
        return 0.0
    after = _requested_wait(error)
    seconds = WAIT_INITIAL if after is None else min(after, _LONGEST_WAIT)
    return seconds + random.uniform(0, WAIT_JITTER)  # noqa: S311 - no secret


@cache
def has_stamina() -> bool:
    """Whether stamina is installed; imports it."""
    try:
        import_module("stamina")
    except ImportError:
        return False
    logging.getLogger("stamina").addFilter(_is_foreign)
    return True


def _is_foreign(record: logging.LogRecord) -> bool:
    """Whether a record of stamina's is of somebody else's retry."""
    del record
    return not _retrying.get()


class RetryPolicy:
    """Decides which errors of one request are retried: stamina's hook ``on``.

    Args:
        timeout: for how many seconds it is retried; a server that asks for a longer wait is not
            retried at all. ``None`` is no limit.
        refusals: the statuses of refusals that are retried. They can be an accident of the model's
            runner, or how a server says that a text cannot be embedded.
        refusal_retries: how often they are.
        has_other: whether another server is available.
        connect_attempts: after how many connection errors it is not retried.
    """

    def __init__(
        self,
        *,
        timeout: float | None,
        refusals: Collection[int] = (SERVER_ERROR,),
        refusal_retries: int = 0,
        has_other: Callable[[], bool] = lambda: False,
        connect_attempts: Callable[[], float] = lambda: float("inf"),
    ) -> None:
        self._timeout = timeout
        self._refusals = refusals
        self._refusal_retries = refusal_retries
        self.has_other = has_other
        self._connect_attempts = connect_attempts
        self._connect_errors = 0
        self._requested_waits = 0

    def __call__(self, error: Exception) -> bool | float:
        """Whether to retry after an error, with stamina's waits; or the seconds to wait instead.

        There are six cases, and the first that applies decides:

        1. A connection error, and there were enough of them: no retry.
        2. A transient error, and another server is available: a retry without a wait.
        3. A transient error that says how long to wait: a retry after that, with jitter; none if
           that is longer than the timeout.
        4. A refusal that can be an accident: a retry, so often as is allowed.
        5. Another transient error: a retry.
        6. Anything else: no retry.
        """
        if isinstance(error, ConnectError):
            self._connect_errors += 1
            if self._connect_errors >= self._connect_attempts():
                return False
        if is_transient(error) and self.has_other():
            return 0.0
        if (seconds := _requested_wait(error)) is not None:
            if self._timeout is not None and seconds > self._timeout:
                return False
            return self._wait_as_requested(seconds)
        if isinstance(error, ResponseError) and error.status_code in self._refusals:
            self._refusal_retries -= 1
            return self._refusal_retries >= 0 and not error.error.startswith(_WRONG_OPTION)
        return is_transient(error)

    def _wait_as_requested(self, seconds: float) -> float:
        """The seconds to wait, never less than without a request: many gateways always say 0."""
        least = min(WAIT_INITIAL * 2.0**self._requested_waits, WAIT_MAX)
        self._requested_waits += 1
        return max(least, min(seconds, _LONGEST_WAIT)) + random.uniform(0, WAIT_JITTER)  # noqa: S311


class RetryingCaller:
    """Calls an async function, and retries it as a policy says.

    Args:
        attempts: how many there are in total; 1 is no retry, and needs no stamina.
        timeout: for how many seconds it is retried; ``None`` is no limit.
        on_retry: called before each further attempt.
    """

    def __init__(
        self, attempts: int, timeout: float | None, on_retry: Callable[[], object] = lambda: None
    ) -> None:
        self.timeout = timeout
        self._attempts = attempts
        self._on_retry = on_retry

    async def __call__(self, work: Callable[[], Awaitable[T]], policy: RetryPolicy) -> T:
        """Call `work` until it succeeds; raise what the last attempt raised.

        Cancelling it cancels the attempt, or the wait between two of them.
        """
        if self._attempts == 1:
            return await work()
        from stamina import Attempt, retry_context  # noqa: PLC0415

        started_at = anyio.current_time()
        current: Attempt | None = None

        def decide(error: Exception) -> bool | float:
            decision = policy(error)
            assert current is not None
            late = self.timeout is not None and anyio.current_time() >= started_at + self.timeout
            if decision is not False and current.num < self._attempts and not late:
                wait = current.next_wait if decision is True else decision
                number = current.num + 1
                reason = "; ".join([str(error), *getattr(error, "__notes__", ())])
                _logger.warning(_RETRY, wait, number, self._attempts, reason)
            return decision

        token = _retrying.set(True)
        try:
            async for attempt in retry_context(
                on=decide,
                attempts=self._attempts,
                timeout=self.timeout,
                wait_initial=WAIT_INITIAL,
                wait_max=WAIT_MAX,
                wait_jitter=WAIT_JITTER,
            ):
                current = attempt
                if attempt.num > 1:
                    self._on_retry()
                # Not inside the attempt, which would hold a cancellation up for a moment.
                result, error = await _outcome(work)
                with attempt:
                    if error is not None:
                        try:
                            raise error
                        finally:
                            del error
                    return result  # type: ignore[return-value]  # no error, hence a result
        finally:
            _retrying.reset(token)
        raise AssertionError("the last attempt raises")


async def _outcome(work: Callable[[], Awaitable[T]]) -> tuple[T | None, Exception | None]:
    """The result or the error of one attempt. A cancellation is neither, and leaves."""
    try:
        return await work(), None
    except Exception as error:  # noqa: BLE001 - raised again, inside of the attempt
        return None, error
