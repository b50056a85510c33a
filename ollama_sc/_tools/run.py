"""The loop of a run: the model is asked, its calls are made, and it is asked again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from ollama_sc._api import arguments
from ollama_sc._api.base import BaseClient
from ollama_sc._api.fields import AnyChatFields, MessageLike
from ollama_sc._api.outputs import Output, asked_again
from ollama_sc._api.stream import Stream
from ollama_sc._errors import OutputError
from ollama_sc._http.messages import Request
from ollama_sc._replies.join import CHAT
from ollama_sc.types import ChatResponse, Message

from .events import RunCall
from .results import RoundEnded, Stopped, ToolCallRecord, ToolRun
from .rounds import Caller
from .toolbox import Toolbox

_PATH = "/api/chat"


class Asking(NamedTuple):
    """What all requests of a run have in common.

    Attributes:
        model: its name.
        fields: of the requests, but for their format.
        toolbox: the tools.
        format: what the answer looks like, as the API has it.
        output: what its text is, where that is a type.
        stream: whether the parts of replies are wanted.
    """

    model: str
    fields: Mapping[str, Any]
    toolbox: Toolbox
    format: Any
    output: Output[Any] | None
    stream: bool

    def request(self, messages: Sequence[MessageLike], *, with_tools: bool) -> Request:
        """A request, with the tools or else with the format.

        Raises:
            RequestError: a value that cannot be right.
        """
        sent = self.toolbox.sent if with_tools else []
        return arguments.build_request(
            _PATH,
            self.model,
            AnyChatFields,
            self.fields,
            messages=messages,
            stream=self.stream,
            tools=sent or None,
            format=None if sent else self.format,
        )


class Run:
    """One run.

    A format is not sent with the tools: the server's grammar for it lets no model call any. The
    model answers freely, and is asked once more, with the format and without the tools, where that
    answer does not fit.

    Args:
        client: what asks the model.
        call: the operation that this is.
        asking: what its requests are made of.
        messages: what the conversation begins with.
        caller: makes the calls.
        max_rounds: see `LoopFields`.
    """

    def __init__(
        self,
        client: BaseClient,
        call: RunCall,
        asking: Asking,
        messages: list[Message],
        caller: Caller,
        max_rounds: int,
    ) -> None:
        self._client = client
        self._call = call
        self._asking = asking
        self._messages = messages
        self._caller = caller
        self._max_rounds = max_rounds
        self._given = len(self._messages)
        self._records: list[ToolCallRecord] = []
        self._asked = self._rounds = 0  # the latter when the last whole round ended
        self._response: ChatResponse[Any] = ChatResponse(message=Message("assistant"))
        self._stopped: Stopped = "unfinished"

    def snapshot(self) -> ToolRun[Any]:
        """What the run has come to: its whole rounds."""
        return ToolRun(
            response=self._response,
            messages=list(self._messages),
            calls=list(self._records),
            rounds=self._rounds,
            stopped=self._stopped,
        )

    def added(self) -> list[Message]:
        """The messages that the run has added to those that were given."""
        return self._messages[self._given :]

    async def work(self) -> ToolRun[Any]:
        """Run until the model answers, or has been asked or repeats itself too often."""
        stopped: Stopped = "unfinished"
        asked = 0
        while stopped == "unfinished":
            asked += 1
            reply = await self._ask(self._messages, with_tools=True)
            calls = reply.message.tool_calls or []
            if not calls:
                stopped = "answered"
                await self._answer(reply)
                break
            records = await self._caller.make(calls, asked, len(self._records))
            if self._caller.repeated:
                stopped = "repeated"
            elif asked == self._max_rounds:
                stopped = "max_rounds"
            self._records += records
            results = [record.message for record in records]
            if stopped == "unfinished" or not self._has_format():
                await self._end_round(reply, results, stopped)
            else:
                await self._end_round(reply, results, "unfinished")
                await self._answer_in_format(stopped)
        return self.snapshot()

    def _has_format(self) -> bool:
        return self._asking.format is not None and bool(self._asking.toolbox.sent)

    async def _answer(self, reply: ChatResponse[Any]) -> None:
        """Take a reply without calls as the answer, where it is one."""
        if self._asking.format is None:
            await self._end_round(reply, [], "answered")
        elif self._asking.output is not None:
            try:
                reply = self._asking.output.read(reply, self._call.label)
            except OutputError as error:
                # Where it was asked for in the format, that was the first attempt.
                first = None if self._asking.toolbox.sent else (reply, error)
                await self._answer_in_format("answered", first)
            else:
                await self._end_round(reply, [], "answered")
        elif self._asking.toolbox.sent and not (
            self._asking.format == "json" and _is_json(reply.text)
        ):
            await self._answer_in_format("answered")
        else:
            await self._end_round(reply, [], "answered")

    async def _answer_in_format(
        self, stopped: Stopped, failed: tuple[ChatResponse[Any], OutputError] | None = None
    ) -> None:
        """Ask for the answer in its format, as often as that may be tried."""
        output, messages = self._asking.output, list(self._messages)
        attempts = 1 if output is None else output.attempts
        reply = self._response
        for attempt in range(1, attempts + 1):
            if failed is None:
                reply = await self._ask(messages, with_tools=False)
                if output is None:
                    break
                try:
                    reply = output.read(reply, self._call.label)
                    break
                except OutputError as error:
                    failed = reply, error
            reply, why = failed
            if attempt == attempts:
                raise why
            messages += [reply.message, Message("user", asked_again(why))]
            failed = None
        await self._end_round(reply, [], stopped)

    async def _ask(self, messages: Sequence[MessageLike], *, with_tools: bool) -> ChatResponse[Any]:
        """Ask the model; its whole reply. The place at the limiter is free again then."""
        request = self._asking.request(messages, with_tools=with_tools)
        reply = await self._client._generate(
            request, CHAT, self._asking.fields, stream=self._asking.stream
        )
        if not isinstance(reply, Stream):
            self._asked += 1
            return reply
        self._call.set_responded()
        async with reply:
            while parts := await reply._call.next_block():
                await self._call.put_parts(parts)
        self._asked += 1
        return reply.result()

    async def _end_round(
        self, reply: ChatResponse[Any], results: list[Message], stopped: Stopped
    ) -> None:
        added = [reply.message, *results]
        self._messages += added
        self._rounds = self._asked
        self._response = reply
        self._stopped = stopped
        if self._asking.stream:
            event = RoundEnded(round=self._rounds, response=reply, messages=added)
            await self._call.end_round(event, last=stopped != "unfinished")


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
