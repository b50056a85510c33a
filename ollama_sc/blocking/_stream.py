"""A reply in parts, for a thread that waits for them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from queue import SimpleQueue
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, Self, cast

from typing_extensions import TypeVar

from ollama_sc._api.stream_call import StreamCall
from ollama_sc._errors import ClientClosedError, RequestError
from ollama_sc._loop.threads import current_threaded_work
from ollama_sc._replies.partials import Scanner
from ollama_sc._worker.thread import Worker

from ._handle import Handle

if TYPE_CHECKING:
    from ollama_sc._api.outputs import Output

T = TypeVar("T")
P = TypeVar("P", default=None)

_GIVEN_UP = "the task that its thread works for was cancelled"


class _WakesThread:
    """Wakes a thread that waits, from the event loop; it may wake it once too often."""

    __slots__ = ("_queue", "wait")

    def __init__(self) -> None:
        self._queue: SimpleQueue[None] = SimpleQueue()
        self.wait = self._queue.get

    def done(self) -> bool:
        return False

    def set_result(self, _result: None) -> None:
        self._queue.put(None)


class Stream(Handle[StreamCall[T]], Generic[T, P]):
    """The parts of a reply as they arrive.

    An iterator of responses, and a context manager that ends the request when it is left::

        with client.chat("llama3.2", messages, stream=True) as stream:
            for part in stream:
                print(part.text, end="", flush=True)
        whole = stream.result()

    The request runs on its own: what it has received waits here, at most about a thousand parts or
    one mebibyte; then the server is made to wait. One thread at a time can iterate; a second one
    gets a `RequestError`.

    Iterating raises `AbortError` after an abort, `IncompleteStreamError` where the reply ends
    before its terminal object, `ResponseError` where the server reports an error in the middle, and
    `RequestTimeout`, `ProtocolError` as every call does; each after the parts that came before it
    (an abort discards them). An exception that interrupts the wait for the next part, such as
    KeyboardInterrupt, ends the request and then leaves as itself.

    A stream that is dropped without being closed or iterated to its end is aborted, with a
    `ResourceWarning`. In a forked process a stream of the parent is closed.
    """

    __slots__ = ("_output", "_reader", "_waiting", "_wakes")

    def __init__(
        self, call: StreamCall[T], worker: Worker, owner: object, output: Output[P] | None = None
    ) -> None:
        super().__init__(call, worker, owner)
        self._output = output
        self._wakes = _WakesThread()
        self._reader: dict[None, int] = {}  # the thread that takes the next block
        self._waiting = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        call = self._call
        while True:
            try:
                return call.ready.pop()
            except IndexError:
                pass
            parts = self._next_block()
            if not parts:
                raise StopIteration
            parts.reverse()
            call.ready = parts
            if call.aborted:  # meanwhile, and what has just been put there was not discarded
                parts.clear()

    def batches(self) -> Iterator[list[T]]:
        """The parts of each network read as one list; never an empty one."""
        call = self._call
        while True:
            if ready := call.ready:
                parts = ready[::-1]
                ready.clear()
            elif not (parts := self._next_block()):
                return
            if not call.aborted:
                yield parts

    def iter_text(self) -> Iterator[str]:
        """The text alone, piece by piece; never an empty one."""
        text_of = self._call.spec.text
        for part in self:
            if text := text_of(part):
                yield text

    def result(self) -> T:
        """What has arrived until now, joined into one response.

        Text, thinking, tool calls, images and log probabilities are joined, the rest is the last
        part's. Its ``complete`` says whether the reply is whole. Parts that have arrived and were
        not iterated over yet are included.
        """
        join = self._call.joiner.result
        joined = None if self._call.ended.is_set() else self._worker.call_now(join, None)
        return join() if joined is None else joined

    def parsed(self) -> P:
        """The whole text as a value of the type that was the call's ``format``.

        It is ``None`` where the format was no type.

        Raises:
            IncompleteStreamError: the reply is not whole, or not yet.
            OutputError: the text does not fit the type.
        """
        if self._output is None:
            return cast("P", None)
        return self._output.parse_whole(self.result(), self._call.label)

    def partials(self) -> Iterator[Any]:
        """The JSON that the text is, as it grows: plain values of what is complete.

        It iterates over the stream, as the asynchronous one does.
        """
        scanner, text_of = Scanner(), self._call.spec.text
        for part in self:
            if scanner.feed(text_of(part)):
                yield scanner.value
        if scanner.finish():
            yield scanner.value

    def __repr__(self) -> str:
        call = self._call
        state = call.phase if not call.ended.is_set() else "ended"
        return f"<Stream of {call.spec.type.__name__}: {call.label}, {state}>"

    # -- the next block ----------------------------------------------------------------------

    def _next_block(self) -> list[T]:
        """The parts of one network read; empty at the end."""
        call, me = self._call, get_ident()
        if self._waiting or self._reader.setdefault(None, me) != me:
            raise RequestError(
                "another thread is iterating over this stream: one can at a time",
                request=call.label,
            )
        try:
            self._waiting = True
            while True:
                ended = call.ended.is_set()  # asked first: parts may come, and then the end
                parts = call.take_block()
                if parts:
                    if call.holds_back and not call.is_full():
                        self._worker.schedule(call.wake_task)
                    return parts
                if ended:
                    call.raise_error()
                    return []
                self._wait()
        finally:
            self._waiting = False
            self._reader.clear()

    def _wait(self) -> None:
        """Wait until there may be more to take.

        Whatever interrupts that, such as KeyboardInterrupt, ends the request before it leaves.
        """
        call = self._call
        if self._worker.is_current:
            raise RequestError(
                "a stream cannot be read in its client's own event loop", request=call.label
            )
        caller = current_threaded_work.get()
        give_up = partial(self._worker.schedule, partial(call.abort, _GIVEN_UP))
        call.watch(self._wakes)
        try:
            if caller is not None:
                caller.begin_wait(give_up)
            if call.is_waiting:
                if self._worker.ended:
                    raise ClientClosedError(
                        "the stream belongs to another process", request=call.label
                    )
                self._wakes.wait()
        except BaseException:
            self.close()
            raise
        finally:
            call.watch(None)
            if caller is not None:
                caller.end_wait(give_up)
