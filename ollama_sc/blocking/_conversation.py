"""Conversations for programs without an event loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

from ollama_sc._api import arguments
from ollama_sc._api.field_texts import with_field_texts
from ollama_sc._api.fields import MessageLike, ToolLike
from ollama_sc._errors import RequestError
from ollama_sc._tools.fields import RUN_DEFAULTS, RunFields
from ollama_sc._tools.results import ToolRun
from ollama_sc._tools.turns import Trim, Turns
from ollama_sc.types import Image

from ._calls import Client, Group
from ._tool_stream import ToolStream

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Conversation(Turns):
    """A conversation with a model: a list of messages, and a way to go on with it.

    ::

        talk = Conversation(client, "qwen3", system="Be brief.", tools=[get_weather])
        run = talk.send("Will it rain in Oslo?")
        print(run.text, len(talk.messages))

    `messages` is a plain list, and yours: read, change, save or replace it between two turns. A
    turn adds your message, the model's and the results of its calls, all at once when it is whole.
    One that fails, is interrupted or aborted adds nothing. A streamed turn is whole when its last
    event was taken.

    Args:
        client: a blocking `Client` or a `Group` of one.
        model: its name.
        system: a system message, in front of all others; in place of one that is there already.
        messages: what the conversation begins with; it is copied.
        tools: as in `run_tools`.
        trim: called before each turn with a copy of the list, which your new message ends; what it
            returns is sent, and the list stays as it is. It may ask the same client.
            `ollama_sc.keep_last` makes such functions.
        **fields: see `RunFields`.

    Attributes:
        messages: the conversation until now.

    Raises:
        RequestError: an argument cannot be right.
    """

    @arguments.expand_kwargs(RunFields, RUN_DEFAULTS)
    def __init__(
        self,
        client: Client | Group,
        model: str,
        *,
        system: str | None = None,
        messages: Sequence[MessageLike] = (),
        tools: Sequence[ToolLike] = (),
        trim: Trim | None = None,
        **fields: Unpack[RunFields],
    ) -> None:
        if not isinstance(client, Client | Group):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise RequestError(
                f"a conversation needs a blocking client or a group of one, not {client!r:.80}; "
                "ollama_sc.Conversation is for AsyncClient"
            )
        super().__init__(model, system, messages, tools, trim, fields)
        self._client = client

    @overload
    def send(
        self,
        content: str,
        *,
        images: Sequence[Image] | None = None,
        stream: Literal[False] = False,
    ) -> ToolRun: ...

    @overload
    def send(
        self, content: str, *, images: Sequence[Image] | None = None, stream: Literal[True]
    ) -> ToolStream: ...

    @overload
    def send(
        self, content: str, *, images: Sequence[Image] | None = None, stream: bool
    ) -> ToolRun | ToolStream: ...

    def send(
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
            return self._client._run(self._run, turn, stream=stream)


Conversation.__doc__ = with_field_texts(Conversation.__doc__, RunFields)
