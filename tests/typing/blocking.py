"""Driven by type checkers alone: what blocking calls return, and what they accept."""

from collections.abc import Iterator
from typing import Any

import httpx
from typing_extensions import assert_type

import ollama_sc
from ollama_sc import (
    ChatResponse,
    Client,
    EmbedResponse,
    GenerateResponse,
    ListResponse,
    Message,
    ProgressResponse,
    Statistics,
    ToolRun,
    VersionResponse,
    chat,
)
from ollama_sc.blocking import Batches, Conversation, Group, Stream, ToolStream

MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]


def calls(client: Client, choice: bool) -> None:
    assert_type(client.chat("m"), ChatResponse)
    assert_type(client.chat("m", MESSAGES), ChatResponse)
    assert_type(client.chat("m", MESSAGES, stream=False), ChatResponse)
    assert_type(client.chat("m", MESSAGES, stream=True), Stream[ChatResponse])
    assert_type(client.chat("m", MESSAGES, stream=choice), ChatResponse | Stream[ChatResponse])
    assert_type(client.chat("m", (message for message in MESSAGES)), ChatResponse)
    assert_type(client.generate("m", "p", stream=True), Stream[GenerateResponse])
    assert_type(client.pull("m", stream=True), Stream[ProgressResponse])
    assert_type(client.create("m", "from"), ProgressResponse)
    assert_type(client.embed("m", ["a"]), EmbedResponse)
    assert_type(client.list(), ListResponse)
    assert_type(client.version(timeout=httpx.Timeout(5)), VersionResponse)
    assert_type(client.load("m"), None)
    assert_type(client.has_model("m"), bool)
    assert_type(client.request("GET", "/"), Any)
    assert_type(client.request("GET", "/", type=dict[str, int]), dict[str, int])
    assert_type(client.request("GET", "/", type=None), None)
    assert_type(client.abort("enough"), int)
    assert_type(client.statistics(), Statistics)
    assert_type(client.shutdown(), int)
    assert_type(client.embed_many("m", ["a"]), Batches)


def streams(client: Client) -> None:
    with client.chat("m", MESSAGES, stream=True) as stream:
        for part in stream:
            assert_type(part, ChatResponse)
    assert_type(stream.result(), ChatResponse)
    assert_type(stream.iter_text(), Iterator[str])
    assert_type(stream.batches(), Iterator[list[ChatResponse]])
    assert_type(stream.abort(), bool)
    with client.embed_many("m", iter(["a"])) as batches:
        for batch in batches:
            assert_type(batch.start, int)


def groups(client: Client) -> None:
    with client.group() as group:
        assert_type(group, Group)
        assert_type(group.chat("m"), ChatResponse)
        assert_type(group.group(), Group)


def functions(choice: bool) -> None:
    assert_type(chat("m", MESSAGES), ChatResponse)
    assert_type(ollama_sc.chat("m", MESSAGES, stream=True), Stream[ChatResponse])
    assert_type(ollama_sc.generate("m", stream=choice), GenerateResponse | Stream[GenerateResponse])
    assert_type(ollama_sc.list(), ListResponse)
    assert_type(ollama_sc.abort(), int)


def clients() -> None:
    with Client("h", headers=[("a", "b")], timeout=httpx.Timeout(1), backend="trio") as client:
        assert_type(client, Client)
    Client(headers={"Authorization": None})
    Client(backend="curio")  # type: ignore[arg-type]
    Client(limits=httpx.Limits())  # type: ignore[call-arg]
    client.chat()  # type: ignore[call-overload]
    client.chat("m", temperature=0)  # type: ignore[call-overload]
    client.chat("m", MESSAGES, stream="yes")  # type: ignore[call-overload]
    client.embed("m", 5)  # type: ignore[arg-type]


def typed(client: Client, group: Group, choice: bool) -> None:
    assert_type(client.chat("m", MESSAGES, format=list[int]), ChatResponse[list[int]])
    assert_type(client.chat("m", MESSAGES, format=int).parsed, int)
    assert_type(client.chat("m", MESSAGES, format=int, stream=True), Stream[ChatResponse, int])
    assert_type(client.chat("m", MESSAGES, format=int, stream=True).parsed(), int)
    assert_type(group.run_tools("m", MESSAGES, format=int), ToolRun[int])
    assert_type(client.run_tools("m", MESSAGES), ToolRun)
    assert_type(client.run_tools("m", MESSAGES, stream=True), ToolStream)
    assert_type(client.run_tools("m", MESSAGES, stream=choice), ToolRun | ToolStream)
    talk = Conversation(client, "m", max_rounds=3)
    assert_type(talk.send("Hi"), ToolRun)
    assert_type(talk.send("Hi", stream=True), ToolStream)
    assert_type(talk.messages, list[Message])
