"""The events of a streamed run of tools, for a thread that waits for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Self

from typing_extensions import TypeVar

from ollama_sc._errors import ClientClosedError, RequestError
from ollama_sc._tools.events import RunCall
from ollama_sc._tools.results import ToolEvent, ToolRun
from ollama_sc._worker.thread import Worker
from ollama_sc.types import ChatResponse

from ._handle import Handle

T = TypeVar("T", default=None)


class ToolStream(Handle[RunCall], Generic[T]):
    """A run of tools as it happens: an iterator of events, and a context manager.

    ::

        with client.run_tools("qwen3", messages, [get_weather], stream=True) as stream:
            for event in stream:
                match event:
                    case ChatResponse():
                        print(event.text, end="", flush=True)
                    case ToolStarted(call=call):
                        print(f"[{call.function.name}]")
        run = stream.result()

    Events are the parts of the model's replies, `ToolStarted` and `ToolEnded` for each call, and
    `RoundEnded` where a reply and all of its calls are whole. They are bounded, and the next round
    begins when `RoundEnded` is taken.

    It is iterated over, closed and dropped as a `Stream` is: one thread at a time; an exception
    that interrupts the wait for an event ends the run and then leaves as itself; leaving the block
    ends the model's request and all tools, and waits for them; one that is dropped without being
    closed is aborted, with a `ResourceWarning`. Iterating raises `AbortError` after an abort, and
    what the run failed with after the events before it.
    """

    __slots__ = ("_ready", "_snapshot", "_waiting")

    def __init__(
        self, call: RunCall, snapshot: Callable[[], ToolRun[T]], worker: Worker, owner: object
    ) -> None:
        super().__init__(call, worker, owner)
        self._snapshot = snapshot
        self._ready: deque[ToolEvent] = deque()  # events that the event loop has handed over
        self._waiting: dict[None, object] = {}  # who takes the next ones

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ToolEvent:
        ready = self._ready
        while True:
            if self._call.aborted:
                ready.clear()
            try:
                return ready.popleft()
            except IndexError:
                pass
            block = self._next_block()
            if not block:
                raise StopIteration
            ready.extend(block)

    def iter_text(self) -> Iterator[str]:
        """The text of the model's replies alone, piece by piece; never an empty one."""
        for event in self:
            if isinstance(event, ChatResponse) and event.message.content:
                yield event.message.content

    def result(self) -> ToolRun[T]:
        """What the run has come to until now.

        It holds whole rounds: no call is in its messages without its result.
        """
        snapshot = self._snapshot
        found = None if self._call.ended.is_set() else self._worker.call_now(snapshot, None)
        return snapshot() if found is None else found

    def __repr__(self) -> str:
        call = self._call
        return f"<ToolStream: {call.label}, {'ended' if call.ended.is_set() else 'running'}>"

    def _next_block(self) -> list[ToolEvent]:
        """Events that have come, or those that come next; empty at the end."""
        call, mine = self._call, object()
        if self._waiting.setdefault(None, mine) is not mine:
            raise RequestError(
                "another thread is iterating over this stream: one can at a time",
                request=call.label,
            )
        try:
            if not call.ended.is_set():
                if self._worker.ended:
                    raise ClientClosedError(
                        "the stream belongs to another process", request=call.label
                    )
                try:
                    return self._worker.call(call.next_block)
                except ClientClosedError:  # it is being closed, and the run ends with it
                    self._worker.wait_ended()
                    if not call.ended.is_set():
                        raise
            if not call.events:
                call.raise_error()
            return call.take_block()
        except Exception:
            raise
        except BaseException:
            self.close()
            raise
        finally:
            self._waiting.clear()
