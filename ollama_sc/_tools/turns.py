"""What conversations have in common, however one waits for a turn."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import anyio

from ollama_sc._api import arguments
from ollama_sc._api.base import BaseClient
from ollama_sc._api.fields import MessageLike, ToolLike
from ollama_sc._errors import RequestError
from ollama_sc.types import Image, Message

from .events import RunCall
from .messages import as_message, as_messages
from .results import ToolRun
from .stream import ToolStream

Trim = Callable[[list[Message]], Sequence[MessageLike]]


class Turn:
    """A turn that has not ended.

    Attributes:
        user: what the user says.
        sent: the messages that are sent, that one with them.
        running: whether it has begun in the event loop, and ends there.
    """

    __slots__ = ("running", "sent", "user")

    def __init__(self, user: Message) -> None:
        self.user = user
        self.sent: Sequence[MessageLike] = ()
        self.running = False


class Turns:
    """The messages of a conversation, and the turn that runs.

    A turn begins in the thread of who speaks, and runs in the event loop.

    Attributes:
        messages: the conversation until now.
    """

    def __init__(
        self,
        model: str,
        system: str | None,
        messages: Sequence[MessageLike],
        tools: Sequence[ToolLike],
        trim: Trim | None,
        fields: Mapping[str, Any],
    ) -> None:
        from .start import check_run  # noqa: PLC0415 - most programs have no conversations

        arguments.name("model", model)
        arguments.text("system", system)
        if trim is not None and not callable(trim):
            raise RequestError(f"trim must be a function of messages, not {trim!r:.80}")
        check_run(tools, fields)
        self.messages: list[Message] = as_messages(messages)
        if system is not None:
            if self.messages and self.messages[0].role == "system":
                del self.messages[0]
            self.messages.insert(0, Message("system", system))
        self._model = model
        self._tools = tools
        self._trim = trim
        self._fields = fields
        self._running: dict[None, Turn] = {}

    @property
    def _busy(self) -> bool:
        return bool(self._running)

    @contextmanager
    def _turn(self, content: str, images: Sequence[Image] | None) -> Generator[Turn, None, None]:
        """A turn, one at a time; one that has not run is over when this is left."""
        if not isinstance(content, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise RequestError(f"the content must be text, not {type(content).__name__}")
        turn = Turn(Message("user", content, images=None if images is None else list(images)))
        try:
            if self._running.setdefault(None, turn) is not turn:
                raise anyio.BusyResourceError("sending a message with")
            turn.sent = [*self.messages, turn.user]
            if self._trim is not None:
                turn.sent = self._trim([as_message(message) for message in turn.sent])
            yield turn
        finally:
            if not turn.running:
                self._end(turn)

    async def _run(
        self, client: BaseClient, turn: Turn, *, stream: bool
    ) -> ToolRun[Any] | ToolStream[Any]:
        """Run a turn; its messages are added when it is whole, all at once."""
        from .start import make_run, start_run  # noqa: PLC0415 - as above

        turn.running = True
        try:
            call, run = make_run(
                client, self._model, turn.sent, self._tools, self._fields, stream=stream
            )

            def add() -> None:
                self.messages += [turn.user, *run.added()]

            def end(_call: RunCall) -> None:
                self._end(turn)

            if stream:
                call.on_ended = end
            result = await start_run(client, call, run, stream=stream, on_complete=add)
            if not stream:
                add()
        except BaseException:
            self._end(turn)
            raise
        if not stream:
            self._end(turn)
        return result

    def _end(self, turn: Turn) -> None:
        """The next turn can begin."""
        if self._running.get(None) is turn:
            self._running.clear()

    def __repr__(self) -> str:
        return f"<Conversation with {self._model!r}, {len(self.messages)} messages>"
