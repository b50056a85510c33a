"""`FakeOllama`: a fake server as its users see it."""

import os
import ssl
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from ollama_sc.testing._cassette import Cassette
from ollama_sc.testing._endpoints.routes import Ollama
from ollama_sc.testing._http.listener import Listener
from ollama_sc.testing._http.request import RecordedRequest
from ollama_sc.testing._http.shared import running_loop
from ollama_sc.testing._replies import Reply
from ollama_sc.testing._serving import Serving
from ollama_sc.testing._state.blobs import Blobs
from ollama_sc.testing._state.cloud import Cloud
from ollama_sc.testing._state.loaded import FIVE_MINUTES, LoadedModel, LoadedModels
from ollama_sc.testing._state.registry import DEFAULT_PULLABLE, FakePull, Registry
from ollama_sc.testing._state.state import Limits, State
from ollama_sc.testing._state.store import DEFAULT_MODELS, FakeModel, ModelStore
from ollama_sc.testing._version import Version

T = TypeVar("T")


class FakeOllama:
    """A server that behaves like Ollama on a real TCP socket, and can inject faults.

    It listens inside of a context manager, of which there are two. `async with` runs it in the
    caller's event loop, so it also works under trio's `MockClock`. `with` runs it in a thread with
    a loop of its own, for tests without a loop or with any; the pytest fixture `fake_ollama` is
    that. On exit all connections are closed and no task is left; an exception of the body
    propagates unchanged.

    What it has may be read and changed from any thread, and its ``wait_...`` can be awaited in any
    event loop; so can those of its requests. Where there is no event loop it is
    ``fake.call(fake.wait_for_requests, 1)``.

    Args:
        host: An IP address, or a name to be resolved.
        port: 0 selects a free one.
        models: Names, or `FakeModel` objects. Names of known models get their capabilities.
        token_rate: Tokens per second. None: as fast as the client reads.
        tokens: Length of a completion if ``options.num_predict`` does not set it.
        call_tools: Whether a chat with tools asks for one call of each, with made-up arguments, and
            answers when it has their results. Otherwise it answers at once.
        dimensions: Dimensions of the embeddings.
        embed_seconds: Duration of each request for embeddings, whatever its input.
        embed_error: A function of a text that returns the status and the error text with which it
            fails, or None. One such text fails its whole request.
        version: The version of the server, as in `/api/version`; features that it lacks are
            missing, and others behave as they did in it.
        ssl_context: Serves https.
        reuse: False closes each connection after one response.
        parallel: How many chat, generate and embed requests run concurrently; others wait without
            a response, in order. None: unlimited.
        max_queue: How many requests may wait; any more draw 503. None: unlimited.
        registry: The models that can be pulled: names, `FakeModel` and `FakePull` objects, or a
            `Registry`, which can also be slow and fail.
        keep_alive: Seconds that a model stays loaded if its request does not set it.
        signed_in: Whether the server is signed in to an account.
        keys: The valid keys of `/api/web_search` and `/api/web_fetch`, which belong to
            ollama.com. None: any key.
        origins: Values of ``Origin`` that are allowed besides local ones; `*` allows all.

    Attributes:
        host: What was given.
        port: The port it listens at.
        models: The models; may be modified.
        registry: The `Registry`; may be modified.
        cloud: The account and the cloud behind the server; may be modified.

    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        models: Sequence[str | FakeModel] = DEFAULT_MODELS,
        token_rate: float | None = None,
        tokens: int = 24,
        call_tools: bool = False,
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
        self.models = ModelStore(models, dimensions)
        self.registry = registry if isinstance(registry, Registry) else Registry(registry)
        self.cloud = Cloud(signed_in=signed_in)
        state = State(
            version=Version(version),
            store=self.models,
            loaded=LoadedModels(keep_alive),
            registry=self.registry,
            cloud=self.cloud,
            limits=Limits(tokens, token_rate, embed_seconds, embed_error, call_tools),
            keys=None if keys is None else frozenset(keys),
            origins=tuple(origins),
        )
        self._serving = Serving(Ollama(state), reuse=reuse, parallel=parallel, max_queue=max_queue)
        self._ssl_context = ssl_context
        self._listener: Listener | None = None
        self._thread: ExitStack | None = None
        self._portal: BlockingPortal | None = None
        self._loop: object = None
        self._running = False

    @classmethod
    def replay(cls, cassette: str | os.PathLike[str], **options: Any) -> Self:
        """A fake that answers as a real server did, byte for byte.

        The cassette is a folder that ``python -m ollama_sc.testing record`` has written. A request
        gets the response to the same method, path, query and JSON: of several to the same one after
        the other, then the last one again. Any other request draws a 501 whose text says in what
        it differs. `script` and `always` come first, so faults can be added.

        Args:
            cassette: The folder.
            **options: As for `FakeOllama`.

        Raises:
            CassetteError: It is no such folder.

        """
        fake = cls(**options)
        fake._serving.replay = Cassette(cassette)
        return fake

    def __repr__(self) -> str:
        return (
            f"<FakeOllama {self.url if self.port else 'without a port'} "
            f"requests={len(self.requests)} open_connections={self.open_connections}>"
        )

    @property
    def url(self) -> str:
        """The base URL, such as ``http://127.0.0.1:40123``.

        Raises:
            RuntimeError: it has none before it runs, unless a port was given.

        """
        if not self.port:
            raise RuntimeError("this fake has no port yet: use `with` or `async with`")
        scheme = "https" if self._ssl_context is not None else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    @property
    def requests(self) -> list[RecordedRequest]:
        """Each request so far; may be cleared."""
        return self._serving.requests

    @property
    def connections(self) -> int:
        """How many connections have been accepted."""
        return self._serving.connections

    @property
    def open_connections(self) -> int:
        """How many of them are open."""
        return self._serving.open_connections

    @property
    def in_flight(self) -> int:
        """How many requests are in progress."""
        return self._serving.in_flight

    @property
    def peak_in_flight(self) -> int:
        """The highest number of requests in progress at once; may be set back to zero."""
        return self._serving.peak_in_flight

    @peak_in_flight.setter
    def peak_in_flight(self, value: int) -> None:
        self._serving.peak_in_flight = value

    @property
    def blobs(self) -> Blobs:
        """The blobs by digest: uploads, and the layers of the models."""
        return self.models.blobs

    @property
    def loaded(self) -> list[LoadedModel]:
        """The models loaded now, the last to expire first; only while it runs."""
        now = self._serving.ollama.state.loaded.now
        if self._portal is None or running_loop() is self._loop:
            return now()
        return self._portal.call(now)  # they expire by the clock of its loop

    def script(self, path: str, *replies: Reply) -> None:
        """Queue replies for a path: one per request, in order; afterwards it is as before.

        What CORS decides on before any endpoint uses none of them up: a browser's preflight, and a
        request of a page whose origin is refused.

        Raises:
            ValueError: it is no path such as ``/api/chat``, so that no request would match it.
            TypeError: one of them is no `Reply`.

        """
        _check_script(path, replies)
        self._serving.scripts.setdefault(path, deque()).extend(replies)

    def always(self, path: str, reply: Reply | None) -> None:
        """Reply to each further request to a path with this reply; None removes it.

        Raises as `script` does.
        """
        _check_script(path, () if reply is None else (reply,))
        if reply is None:
            self._serving.always.pop(path, None)
        else:
            self._serving.always[path] = reply

    async def wait_for_requests(self, count: int) -> None:
        """Wait until `count` requests in total have been received.

        Including their bodies, except for requests that are recorded when their headers have been
        received: uploads of blobs, and those with an `early` reply.

        Raises:
            RuntimeError: the fake has been closed before.
        """
        self._check_clock()
        await self._serving.wait_until(lambda: len(self.requests) >= count)

    async def wait_all_closed(self) -> None:
        """Wait until no connection is open."""
        self._check_clock()
        await self._serving.wait_until(lambda: self.open_connections == 0)

    def call(self, function: Callable[..., Awaitable[T]], *args: object, timeout: float = 10) -> T:
        """Run an async function where there is no event loop, such as in a plain test.

        ::

            fake.call(fake.wait_for_requests, 1, timeout=10)

        It runs in the loop of the fake's own thread.

        Args:
            function: such as `wait_for_requests`, or `wait_closed` of a request.
            *args: its arguments.
            timeout: how many seconds it may take.

        Raises:
            TimeoutError: it took longer.
            RuntimeError: there is an event loop here, where it is to be awaited instead; or the
                fake runs in no thread of its own.

        """
        if running_loop() is not None:
            raise RuntimeError("there is an event loop here: await it, without `call`")
        if self._portal is None:
            raise RuntimeError("`call` is for a fake in a thread of its own: `with FakeOllama()`")
        result: T = self._portal.call(self._limited, function, args, timeout)
        return result

    async def _limited(
        self, function: Callable[..., Awaitable[T]], args: Sequence[object], timeout: float
    ) -> T:
        with anyio.move_on_after(timeout):
            return await function(*args)
        name = getattr(function, "__name__", repr(function))
        seen = ", ".join(f"{request.method} {request.path}" for request in self.requests)
        raise TimeoutError(
            f"{name} took longer than {timeout:g} s; requests so far: {seen or 'none'}"
        )

    def _check_clock(self) -> None:
        """Raise RuntimeError where time stands still for whoever waits for another thread."""
        if self._portal is None or "trio.testing" not in sys.modules:
            return
        import trio  # noqa: PLC0415 - it is there already
        import trio.testing  # noqa: PLC0415

        if trio.lowlevel.in_trio_run() and isinstance(
            trio.lowlevel.current_clock(), trio.testing.MockClock
        ):
            raise RuntimeError(MOCK_CLOCK)

    # -- lifetime ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._running:
            raise RuntimeError("this fake is running already")
        listener = Listener(self._serving, self.host, self.port, self._ssl_context)
        self._listener = await listener.__aenter__()
        self.port = listener.port
        address = listener.address
        self._serving.ollama.loopback = address.startswith("127.") or address == "::1"
        self._loop = running_loop()
        self._serving.open()
        self._running = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        assert self._listener is not None
        try:
            suppressed = await self._listener.__aexit__(exc_type, exc, traceback)
        finally:
            self._running = False
            self._serving.close()
        if exc is None and self._serving.crashes:
            raise self._serving.crashes[0]
        return suppressed

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal("asyncio"))
            stack.enter_context(portal.wrap_async_context_manager(self))
            self._portal = portal
            self._thread = stack.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        thread, self._thread = self._thread, None
        assert thread is not None
        try:
            thread.__exit__(exc_type, exc, traceback)
        finally:
            self._portal = None


def _check_script(path: str, replies: Sequence[object]) -> None:
    """Raise where no request could draw these replies."""
    if not path.startswith("/") or "?" in path:
        raise ValueError(f"a path begins with a slash and has no query, not {path!r}")
    for reply in replies:
        if not isinstance(reply, Reply):
            raise TypeError(f"a scripted reply must be a Reply, not {reply!r}")


MOCK_CLOCK = (
    "this fake runs in a thread of its own, by the real clock, which a mock clock does not wait "
    "for: use `async with FakeOllama() as fake:` inside of the test"
)
