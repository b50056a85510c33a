"""What the fake does with requests: records them, chooses replies, counts what is in progress.

The server of its connections, by their protocol `Host`.
"""

from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio

from ollama_sc.testing._endpoints.routes import BLOBS, MODEL_PATHS, Ollama
from ollama_sc.testing._http import access
from ollama_sc.testing._http.request import RecordedRequest, Recording
from ollama_sc.testing._http.shared import SharedEvent
from ollama_sc.testing._replies import Generated, Message, Reply, message_of
from ollama_sc.testing._state.blobs import KEPT

_DEFAULT = Reply()


class Serving:
    """The requests of one fake, and their replies.

    Args:
        ollama: What a real server would answer.
        reuse: False closes each connection after one response.
        parallel: How many requests to models run concurrently; None: unlimited.
        max_queue: How many may wait; None: unlimited.

    Attributes:
        replay: Chooses the reply to a request that no script is for; None: `ollama` answers.

    """

    def __init__(
        self,
        ollama: Ollama,
        *,
        reuse: bool,
        parallel: int | None,
        max_queue: int | None,
    ) -> None:
        self.ollama = ollama
        self.reuse = reuse
        self.requests: list[RecordedRequest] = []
        self.connections = 0
        self.open_connections = 0
        self.in_flight = 0
        self.peak_in_flight = 0
        self.scripts: dict[str, deque[Reply]] = {}
        self.always: dict[str, Reply] = {}
        self.crashes: list[Exception] = []
        self._slots = anyio.Semaphore(parallel) if parallel is not None else None
        self._max_queue = max_queue
        self._queued = 0
        self.replay: Callable[[RecordedRequest], Reply] | None = None
        self._changed = SharedEvent()
        self._closed = False

    def open(self) -> None:
        """From now on there will be changes to wait for."""
        self._closed = False

    def close(self) -> None:
        """There will be none any more: whoever waits is told."""
        self._closed = True
        self._notify()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, which is asked after each change; in any event loop.

        Raises:
            RuntimeError: the server has been closed, and it does not hold.
        """
        await anyio.lowlevel.checkpoint()
        while True:
            changed = self._changed  # first: a change after the question must not be missed
            if condition():
                return
            if self._closed:
                raise RuntimeError("the fake server has been closed meanwhile")
            await changed.wait()

    def _notify(self) -> None:
        changed, self._changed = self._changed, SharedEvent()
        changed.set()

    # -- for the connections -------------------------------------------------------------------

    def connected(self) -> int:
        """Count a connection; its number."""
        self.connections += 1
        self.open_connections += 1
        return self.connections

    def disconnected(self) -> None:
        """Count a connection that was closed."""
        self.open_connections -= 1
        self._notify()

    def started(self, request: Recording) -> tuple[Reply, bool] | None:
        """Record a request at its headers: uploads, and requests with an early reply."""
        upload = request.method == "POST" and request.path.startswith(BLOBS)
        if not upload and not self._scripted(request, take=False).early:
            return None
        if upload and self.replay is not None:
            request.body_limit = KEPT
            return None
        reply = self.received(request)
        request.body_limit = KEPT
        if not upload or reply.content != "default":
            return reply, True
        return reply, self.ollama.begin(request)

    def received(self, request: RecordedRequest) -> Reply:
        """Record a request and choose its reply."""
        self.requests.append(request)
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self._notify()
        reply = self._scripted(request, take=True)
        if reply is _DEFAULT and self.replay is not None and not self._answers_itself(request):
            return self.replay(request)
        return reply

    def _scripted(self, request: RecordedRequest, *, take: bool) -> Reply:
        if self._answers_itself(request):
            return _DEFAULT
        queue = self.scripts.get(request.path)
        if queue:
            return queue.popleft() if take else queue[0]
        return self.always.get(request.path, _DEFAULT)

    def _answers_itself(self, request: RecordedRequest) -> bool:
        """Whether CORS decides on a request, before any endpoint or script."""
        return access.cors_answer(request, self.ollama.state.origins) is not None

    def completed(self, request: RecordedRequest) -> None:
        """Notify waiters of a complete body."""
        del request
        self._notify()

    def ended(self, request: RecordedRequest) -> None:
        """Record that a request is no longer in progress."""
        self.in_flight -= 1
        self.ollama.state.loaded.release(request)

    def crashed(self, error: Exception) -> None:
        """Keep a failure of the fake itself, which is raised when it exits."""
        self.crashes.append(error)

    @asynccontextmanager
    async def slot(self, request: RecordedRequest) -> AsyncGenerator[bool]:
        """Hold one of the slots for parallel requests; False if the queue is full."""
        if self._slots is None or request.path not in MODEL_PATHS or self._answers_itself(request):
            yield True
            return
        try:
            self._slots.acquire_nowait()
        except anyio.WouldBlock:
            if self._max_queue is not None and self._queued >= self._max_queue:
                yield False
                return
            self._queued += 1
            try:
                await self._slots.acquire()
            finally:
                self._queued -= 1
        try:
            yield True
        finally:
            self._slots.release()

    async def message(self, request: RecordedRequest, reply: Reply, *, busy: bool) -> Message:
        """The message for a reply."""
        if not busy and isinstance(reply.content, Generated):
            message = await self.ollama.message(request, reply.content)
        elif not busy and reply.content == "default":
            message = await self.ollama.message(request, Generated())
        else:
            message = message_of(Reply.busy() if busy else reply)
            message.headers = {**access.granted(request), **message.headers}
            return message
        message.headers = {**message.headers, **reply.headers}
        return message
