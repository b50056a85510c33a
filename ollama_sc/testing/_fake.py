"""`FakeOllama`: the server's socket, its life, its scripts and its record."""

import socket
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import anyio
import anyio.abc
import anyio.lowlevel
from anyio.streams.tls import TLSStream

from ollama_sc.testing._blobs import KEPT, Blobs
from ollama_sc.testing._cloud import Cloud
from ollama_sc.testing._connection import Connection
from ollama_sc.testing._endpoints import BLOBS, MODEL_PATHS, Ollama
from ollama_sc.testing._loaded import FIVE_MINUTES, LoadedModel, LoadedModels
from ollama_sc.testing._registry import DEFAULT_PULLABLE, FakePull, Registry
from ollama_sc.testing._replies import Generated, Message, Reply, message_of
from ollama_sc.testing._request import RecordedRequest, Recording
from ollama_sc.testing._state import Limits, State
from ollama_sc.testing._store import DEFAULT_MODELS, FakeModel, ModelStore
from ollama_sc.testing._stream import RawStream
from ollama_sc.testing._version import Version

_DEFAULT = Reply()


class FakeOllama:
    """A server that behaves like Ollama on a real TCP socket, and can break on purpose.

    An asynchronous context manager: it listens inside of `async with`. It runs in the event loop
    of its user, so it also works under trio's `MockClock`. On leaving, all connections are closed
    and no task is left; an exception of the body passes unchanged.

    Args:
        host: An IP address, or a name to be looked up.
        port: 0 takes a free one.
        models: Names, or `FakeModel` objects. Names of known models get their capabilities.
        token_rate: Tokens a second. None: as fast as the socket takes them.
        tokens: Length of an answer where `options.num_predict` says nothing.
        dimensions: Length of embeddings.
        embed_seconds: How long a request for embeddings takes, whatever is in it.
        embed_error: What a text cannot be embedded for: a function of the text that returns a
            status and an error text, or None. One such text fails its whole request.
        version: What `/api/version` answers; what that version did not have or did otherwise is
            missing and otherwise here.
        ssl_context: Serves https.
        reuse: False closes each connection after one reply.
        parallel: How many chat, generate and embed requests are answered at once; others wait
            silently, in order. None: any number.
        max_queue: How many may wait; beyond it 503. None: any number.
        registry: What can be pulled: names, `FakeModel` and `FakePull` objects, or a `Registry`,
            which can also be slow and fail.
        keep_alive: Seconds that a model stays loaded where its request does not say.
        signed_in: Whether the server has an account; signing out ends that.
        keys: The keys that are right where the fake stands in for ollama.com, at
            `/api/web_search` and `/api/web_fetch`. None: any.
        origins: Values of `Origin` that are let in beside local ones; `*` is all.

    Attributes:
        requests: Each request so far, as a `RecordedRequest`.
        connections: How many connections there have been.
        open_connections: How many are open.
        in_flight: How many requests are being answered.
        peak_in_flight: The highest number of them at once.
        models: The models; may be changed.
        registry: The `Registry`; may be changed.
        cloud: The account and the cloud behind the server; may be changed.

    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        models: Sequence[str | FakeModel] = DEFAULT_MODELS,
        token_rate: float | None = None,
        tokens: int = 24,
        dimensions: int = 768,
        embed_seconds: float = 0.0,
        embed_error: Callable[[str], tuple[int, str] | None] | None = None,
        version: str = "0.33.0",
        ssl_context: ssl.SSLContext | None = None,
        reuse: bool = True,
        parallel: int | None = None,
        max_queue: int | None = None,
        registry: Registry | Iterable[str | FakeModel | FakePull] = DEFAULT_PULLABLE,
        keep_alive: float = FIVE_MINUTES,
        signed_in: bool = True,
        keys: Iterable[str] | None = None,
        origins: Iterable[str] = (),
    ) -> None:
        self.host = host
        self.port = port
        self.reuse = reuse
        self.requests: list[RecordedRequest] = []
        self.connections = 0
        self.open_connections = 0
        self.in_flight = 0
        self.peak_in_flight = 0
        self.models = ModelStore(models, dimensions)
        self.registry = registry if isinstance(registry, Registry) else Registry(registry)
        self.cloud = Cloud(signed_in=signed_in)
        self._ollama = Ollama(
            State(
                version=Version(version),
                store=self.models,
                loaded=LoadedModels(keep_alive),
                registry=self.registry,
                cloud=self.cloud,
                limits=Limits(tokens, token_rate, embed_seconds, embed_error),
                keys=None if keys is None else frozenset(keys),
                origins=tuple(origins),
            )
        )
        self._ssl_context = ssl_context
        self._slots = anyio.Semaphore(parallel) if parallel is not None else None
        self._max_queue = max_queue
        self._queued = 0
        self._scripts: dict[str, deque[Reply]] = {}
        self._always: dict[str, Reply] = {}
        self._changed = anyio.Event()
        self._crashes: list[Exception] = []

    def __repr__(self) -> str:
        return (
            f"<FakeOllama {self.url} requests={len(self.requests)} "
            f"open_connections={self.open_connections}>"
        )

    @property
    def url(self) -> str:
        """The base URL, such as `http://127.0.0.1:40123`."""
        scheme = "https" if self._ssl_context is not None else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    @property
    def blobs(self) -> Blobs:
        """The blobs by digest: what was uploaded, and the layers of the models."""
        return self.models.blobs

    @property
    def loaded(self) -> list[LoadedModel]:
        """What is loaded now, the model that stays longest first; only inside of `async with`."""
        return self._ollama.state.loaded.now()

    def script(self, path: str, *replies: Reply) -> None:
        """Queue replies for a path: one for each request, in order; then it is as before."""
        self._scripts.setdefault(path, deque()).extend(replies)

    def always(self, path: str, reply: Reply | None) -> None:
        """Answer each request to a path with this reply from now on; None takes it away."""
        if reply is None:
            self._always.pop(path, None)
        else:
            self._always[path] = reply

    async def wait_for_requests(self, count: int) -> None:
        """Wait until so many requests in total have been received.

        With their bodies, but for those that are recorded at their headers: uploads of blobs, and
        what is answered by an `early` reply.
        """
        await self._wait_until(lambda: len(self.requests) >= count)

    async def wait_all_closed(self) -> None:
        """Wait until no connection is open."""
        await self._wait_until(lambda: self.open_connections == 0)

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        await anyio.lowlevel.checkpoint()
        while not condition():
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    # -----------------------------------------------------------------------------------------
    # Life

    async def __aenter__(self) -> Self:
        self._listener = await _listen(self.host, self.port)
        self.port = self._listener.getsockname()[1]
        address = self._listener.getsockname()[0]
        self._ollama.loopback = address.startswith("127.") or address == "::1"
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._accept)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        scope = self._group.cancel_scope
        # No task of ours lets an Exception out, nor cancels the group.
        died = scope.cancel_called
        try:
            if died:
                return await self._group.__aexit__(exc_type, exc, traceback) or False
            # With the body's exception the group would wrap it; without the shield a cancellation
            # from outside could replace it on asyncio.
            scope.shield = True
            scope.cancel()
            await self._group.__aexit__(None, None, None)
        finally:
            self._listener.close()
        if exc is None and self._crashes:
            raise self._crashes[0]
        return False

    async def _accept(self) -> None:
        while True:
            await anyio.wait_readable(self._listener)
            # All that have come: with hundreds at once the listening queue must not overflow.
            while (sock := self._accept_one()) is not None:
                self.connections += 1
                self.open_connections += 1
                self._group.start_soon(self._serve, RawStream(sock), self.connections)

    def _accept_one(self) -> socket.socket | None:
        try:
            return self._listener.accept()[0]
        except (BlockingIOError, ConnectionAbortedError):
            return None

    async def _serve(self, raw: RawStream, number: int) -> None:
        """Serve one connection, and close it in any case."""
        connection: Connection | None = None
        stream: anyio.abc.ByteStream = raw
        try:
            if self._ssl_context is not None:
                stream = await TLSStream.wrap(raw, server_side=True, ssl_context=self._ssl_context)
            connection = Connection(self, stream, number)
            await connection.serve()
            if connection.ending != "reset" and stream is not raw:
                raw.stop_reading()
                await stream.aclose()
        except (anyio.BrokenResourceError, anyio.EndOfStream, ssl.SSLError):
            pass  # the client broke off the handshake or the goodbye
        except Exception as exc:  # noqa: BLE001 - leaving the server raises it
            self.crashed(exc)
        finally:
            if connection is not None and connection.ending == "reset":
                raw.reset()
            else:
                raw.finish()  # with unread bytes a bare close() would send RST instead of FIN
                raw.close()
            self.open_connections -= 1
            self._notify()

    # -----------------------------------------------------------------------------------------
    # What connections ask for

    def started(self, request: Recording) -> tuple[Reply, bool] | None:
        """Record a request at its headers: uploads, and what is answered that early."""
        upload = request.method == "POST" and request.path.startswith(BLOBS)
        if not upload and not self._choose(request.path, take=False).early:
            return None
        reply = self.received(request)
        request.body_limit = KEPT
        if not upload or reply.content != "default":
            return reply, True
        return reply, self._ollama.begin(request)

    def received(self, request: RecordedRequest) -> Reply:
        """Record a request and choose its reply. For the connections."""
        self.requests.append(request)
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self._notify()
        return self._choose(request.path, take=True)

    def _choose(self, path: str, *, take: bool) -> Reply:
        queue = self._scripts.get(path)
        if queue:
            return queue.popleft() if take else queue[0]
        return self._always.get(path, _DEFAULT)

    def completed(self, request: RecordedRequest) -> None:
        """Tell of a body that has come. For the connections."""
        del request
        self._notify()

    def ended(self, request: RecordedRequest) -> None:
        """Count a request out. For the connections."""
        self.in_flight -= 1
        self._ollama.state.loaded.release(request)

    def crashed(self, error: Exception) -> None:
        """Keep a failure of the fake itself until it is left. For the connections."""
        self._crashes.append(error)

    @asynccontextmanager
    async def slot(self, request: RecordedRequest) -> AsyncGenerator[bool]:
        """Hold one of the parallel places; False where the queue is full. For the connections."""
        if self._slots is None or request.path not in MODEL_PATHS:
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
        """The message of a reply. For the connections."""
        if busy:
            return message_of(Reply.busy())
        if isinstance(reply.content, Generated):
            message = await self._ollama.message(request, reply.content)
        elif reply.content == "default":
            message = await self._ollama.message(request, Generated())
        else:
            return message_of(reply)
        message.headers = {**message.headers, **reply.headers}
        return message


async def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; looks up the host only where it is no IP address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
        address = (host, port)
    except OSError:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, address = found[0][0], found[0][4][:2]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)  # noqa: FBT003
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except BaseException:
        listener.close()
        raise
    return listener
