"""A call whose reply arrives in parts: the queue between its task and the consumer.

The parts of each network read are enqueued as one block, by whatever reads: the event loop, the
consumer itself (on trio, see `TrioSocket`), or the call's task, which ends the exchange. The
consumer takes block by block. The task knows this and never the `Stream`, so that a stream which
nobody holds any more can be noticed.

The consumer may be in another thread (`ollama_sc.blocking`). So each side only appends or pops, and
counts what it has appended or taken itself; and who waits first says so, and then looks again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import anyio

from ollama_sc._calls.call import Call
from ollama_sc._errors import ConnectError, IncompleteStreamError, OllamaError
from ollama_sc._http.exchange import Exchange
from ollama_sc._http.messages import Request
from ollama_sc._http.sender import Sender
from ollama_sc._loop.primitives import CHECKPOINT_INTERVAL, Event, Runtime
from ollama_sc._replies.ndjson import LineDecoder

if TYPE_CHECKING:
    from ollama_sc._http.socket_trio import Sweeper, TrioSocket
    from ollama_sc._replies.join import StreamSpec
    from ollama_sc._timeouts import Timeouts

T = TypeVar("T")


class WakesConsumer(Protocol):
    """What a consumer waits for: an event of the event loop, or what wakes another thread."""

    def done(self) -> bool:
        """Whether it need not be woken."""
        ...

    def set_result(self, result: None, /) -> None:
        """Wake it."""


# The task stops reading at the first read that takes the queue past this, and goes on when the
# consumer has taken enough. The kernel's buffers fill then, and the server waits. A part counts as
# the bytes that it came in, and about as many as it has as an object.
MAX_WAITING_BYTES = 1024 * 1024
PART_BYTES = 1024


class StreamCall(Call[None], Generic[T]):
    """A call whose reply arrives in parts.

    Attributes:
        responded: set when the server has answered with success, or the call has ended.
        succeeded: which of the two.
        ready: the parts of the block that the consumer is taking, the next one last.
    """

    __slots__ = (
        "_blocks",
        "_consuming",
        "_enqueued",
        "_not_empty",
        "_not_full",
        "_reads",
        "_source",
        "_sweeper",
        "_swept",
        "_taken",
        "joiner",
        "ready",
        "responded",
        "spec",
        "succeeded",
    )

    def __init__(
        self,
        runtime: Runtime,
        label: str,
        timeouts: Timeouts,
        spec: StreamSpec[T],
        sweeper: Callable[[], Sweeper],
    ) -> None:
        super().__init__(runtime, label, timeouts)
        self.spec = spec
        self.joiner = spec.joiner()
        self.responded = runtime.new_event()
        self.succeeded = False
        # Lists, as an empty deque takes 0.7 KiB.
        self.ready: list[T] = []
        self._blocks: list[tuple[list[T], int]] = []  # parts, what they count
        self._enqueued = 0  # in all, of which so much was taken
        self._taken = 0
        self._consuming = False
        self._reads = 0
        self._not_empty: WakesConsumer | None = None  # the consumer waits for it
        self._not_full: Event | None = None  # the task waits for it
        self._source: TrioSocket | None = None  # what the consumer reads from, in the task's place
        self._swept = False
        self._sweeper = sweeper

    # -- the producer's side, in the call's task ---------------------------------------------

    async def read(  # noqa: C901, PLR0915 - see `take`
        self, sender: Sender, request: Request, max_line_bytes: int
    ) -> None:
        """The work of the task: send the request, and enqueue the parts of its reply."""
        exchange = Exchange(sender, self, request, "application/x-ndjson")
        del request  # a prompt or images need not stay as long as the answer takes
        async with exchange:
            self.succeeded = True
            self.responded.set()
            lines = LineDecoder(
                self.spec.type,
                self.spec.is_terminal,
                max_line_bytes=max_line_bytes,
                status=exchange.status,
                request=self.label,
            )
            add = self.joiner.add
            arrived = 0  # bytes of the parts that come next
            ended = False
            broken: OllamaError | None = None

            def take(block: bytes) -> bool:
                """Enqueue the parts that a network read completes, as one block; whether to go on.

                It runs for each token: what it does is done in place.
                """
                nonlocal arrived, ended
                if block:
                    arrived += len(block)
                    parts = lines.feed(block)
                else:
                    ended = True
                    parts = lines.finish(cut=broken is not None)
                if parts and not self.aborted:  # an abort discards, also what comes before its end
                    if self.observer is not None and not self._enqueued:
                        self.observer.first_part()
                    add(parts)
                    size = arrived + PART_BYTES * len(parts)
                    arrived = 0
                    self._enqueued += size
                    self._blocks.append((parts, size))
                    waiter = self._not_empty  # see `_wake_consumer`
                    if waiter is not None and not waiter.done():
                        waiter.set_result(None)
                if lines.complete:
                    # The reply is whole: from here on nothing can spoil it, whatever becomes of the
                    # connection, and whatever happens before the task runs again.
                    self.completed = not self.aborted
                    return False
                return lines.error is None and self._enqueued - self._taken < MAX_WAITING_BYTES

            self._source = exchange.source
            while not lines.complete:
                if self.is_full():
                    await self._wait_until_not_full()
                try:
                    await exchange.pump(take)
                except ConnectError as error:
                    broken = error
                    take(b"")
                if lines.error is not None:
                    raise lines.error
                if ended and not lines.complete:
                    self._check_whole(broken)
                    break
            self.completed = not self.aborted  # also where only the message's end says so
            exchange.spoiled = lines.trailing_data
            if not lines.trailing_data and broken is None:
                await exchange.drain()

    def _check_whole(self, broken: OllamaError | None) -> None:
        """Raise, unless the message's end is the reply's: it says so in other words than most."""
        partial = self.joiner.result()
        if broken is None and self.spec.is_whole(partial):
            return
        why = "" if broken is not None else self.spec.why_incomplete(partial)
        raise IncompleteStreamError(
            f"the stream ended before its terminal object{why}",
            partial=partial,
            request=self.label,
        ) from broken

    @property
    def reply(self) -> object:
        """What has arrived, joined."""
        return self.joiner.result()

    def is_full(self) -> bool:
        """Whether the task waits until the consumer has taken more."""
        return self._enqueued - self._taken >= MAX_WAITING_BYTES

    async def _wait_until_not_full(self) -> None:
        self.restart_timeout(None)  # the consumer's time, not the server's
        while self.is_full():
            self._not_full = not_full = self.runtime.new_event()
            if self.is_full():
                await not_full.wait()
        self._not_full = None

    def wake_task(self) -> None:
        """Wake the task, which waits for room in the queue; in the event loop's thread."""
        if self._not_full is not None:
            self._not_full.set()

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
        blocks = self._blocks
        try:
            if blocks or self._reads % CHECKPOINT_INTERVAL == 0:
                await anyio.lowlevel.checkpoint()
            while not blocks:
                if self.ended.is_set():
                    await anyio.lowlevel.checkpoint()
                    break
                source = self._source
                if source is not None and source.pumping:
                    if not self._swept:
                        self._swept = True
                        self._sweeper().add(source)
                    await source.wait_and_read()
                else:
                    self._not_empty = not_empty = self.runtime.new_waiter()
                    await not_empty
        except BaseException:
            self.interrupted = True
            raise
        finally:
            self._not_empty = None
            self._consuming = False
        if not blocks:
            self.raise_error()
            return []
        parts, size = blocks.pop(0)
        self._taken += size
        if self._not_full is not None and not self.is_full():
            self._not_full.set()
        return parts

    def take_block(self) -> list[T]:
        """The parts of one network read, where there are some; empty otherwise. In any thread."""
        try:
            parts, size = self._blocks.pop(0)
        except IndexError:
            return []
        self._taken += size
        return parts

    def watch(self, wakes: WakesConsumer | None) -> None:
        """Say what wakes the consumer at the next block and at the end. In any thread."""
        self._not_empty = wakes

    @property
    def is_waiting(self) -> bool:
        """Whether there is nothing to take, and more may come. In any thread."""
        return not self._blocks and not self.ended.is_set()

    @property
    def holds_back(self) -> bool:
        """Whether the task waits for room in the queue, as far as another thread can tell."""
        return self._not_full is not None

    def _wake_consumer(self) -> None:
        not_empty = self._not_empty  # a consumer in another thread can take it back meanwhile
        if not_empty is not None and not not_empty.done():
            not_empty.set_result(None)

    def catch_up(self) -> None:
        """Take in what has arrived and nobody has read yet."""
        if self._source is not None:
            self._source.read_now()

    def _is_whole(self) -> bool:
        self.catch_up()
        return self.completed or self.ended.is_set()

    def _notify_abort(self) -> None:
        self.ready.clear()
        self._blocks.clear()

    def _notify_end(self) -> None:
        self.responded.set()
        source, self._source = self._source, None
        if source is not None and self._swept:
            self._sweeper().discard(source)
        self._wake_consumer()
