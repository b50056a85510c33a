"""The consumer's handle on a streamed run: `ToolStream`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Generic, Self

from typing_extensions import TypeVar

from ollama_sc._calls.call import abort_unclosed
from ollama_sc._loop.shielding import aclose_on_exit
from ollama_sc.types import ChatResponse

from .events import RunCall
from .results import ToolEvent, ToolRun

T = TypeVar("T", default=None)


class ToolStream(Generic[T]):
    """A run of tools as it happens: an async iterator of events, and a context manager.

    ::

        async with await client.run_tools("qwen3", messages, [get_weather], stream=True) as stream:
            async for event in stream:
                match event:
                    case ChatResponse():
                        print(event.text, end="", flush=True)
                    case ToolStarted(call=call):
                        print(f"[{call.function.name}]")
        run = stream.result()

    Events are the parts of the model's replies, `ToolStarted` and `ToolEnded` for each call, and
    `RoundEnded` where a reply and all of its calls are whole. They are bounded, and the next round
    begins when `RoundEnded` is taken.

    It is iterated over, closed and dropped as a `Stream` is: one task at a time; a cancelled
    iteration loses no event; leaving the block ends the model's request and all tools, and waits
    for them; one that is dropped without being closed is aborted, with a `ResourceWarning`.
    Iterating raises `AbortError` after an abort, and what the run failed with after the events
    before it.
    """

    __slots__ = ("_call", "_snapshot")

    def __init__(self, call: RunCall, snapshot: Callable[[], ToolRun[T]]) -> None:
        self._call = call
        self._snapshot = snapshot

    def _detach(self) -> tuple[RunCall, Callable[[], ToolRun[T]]]:
        """Its parts, for a handle of another kind: from now on, dropping this one does nothing."""
        call = self._call
        del self._call
        return call, self._snapshot

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ToolEvent:
        try:
            return self._call.take()
        except IndexError:
            pass
        event = await self._call.next_event()
        if event is None:
            raise StopAsyncIteration
        return event

    def iter_text(self) -> AsyncIterator[str]:
        """The text of the model's replies alone, piece by piece; never an empty one."""
        return _Texts(self)

    def result(self) -> ToolRun[T]:
        """What the run has come to until now; not a coroutine.

        It holds whole rounds: no call is in its messages without its result.
        """
        return self._snapshot()

    def abort(self, reason: object = None) -> bool:
        """End the run now, the model's request and all tools, and discard the events that wait.

        The consumer gets `AbortError`. Returns whether there was anything to end.
        """
        return self._call.abort(reason)

    async def aclose(self) -> None:
        """End the run, and wait until nothing of it is running, however long a thread may take.

        Iterating afterwards raises `AbortError`, unless the last event was taken. A cancelled
        `aclose` does its work all the same.
        """
        self._call.abort("the stream was closed")
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
        return f"<ToolStream: {call.label}, {'ended' if call.ended.is_set() else 'running'}>"

    def __del__(self) -> None:
        abort_unclosed(self, getattr(self, "_call", None), "stream")


class _Texts(AsyncIterator[str]):
    __slots__ = ("_stream",)

    def __init__(self, stream: ToolStream[Any]) -> None:
        self._stream = stream

    async def __anext__(self) -> str:
        while True:
            event = await self._stream.__anext__()
            if isinstance(event, ChatResponse) and event.message.content:
                return event.message.content
