"""A list of messages that grows by those of each turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, overload

from ollama_sc._api import arguments
from ollama_sc._api.base import BaseClient
from ollama_sc._api.field_texts import with_field_texts
from ollama_sc._api.fields import MessageLike, ToolLike
from ollama_sc._errors import RequestError
from ollama_sc.types import Image, Message

from .fields import RUN_DEFAULTS, RunFields
from .results import ToolRun
from .stream import ToolStream
from .turns import Trim, Turns

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Conversation(Turns):
    """A conversation with a model: a list of messages, and a way to go on with it.

    ::

        talk = Conversation(client, "qwen3", system="Be brief.", tools=[get_weather])
        run = await talk.send("Will it rain in Oslo?")
        print(run.text, len(talk.messages))

    `messages` is a plain list, and yours: read, change, save or replace it between two turns. A
    turn adds your message, the model's and the results of its calls, all at once when it is whole.
    One that fails, is cancelled or aborted adds nothing. A streamed turn is whole when its last
    event was taken.

    Args:
        client: an `AsyncClient` or a `Group` of one.
        model: its name.
        system: a system message, in front of all others; in place of one that is there already.
        messages: what the conversation begins with; it is copied.
        tools: as in `run_tools`.
        trim: called before each turn with a copy of the list, which your new message ends; what it
            returns is sent, and the list stays as it is. `keep_last` makes such functions.
        **fields: see `RunFields`.

    Attributes:
        messages: the conversation until now.

    Raises:
        RequestError: an argument cannot be right.
    """

    @arguments.expand_kwargs(RunFields, RUN_DEFAULTS)
    def __init__(
        self,
        client: BaseClient,
        model: str,
        *,
        system: str | None = None,
        messages: Sequence[MessageLike] = (),
        tools: Sequence[ToolLike] = (),
        trim: Trim | None = None,
        **fields: Unpack[RunFields],
    ) -> None:
        if not isinstance(client, BaseClient):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise RequestError(
                f"a conversation needs an AsyncClient or a group of one, not {client!r:.80}; "
                "ollama_sc.blocking has one for blocking clients"
            )
        super().__init__(model, system, messages, tools, trim, fields)
        self._client = client

    @overload
    async def send(
        self,
        content: str,
        *,
        images: Sequence[Image] | None = None,
        stream: Literal[False] = False,
    ) -> ToolRun: ...

    @overload
    async def send(
        self, content: str, *, images: Sequence[Image] | None = None, stream: Literal[True]
    ) -> ToolStream: ...

    @overload
    async def send(
        self, content: str, *, images: Sequence[Image] | None = None, stream: bool
    ) -> ToolRun | ToolStream: ...

    async def send(
        self, content: str, *, images: Sequence[Image] | None = None, stream: bool = False
    ) -> ToolRun | ToolStream:
        """Say something, and let the model answer: ``POST /api/chat``, as `run_tools` does.

        Args:
            content: the text.
            images: for models that see, as in a `Message`.
            stream: as in `run_tools`.

        Raises:
            anyio.BusyResourceError: another turn has not ended.
            Exception: as `run_tools` raises it; the list of messages is as it was.
        """
        with self._turn(content, images) as turn:
            return await self._run(self._client, turn, stream=stream)


Conversation.__doc__ = with_field_texts(Conversation.__doc__, RunFields)


def keep_last(count: int) -> Callable[[list[Message]], list[Message]]:
    """A `trim` for `Conversation`: the last messages, and the system message in front of them.

    A call of a tool and its results are not taken apart: where they would be, there are more
    messages than `count`.

    Args:
        count: how many, above zero.
    """
    arguments.count("count", count)
    if not isinstance(count, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise RequestError(f"count must be a whole number above zero, not {count!r:.80}")

    def trim(messages: list[Message]) -> list[Message]:
        system = 0
        while system < len(messages) and messages[system].role == "system":
            system += 1
        start = max(system, len(messages) - count)
        for place in range(system, start):  # a result may be of another role
            if place + len(messages[place].tool_calls or ()) >= start:
                start = place
                break
        while start > system and messages[start].role == "tool":
            start -= 1
        return messages[:system] + messages[start:]

    return trim
