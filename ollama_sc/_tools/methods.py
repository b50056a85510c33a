"""The method of a client or group that runs tools.

The rest of this package is imported with the first run: most programs have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from ollama_sc._api import arguments
from ollama_sc._api.base import BaseClient
from ollama_sc._api.fields import MessageLike, ToolLike

from .fields import RUN_DEFAULTS, AnyRunFields, RunFields, TypedRunFields

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .results import ToolRun
    from .stream import ToolStream

F = TypeVar("F")


class ToolRuns(BaseClient):
    """The runs of tools of a client or group."""

    @overload
    async def run_tools(
        self,
        model: str,
        messages: Iterable[MessageLike],
        tools: Sequence[ToolLike] = (),
        *,
        stream: Literal[False] = False,
        **fields: Unpack[RunFields],
    ) -> ToolRun: ...

    @overload
    async def run_tools(
        self,
        model: str,
        messages: Iterable[MessageLike],
        tools: Sequence[ToolLike] = (),
        *,
        stream: Literal[True],
        **fields: Unpack[RunFields],
    ) -> ToolStream: ...

    @overload
    async def run_tools(
        self,
        model: str,
        messages: Iterable[MessageLike],
        tools: Sequence[ToolLike] = (),
        *,
        stream: bool,
        **fields: Unpack[RunFields],
    ) -> ToolRun | ToolStream: ...

    @overload
    async def run_tools(
        self,
        model: str,
        messages: Iterable[MessageLike],
        tools: Sequence[ToolLike] = (),
        *,
        stream: Literal[False] = False,
        **fields: Unpack[TypedRunFields[F]],
    ) -> ToolRun[F]: ...

    @overload
    async def run_tools(
        self,
        model: str,
        messages: Iterable[MessageLike],
        tools: Sequence[ToolLike] = (),
        *,
        stream: Literal[True],
        **fields: Unpack[TypedRunFields[F]],
    ) -> ToolStream[F]: ...

    @overload
    async def run_tools(
        self,
        model: str,
        messages: Iterable[MessageLike],
        tools: Sequence[ToolLike] = (),
        *,
        stream: bool,
        **fields: Unpack[TypedRunFields[F]],
    ) -> ToolRun[F] | ToolStream[F]: ...

    @arguments.expand_kwargs(AnyRunFields, RUN_DEFAULTS)
    async def run_tools(
        self,
        model: str,
        messages: Iterable[MessageLike],
        tools: Sequence[ToolLike] = (),
        *,
        stream: bool = False,
        **fields: Unpack[AnyRunFields],
    ) -> ToolRun[Any] | ToolStream[Any]:
        """Let a model answer with the help of tools: ``POST /api/chat``, as often as it calls any.

        ::

            def get_weather(city: str) -> str:
                "The weather of a city."

            run = await client.run_tools("qwen3", messages, [get_weather])
            print(run.response.text)

        The run is one operation of this client: `abort`, a cancelled caller, the end of a group and
        a timeout, whose `total` is the whole run's, end the model's request and every tool alike.
        The calls of a reply run side by side. Functions that are not asynchronous run in worker
        threads, which are waited for however long they take; see `Tool.of`.

        Arguments are converted to the annotated types. What cannot be called, and how arguments do
        not fit, the model is told; so is a `ToolError`.

        Args:
            model: its name.
            messages: as in `chat`; not empty.
            tools: functions, methods and other things that can be called, asynchronous or not;
                `Tool` objects; objects that are tools by themselves. What only describes a tool, as
                the API's JSON object does, is sent and cannot be run.
            stream: whether there is a `ToolStream` of events. The call returns when the model
                begins to answer.
            **fields: see `RunFields`; with a type as `format`, see `TypedRunFields`.

        Raises:
            RequestError: an invalid argument, such as a function that cannot be a tool.
            OutputError: the answer does not fit the type that is its `format`.
            Exception: what a tool raised, as it is, unless ``on_tool_error="tell"``; what `approve`
                raised.
        """
        from .start import make_run, start_run  # noqa: PLC0415 - see above

        call, run = make_run(self, model, messages, tools, fields, stream=stream)
        return await start_run(self, call, run, stream=stream)
