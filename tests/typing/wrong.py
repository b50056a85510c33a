"""Driven by type checkers alone: wrong calls are type errors.

Each line says which error it must be; one that becomes legal fails the checkers, because they are
told to warn of comments that ignore nothing.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true
from collections.abc import AsyncIterator
from typing import Any

from ollama_sc import (
    AsyncClient,
    ChatResponse,
    EmbedResponse,
    GenerateResponse,
    Message,
    Stream,
    Timeouts,
)

USER = {"role": "user", "content": "Hi"}


def sync() -> None: ...


async def arguments(client: AsyncClient) -> None:
    await client.chat()  # type: ignore[call-overload]
    await client.chat(5, [USER])  # type: ignore[call-overload]
    await client.chat(None, [USER])  # type: ignore[call-overload]
    await client.chat("m", USER)  # type: ignore[arg-type]
    await client.chat("m", Message("user", "Hi"))  # type: ignore[arg-type]
    await client.chat("m", "Hi")  # type: ignore[arg-type]
    await client.chat("m", ["Hi"])  # type: ignore[list-item]
    await client.chat("m", [USER], True)  # type: ignore[call-overload]
    await client.chat("m", [USER], stream="yes")  # type: ignore[call-overload]
    await client.chat("m", [USER], stream=None)  # type: ignore[call-overload]
    await client.chat("m", [USER], temperature=0)  # type: ignore[call-overload]
    await client.chat("m", [USER], prompt="Hi")  # type: ignore[call-overload]
    await client.chat("m", [USER], options=[("seed", 1)])  # type: ignore[call-overload]
    await client.chat("m", [USER], think="huge")  # type: ignore[call-overload]
    await client.chat("m", [USER], format="yaml")  # type: ignore[call-overload]
    await client.chat("m", [USER], format="xml")  # type: ignore[call-overload]
    await client.chat("m", [USER], format=3)  # type: ignore[call-overload]
    await client.chat("m", [USER], format="json", attempts=2)  # type: ignore[call-overload]
    await client.generate("m", "p", format=3)  # type: ignore[call-overload]
    await client.generate("m", "p", format="xml")  # type: ignore[call-overload]
    await client.run_tools("m", [USER], sync)  # type: ignore[call-overload]
    await client.run_tools("m", [USER], [sync], max_rounds="3")  # type: ignore[call-overload]
    await client.run_tools("m", [USER], [sync], tools=[sync])  # type: ignore[call-overload]
    await client.run_tools("m", [USER], [sync], on_tool_error="ignore")  # type: ignore[call-overload]
    await client.chat("m", [USER], keep_alive=b"5m")  # type: ignore[call-overload]
    await client.chat("m", [USER], timeout="5")  # type: ignore[call-overload]
    await client.chat("m", [USER], tools={"type": "function"})  # type: ignore[dict-item]
    await client.chat("m", [USER], top_logprobs="3")  # type: ignore[call-overload]
    await client.generate("m", 5)  # type: ignore[call-overload]
    await client.generate("m", ["p"])  # type: ignore[call-overload]
    await client.generate("m", "p", messages=[USER])  # type: ignore[call-overload]
    await client.generate("m", "p", tools=[])  # type: ignore[call-overload]
    await client.generate("m", "p", context=["1"])  # type: ignore[list-item]
    await client.generate("m", "p", images=[5])  # type: ignore[list-item]
    await client.embed(5, "x")  # type: ignore[arg-type]
    await client.embed("m", 5)  # type: ignore[arg-type]
    await client.embed("m", None)  # type: ignore[arg-type]
    await client.embed("m", [1, 2])  # type: ignore[list-item]
    await client.embed("m", "x", stream=True)  # type: ignore[call-arg]
    await client.embed("m", "x", think=True)  # type: ignore[call-arg]
    await client.list("m")  # type: ignore[call-arg, arg-type]
    await client.list(model="m")  # type: ignore[call-arg]
    await client.request("GET")  # type: ignore[call-overload]
    await client.request("GET", "/", model="m")  # type: ignore[call-overload]


async def results(client: AsyncClient, choice: bool) -> None:
    one: Stream[ChatResponse] = await client.chat("m")  # type: ignore[assignment]
    two: ChatResponse = await client.chat("m", stream=True)  # type: ignore[assignment]
    three: ChatResponse = await client.chat("m", stream=choice)  # type: ignore[assignment]
    four: ChatResponse = await client.generate("m")  # type: ignore[assignment]
    five: Stream[ChatResponse] = await client.generate("m", stream=True)  # type: ignore[assignment]
    six: GenerateResponse = await client.embed("m")  # type: ignore[assignment]
    seven: EmbedResponse = await client.request("GET", "/", type=ChatResponse)  # type: ignore[arg-type]
    eight: int = client.abort  # type: ignore[assignment]
    del one, two, three, four, five, six, seven, eight
    reply = client.chat("m")
    print(reply.message)  # type: ignore[attr-defined]
    print((await client.chat("m")).response)  # type: ignore[attr-defined]
    print((await client.generate("m")).message)  # type: ignore[attr-defined]
    print((await client.chat("m", stream=choice)).message)  # type: ignore[union-attr]


async def streams(stream: Stream[ChatResponse], client: AsyncClient) -> None:
    for part in stream:  # type: ignore[attr-defined]
        pass
    async for word in stream:
        print(word.response)  # type: ignore[attr-defined]
    with stream:  # type: ignore[attr-defined]
        pass
    with client:  # type: ignore[attr-defined]
        pass
    wrong: AsyncIterator[GenerateResponse] = stream  # type: ignore[assignment]
    text: AsyncIterator[bytes] = stream.iter_text()  # type: ignore[assignment]
    del wrong, text
    await stream.result()  # type: ignore[misc]
    await stream.abort()  # type: ignore[misc]
    await client.abort()  # type: ignore[misc]


def values(message: Message, limits: Timeouts) -> None:
    print(message.nonsense)  # type: ignore[attr-defined]
    message.content = 5  # type: ignore[assignment]
    Message()  # type: ignore[call-arg]
    Message("user", ["Hi"])  # type: ignore[arg-type]
    Message("user", text="Hi")  # type: ignore[call-arg]
    Timeouts(5)  # type: ignore[call-arg]
    Timeouts(read=5)  # type: ignore[call-arg]
    Timeouts(idle="5")  # type: ignore[arg-type]
    limits.idle = 5  # type: ignore[misc]
    AsyncClient(5)  # type: ignore[arg-type]
    AsyncClient(hots="h")  # type: ignore[call-arg]
    AsyncClient(max_in_flight="4")  # type: ignore[arg-type]
    replies: list[ChatResponse] = [message]  # type: ignore[list-item]
    anything: dict[str, Any] = message  # type: ignore[assignment]
    del replies, anything
