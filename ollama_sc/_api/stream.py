"""The consumer's handle on a streaming call: `Stream`.

What it shares with the call's task is `StreamCall`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, cast

from typing_extensions import TypeVar

from ollama_sc._calls.call import abort_unclosed
from ollama_sc._calls.group import CallGroup
from ollama_sc._calls.outcome import STREAM_CLOSED
from ollama_sc._http.messages import Request
from ollama_sc._http.sender import Sender
from ollama_sc._loop.shielding import aclose_on_exit

if TYPE_CHECKING:
    from ollama_sc._http.socket_trio import Sweeper
    from ollama_sc._replies.join import StreamSpec
    from ollama_sc._timeouts import Timeouts

    from .outputs import Output

from .stream_call import StreamCall

T = TypeVar("T")
P = TypeVar("P", default=None)


class Stream(Generic[T, P]):
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

    Where the call's ``format`` is a type, `parsed` is a value of it once the reply is whole, and
    `partials` the values that are complete until then.
    """

    __slots__ = ("_call", "_output")

    def __init__(self, call: StreamCall[T], output: Output[P] | None = None) -> None:
        self._call = call
        self._output = output

    def _detach(self) -> StreamCall[T]:
        """Its call, for a handle of another kind: from now on, dropping this one does nothing."""
        call = self._call
        del self._call
        return call

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        call = self._call
        parts = call.ready
        if not parts:
            parts = call.ready = await call.next_block()
            if not parts:
                raise StopAsyncIteration
            parts.reverse()
        return parts.pop()

    def batches(self) -> AsyncIterator[list[T]]:
        """The parts of each network read as one list; never an empty one."""
        return _Batches(self)

    def iter_text(self) -> AsyncIterator[str]:
        """The text alone, piece by piece; never an empty one."""
        return _Texts(self)

    def result(self) -> T:
        """What has arrived until now, joined into one response; not a coroutine.

        Text, thinking, tool calls, images and log probabilities are joined. Unknown fields of
        messages have the last value that any part has; the rest is the last part's, and what that
        leaves blank one of the first or last few parts'. ``complete`` says whether it is whole.
        Parts that have arrived and were not iterated over yet are included.
        """
        self._call.catch_up()
        return self._call.joiner.result()

    def parsed(self) -> P:
        """The whole text as a value of the type that was the call's ``format``; not a coroutine.

        It is ``None`` where the format was no type.

        Raises:
            IncompleteStreamError: the reply is not whole, or not yet.
            OutputError: the text does not fit the type.
        """
        if self._output is None:
            return cast("P", None)
        return self._output.parse_whole(self.result(), self._call.label)

    def partials(self) -> AsyncIterator[Any]:
        """The JSON that the text is, as it grows: plain values of what is complete.

        It iterates over the stream. Each time that a string, number or other value is complete, at
        whatever depth, there is a new value: that of the whole text so far, as dictionaries and
        lists without what is not complete. Nothing in it is checked; `parsed` does in the end. Of
        text that is no JSON there is none.
        """
        return _Partials(self)

    def abort(self, reason: object = None) -> bool:
        """End the request now, in whatever phase it is, and discard the parts that wait.

        The consumer gets `AbortError`. Returns whether there was anything to end: a stream
        whose terminal object has arrived is finished, and its parts are still delivered.
        """
        return self._call.abort(reason)

    async def aclose(self) -> None:
        """End the request, and wait until its connection is closed or given back.

        Iterating afterwards raises `AbortError`, unless the reply had arrived whole. A cancelled
        `aclose` does its work all the same.
        """
        self._call.abort(STREAM_CLOSED)
        await self._call.wait_ended()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await aclose_on_exit(self.aclose, exc)

    def __repr__(self) -> str:
        call = self._call
        state = call.phase if not call.ended.is_set() else "ended"
        return f"<Stream of {call.spec.type.__name__}: {call.label}, {state}>"

    def __del__(self) -> None:
        abort_unclosed(self, getattr(self, "_call", None), "stream")


class _Batches(AsyncIterator[list[T]]):
    __slots__ = ("_stream",)

    def __init__(self, stream: Stream[T, Any]) -> None:
        self._stream = stream

    async def __anext__(self) -> list[T]:
        ready = self._stream._call.ready
        if ready:
            parts = ready[::-1]
            ready.clear()
            return parts
        parts = await self._stream._call.next_block()
        if not parts:
            raise StopAsyncIteration
        return parts


class _Texts(AsyncIterator[str]):
    __slots__ = ("_stream", "_text")

    def __init__(self, stream: Stream[Any, Any]) -> None:
        self._stream = stream
        self._text = stream._call.spec.text

    async def __anext__(self) -> str:
        while True:
            text = self._text(await self._stream.__anext__())
            if text:
                return text


class _Partials(AsyncIterator[Any]):
    __slots__ = ("_scanner", "_stream", "_text")

    def __init__(self, stream: Stream[Any, Any]) -> None:
        self._stream = stream
        self._text = stream._call.spec.text
        from ollama_sc._replies.partials import Scanner  # noqa: PLC0415 - few streams need it

        self._scanner = Scanner()

    async def __anext__(self) -> Any:
        scanner, text = self._scanner, self._text
        try:
            while True:
                if scanner.feed(text(await self._stream.__anext__())):
                    return scanner.value
        except StopAsyncIteration:
            if scanner.finish():
                return scanner.value
            raise


async def open_stream(
    group: CallGroup,
    sender: Sender,
    request: Request,
    spec: StreamSpec[T],
    timeouts: Timeouts,
    max_line_bytes: int,
    sweeper: Callable[[], Sweeper],
    output: Output[Any] | None = None,
) -> Stream[T, Any]:
    """Start a streaming call, and wait until the server answers.

    It waits for the reply's headers, which the server sends with the first token: queueing, loading
    the model and reading the prompt all pass before. An error reply is raised here.
    """
    call = StreamCall(group.runtime, request.label, timeouts, spec, sweeper)
    work = partial(call.read, sender, request, max_line_bytes)
    group.start(call, work, subject=(request, sender.base))
    await call.wait(call.responded)
    if not call.succeeded:
        call.raise_error()
    return Stream(call, output)
