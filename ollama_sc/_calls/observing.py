"""The seam in a call's life: whoever wants to know how calls proceed is told here, and only here.

A call that is started while somebody observes gets an observer of its own, and tells it of each
step once; where nobody does, one look at a tuple is all that it costs. The log is such an observer,
and telemetry is one. None of them can make a call fail.

This module knows nothing of HTTP, of the API or of any telemetry.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib import import_module
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from ollama_sc._errors import ConnectError, IncompleteStreamError, RequestTimeout, ResponseError

if TYPE_CHECKING:
    from .outcome import Observed

log = logging.getLogger("ollama_sc.requests")
_DEBUG = logging.DEBUG
_LONGEST = 500  # characters of an error in the log
_numbers = count(1)


class CallObserver(Protocol):
    """Is told of one call. The steps come in this order, and some may never come."""

    def slot_acquired(self) -> None:
        """The limiter lets it run."""

    def connected(self) -> None:
        """It has a connection; again where it is sent a second time."""

    def sent(self) -> None:
        """All of it is on its way."""

    def first_part(self) -> None:
        """The first part of a stream is here."""

    def ended(self, call: Observed) -> None:
        """It has ended, in whatever way; exactly once."""

    def batch_done(self, texts: int, failures: int) -> None:
        """A job has embedded a batch."""

    def retried(self) -> None:
        """A job sends a request again."""


class Observer(Protocol):
    """Observes all calls of the process."""

    def started(self, call: Observed, subject: Any) -> CallObserver | None:
        """A call starts, in its caller's task; ``None`` where it is of no interest.

        `subject` is what it is about, as whoever started it knows it.
        """

    def tool(self, name: str, details: Mapping[str, Any]) -> AbstractContextManager[object]:
        """What holds while a tool of the user runs."""
        ...


observers: tuple[Observer, ...] = ()


def add(observer: Observer) -> None:
    """Let it observe the calls that start from now on."""
    global observers  # noqa: PLW0603 - one process, one set of them
    observers = (*observers, observer)


def remove(observer: Observer) -> None:
    """Let it observe no call that starts from now on."""
    global observers  # noqa: PLW0603
    observers = tuple(each for each in observers if each is not observer)


def look_for_telemetry() -> None:
    """Let telemetry observe, where the program has set OpenTelemetry's SDK up."""
    if "opentelemetry.sdk" in sys.modules:
        # By its name: it stands above, as another door to the same calls. Nobody has asked for it:
        # a version of OpenTelemetry that it cannot use is no reason for a client to fail.
        with _harmless():
            import_module("ollama_sc.telemetry").enable_if_set_up()


def is_observed() -> bool:
    """Whether anybody wants to know of a call that starts now."""
    return bool(observers) or log.isEnabledFor(_DEBUG)


def started(call: Observed, subject: Any) -> CallObserver | None:
    """The observers of a call that starts, as one."""
    found: list[CallObserver] = []
    if log.isEnabledFor(_DEBUG):
        found.append(_LoggedCall(call.label))
    for observer in observers:
        with _harmless():
            one = observer.started(call, subject)
            if one is not None:
                found.append(one)
    return _Together(found) if found else None


def tool(name: str, **details: Any) -> AbstractContextManager[None]:
    """A block inside of which a tool of the user runs: the observers are told."""
    return _told_of_tool(name, details) if observers else nullcontext()


@contextmanager
def _told_of_tool(name: str, details: Mapping[str, Any]) -> Generator[None]:
    with ExitStack() as stack:
        for observer in observers:
            with _harmless():
                stack.enter_context(observer.tool(name, details))
        yield


@contextmanager
def _harmless() -> Generator[None]:
    try:
        yield
    except Exception:  # a call must not fail for whoever looks on
        log.debug("an observer failed", exc_info=True)


class _Together:
    """Several observers of one call, of which none can make it fail."""

    def __init__(self, all_: list[CallObserver]) -> None:
        self._all = all_

    def _tell(self, tell: Callable[[CallObserver], None]) -> None:
        for one in self._all:
            with _harmless():
                tell(one)

    def slot_acquired(self) -> None:
        self._tell(lambda one: one.slot_acquired())

    def connected(self) -> None:
        self._tell(lambda one: one.connected())

    def sent(self) -> None:
        self._tell(lambda one: one.sent())

    def first_part(self) -> None:
        self._tell(lambda one: one.first_part())

    def ended(self, call: Observed) -> None:
        self._tell(lambda one: one.ended(call))

    def batch_done(self, texts: int, failures: int) -> None:
        self._tell(lambda one: one.batch_done(texts, failures))

    def retried(self) -> None:
        self._tell(lambda one: one.retried())


def told(error: BaseException) -> str:
    """What a record may say of an error: the text if it is the library's, on one line.

    A server can repeat a key or a prompt in its own, and what is no reply is shown as it is.
    """
    if isinstance(error, ConnectError | RequestTimeout | IncompleteStreamError):
        return " ".join(str(error.args[0] if error.args else "").split())[:_LONGEST]
    return f"HTTP {error.status_code}" if isinstance(error, ResponseError) else ""


class _LoggedCall:
    """A call in the log, at DEBUG: its steps, and nothing that was sent or received."""

    def __init__(self, label: str) -> None:
        self._name = f"#{next(_numbers)} {label}"
        self._began = time.perf_counter()
        log.debug("%s: started", self._name)

    def _say(self, what: str) -> None:
        log.debug("%s: %s after %.3f s", self._name, what, time.perf_counter() - self._began)

    def slot_acquired(self) -> None:
        self._say("has its turn")

    def connected(self) -> None:
        self._say("connected")

    def sent(self) -> None:
        self._say("sent")

    def first_part(self) -> None:
        self._say("first part")

    def ended(self, call: Observed) -> None:
        how, error = call.end()
        if error is None or how != "error":
            self._say(how)
        else:
            text = told(error)
            self._say(f"{type(error).__name__}{text and ': '}{text}")

    def batch_done(self, texts: int, failures: int) -> None:
        self._say(f"a batch of {texts} texts done, {failures} failed,")

    def retried(self) -> None:
        """Whoever retries says so itself."""
