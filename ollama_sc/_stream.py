"""What a streaming call hands to its consumer.

`StreamCall` is the call, and what its task shares with the consumer: parts go from the reading side
to the consumer's side one network read at a time. `Stream` is the consumer's handle. The task knows
the first and never the second, so that a stream which nobody holds any more can be noticed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from ._calls import Call, drop
from ._errors import ConnectError, IncompleteStreamError, OllamaError
from ._groups import CallGroup
from ._http import Http, Request
from ._ndjson import LineDecoder
from ._owner import leave
from ._waiting import TURNS_UNTIL_CHECKPOINT, Event

if TYPE_CHECKING:
    from ._join import Shape
    from ._timeouts import Timeouts

T = TypeVar("T")

# The reader stops at the first read that takes what waits past one of these, and goes on when the
# consumer has taken enough. The kernel's buffers fill then, and the server waits.
MAX_WAITING_PARTS = 1024
MAX_WAITING_BYTES = 1024 * 1024


class StreamCall(Call[None], Generic[T]):
    """A call whose reply arrives in parts."""

    def __init__(self, group: CallGroup, label: str, timeouts: Timeouts, shape: Shape[T]) -> None:
        super().__init__(group, label, timeouts)
        self.shape = shape
        self.joiner = shape.joiner()
        self.opened = group.new_event()  # the server answers with success, or the call has ended
        self.began = False  # which of the two
        self.ready: deque[T] = deque()  # the consumer's side
        self._arrived_bytes = 0  # of the parts that come next
        self._blocks: deque[tuple[list[T], int]] = deque()  # the reader's side: parts, their bytes
        self._waiting_parts = 0
        self._waiting_bytes = 0
        self._consuming = False
        self._reads = 0
        self._news: Event | None = None  # the consumer waits for it
        self._room: Event | None = None  # the reader waits for it

    # -- the reader's side, in the call's task -----------------------------------------------

    async def read(self, http: Http, request: Request, max_line_bytes: int) -> None:
        """The work of the task: send the request, and hand over the parts of its reply."""
        async with http.exchange(self, request, "application/x-ndjson") as reply:
            self.began = True
            self.opened.set()
            lines = LineDecoder(
                self.shape.type,
                self.shape.is_terminal,
                max_line_bytes=max_line_bytes,
                status=reply.status,
                request=self.label,
            )
            broken: OllamaError | None = None
            while not lines.complete:
                if self._is_full():
                    await self._wait_for_room()
                try:
                    block = await reply.receive()
                except ConnectError as error:
                    broken, block = error, b""
                self._arrived_bytes += len(block)
                self._hand_over(lines.feed(block) if block else lines.finish(cut=bool(broken)))
                if lines.error is not None:
                    raise lines.error
                if not block and not lines.complete:
                    raise self._incomplete() from broken
            # The reply is whole: from here on nothing can spoil it, whatever becomes of the
            # connection.
            self.finished = not self.aborted
            reply.spoiled = lines.surplus
            if not lines.surplus and broken is None:
                await reply.drain()

    def _incomplete(self) -> IncompleteStreamError:
        return IncompleteStreamError(
            "the stream ended before its terminal object",
            partial=self.joiner.result(),
            request=self.label,
        )

    def _hand_over(self, parts: list[T]) -> None:
        """Give the consumer what one network read has brought, as one block."""
        if not parts or self.aborted:  # an abort discards, also what comes before it is noticed
            return
        self.joiner.add(parts)
        self._blocks.append((parts, self._arrived_bytes))
        self._waiting_parts += len(parts)
        self._waiting_bytes += self._arrived_bytes
        self._arrived_bytes = 0
        if self._news is not None:
            self._news.set()

    def _is_full(self) -> bool:
        return self._waiting_parts >= MAX_WAITING_PARTS or self._waiting_bytes >= MAX_WAITING_BYTES

    async def _wait_for_room(self) -> None:
        self.start_limit(None)  # the consumer's time, not the server's
        while self._is_full():
            self._room = room = self.group.new_event()
            await room.wait()

    # -- the consumer's side -----------------------------------------------------------------

    async def next_block(self) -> list[T]:
        """The parts of one network read; empty at the end.

        Nothing is taken before the last await in here, so a consumer that is cancelled loses no
        part.
        """
        if self._consuming:
            raise anyio.BusyResourceError("iterating over")
        self._consuming = True
        self._reads += 1
        try:
            if self._blocks or self.ended.is_set() or self._reads % TURNS_UNTIL_CHECKPOINT == 0:
                await checkpoint()
            while not self._blocks and not self.ended.is_set():
                self._news = news = self.group.new_event()
                await news.wait()
        except BaseException:
            self.interrupted = True
            raise
        finally:
            self._news = None
            self._consuming = False
        if not self._blocks:
            self.raise_error()
            return []
        parts, size = self._blocks.popleft()
        self._waiting_parts -= len(parts)
        self._waiting_bytes -= size
        if self._room is not None and not self._is_full():
            self._room.set()
        return parts

    def _on_abort(self) -> None:
        self.ready.clear()
        self._blocks.clear()
        if self._news is not None:
            self._news.set()

    def _on_end(self) -> None:
        self.opened.set()
        if self._news is not None:
            self._news.set()


class Stream(Generic[T]):
    """The parts of a reply as they arrive.

    An async iterator of responses, and an async context manager that ends the request when it is
    left::

        async with await client.chat("llama3.2", messages, stream=True) as stream:
            async for part in stream:
                print(part.text, end="", flush=True)
        whole = stream.result()

    The request runs on its own: what it has received waits here, at most about a thousand parts or
    one mebibyte; then the server is made to wait. One task at a time can iterate; a second gets
    `anyio.BusyResourceError`.

    Iterating raises `AbortError` after an abort, `IncompleteStreamError` where the reply ends
    before its terminal object, `ResponseError` where the server reports an error in the middle, and
    `RequestTimeout`, `ProtocolError` as every call does; each after the parts that came before it
    (an abort discards them). A cancelled iteration loses no part, and the stream stays usable.

    A stream that is dropped without being closed or iterated to its end is aborted, with a
    `ResourceWarning`.
    """

    __slots__ = ("_call",)

    def __init__(self, call: StreamCall[T]) -> None:
        self._call = call

    def __aiter__(self) -> Stream[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return self._call.ready.popleft()
        except IndexError:
            pass
        parts = await self._call.next_block()
        if not parts:
            raise StopAsyncIteration
        ready = self._call.ready
        ready.extend(parts)
        return ready.popleft()

    def batches(self) -> AsyncIterator[list[T]]:
        """The parts of each network read as one list; never an empty one."""
        return _Batches(self)

    def iter_text(self) -> AsyncIterator[str]:
        """The text alone, piece by piece; never an empty one."""
        return _Texts(self)

    def result(self) -> T:
        """What has arrived until now, joined into one response; not a coroutine.

        Text, thinking, tool calls, images and log probabilities are joined, the rest is the last
        part's. Its ``complete`` says whether the reply is whole. Parts that have arrived and were
        not iterated over yet are included.
        """
        return self._call.joiner.result()

    def abort(self, reason: object = None) -> bool:
        """End the request now, in whatever phase it is, and discard the parts that wait.

        Whoever iterates gets `AbortError`. Returns whether there was anything to end: a stream
        whose terminal object has arrived is finished, and its parts are still delivered.
        """
        return self._call.abort(reason)

    async def aclose(self) -> None:
        """End the request, and wait until its connection is closed or given back.

        Iterating afterwards raises `AbortError`, unless the reply had arrived whole. A cancelled
        `aclose` does its work all the same.
        """
        self._call.abort("the stream was closed")
        await self._call.gone()

    async def __aenter__(self) -> Stream[T]:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await leave(self.aclose, exc)

    def __repr__(self) -> str:
        call = self._call
        state = call.phase if not call.ended.is_set() else "ended"
        return f"<Stream of {call.shape.type.__name__}: {call.label}, {state}>"

    def __del__(self) -> None:
        drop(self, getattr(self, "_call", None), "stream")


class _Batches(AsyncIterator[list[T]]):
    __slots__ = ("_stream",)

    def __init__(self, stream: Stream[T]) -> None:
        self._stream = stream

    async def __anext__(self) -> list[T]:
        ready = self._stream._call.ready
        if ready:
            parts = list(ready)
            ready.clear()
            return parts
        parts = await self._stream._call.next_block()
        if not parts:
            raise StopAsyncIteration
        return parts


class _Texts(AsyncIterator[str]):
    __slots__ = ("_stream", "_text")

    def __init__(self, stream: Stream[Any]) -> None:
        self._stream = stream
        self._text = stream._call.shape.text

    async def __anext__(self) -> str:
        while True:
            text = self._text(await self._stream.__anext__())
            if text:
                return text


async def open_stream(
    group: CallGroup,
    http: Http,
    request: Request,
    shape: Shape[T],
    timeouts: Timeouts,
    max_line_bytes: int,
) -> Stream[T]:
    """Start a streaming call, and wait until the server answers.

    It waits for the reply's headers, which the server sends with the first token: queueing, loading
    the model and reading the prompt all pass before. An error reply is raised here.
    """
    call = StreamCall(group, request.label, timeouts, shape)
    group.start(call, partial(call.read, http, request, max_line_bytes))
    await call.wait(call.opened)
    if not call.began:
        call.raise_error()
    return Stream(call)
