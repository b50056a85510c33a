"""A server that costs next to nothing, so that what is measured is the client.

Its replies are bytes that were made before. What it does is asked for by the model's name:

- ``stream-3000-0``: 3,000 parts, as fast as the socket takes them;
- ``stream-60-50``: 60 parts, one every 50 ms;
- ``gate-100-60-50``: the same, but the first part comes at once, and the others when a hundred such
  streams have theirs;
- ``hold``: one part, and then nothing until the client goes away;
- ``served-100-8``: embeddings that take 100 ms, eight requests at a time, others wait;
- any other: embeddings at once.

``/bench/usage`` says how much CPU time the process has used; ``/bench/quiet`` answers when no stream
is left, with the time on the machine's monotonic clock.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from . import wire
from .machine import raise_file_limit

GATE_SECONDS = 0.25  # so that the client has read the first parts when the others begin
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
TICK = 0.001


class Asked(msgspec.Struct):
    """What the server needs to know of a request."""

    model: str = ""
    input: str | list[str] = ""
    encoding_format: str = ""

    @property
    def count(self) -> int:
        return 1 if isinstance(self.input, str) else len(self.input)


class Stream:
    """One paced stream: its parts go out when the wheel comes by."""

    def __init__(self, connection: Connection, tokens: int) -> None:
        self.connection = connection
        self.tokens = tokens
        self.sent = 0
        self.ended = False

    def send_next(self) -> None:
        chunks = wire.stream_chunks()
        data = chunks[self.sent % len(chunks)]
        if not self.sent:
            data = wire.NDJSON + data
        self.sent += 1
        if self.sent == self.tokens:  # the last object comes with the last token
            data += wire.stream_end(self.tokens)
            self.connection.stream_over()
        self.connection.transport.write(data)


class Wheel:
    """One timer for all streams of a pace, which spreads them evenly over the interval."""

    def __init__(self, interval: float) -> None:
        self.slots: list[list[Stream]] = [[] for _ in range(max(1, round(interval / TICK)))]
        # The golden section: wherever the count of streams ends, they are spread.
        self.step = next(
            step
            for step in range(max(1, round(len(self.slots) * 0.618)), len(self.slots) + 1)
            if _coprime(step, len(self.slots))
        )
        self.place = 0
        self.now = 0
        self.streams = 0
        self.due = 0.0

    def add(self, stream: Stream) -> None:
        self.place = (self.place + self.step) % len(self.slots)
        self.slots[self.place].append(stream)
        self.streams += 1
        if self.streams == 1:
            loop = asyncio.get_running_loop()
            self.due = loop.time() + TICK
            loop.call_later(TICK, self.turn)

    def turn(self) -> None:
        loop = asyncio.get_running_loop()
        while self.streams and self.due <= loop.time():
            self.now = (self.now + 1) % len(self.slots)
            self.due += TICK
            left = []
            for stream in self.slots[self.now]:
                if not stream.ended:
                    stream.send_next()
                if not stream.ended:
                    left.append(stream)
            self.streams -= len(self.slots[self.now]) - len(left)
            self.slots[self.now] = left
        if self.streams:  # a turn that is late makes up for it; uvloop's clock has milliseconds
            loop.call_later(TICK, self.turn)


def _coprime(first: int, second: int) -> bool:
    while second:
        first, second = second, first % second
    return first == 1


class Service:
    """Replies that take a fixed time, so many at once; others wait in order."""

    def __init__(self, seconds: float, slots: int) -> None:
        self.seconds = seconds
        self.free = slots
        self.waiting: deque[Callable[[], None]] = deque()

    def serve(self, answer: Callable[[], None]) -> None:
        if not self.free:
            self.waiting.append(answer)
            return
        self.free -= 1
        asyncio.get_running_loop().call_later(self.seconds, self._done, answer)

    def _done(self, answer: Callable[[], None]) -> None:
        self.free += 1
        if self.waiting:
            self.serve(self.waiting.popleft())
        answer()


class Bench:
    """What the connections share."""

    def __init__(self) -> None:
        self.live: set[Stream] = set()
        self.quiet: list[Callable[[], None]] = []
        self.wheels: dict[float, Wheel] = {}
        self.gates: dict[str, list[Stream]] = {}
        self.services: dict[str, Service] = {}

    def wheel(self, milliseconds: int) -> Wheel:
        if milliseconds not in self.wheels:
            self.wheels[milliseconds] = Wheel(milliseconds / 1000)
        return self.wheels[milliseconds]

    def wait_at_gate(self, model: str, stream: Stream) -> None:
        """Let them all go on together."""
        _, streams, _, milliseconds = model.split("-")
        waiting = self.gates.setdefault(model, [])
        waiting.append(stream)
        if len(waiting) == int(streams):
            del self.gates[model]
            wheel = self.wheel(int(milliseconds))
            loop = asyncio.get_running_loop()
            loop.call_later(GATE_SECONDS, lambda: [wheel.add(each) for each in waiting])

    def service(self, name: str) -> Service:
        if name not in self.services:
            _, milliseconds, slots = name.split("-")
            self.services[name] = Service(int(milliseconds) / 1000, int(slots))
        return self.services[name]

    def ended(self, stream: Stream) -> None:
        stream.ended = True
        self.live.discard(stream)
        if not self.live:
            waiting, self.quiet = self.quiet, []
            for answer in waiting:
                answer()


class Connection(asyncio.Protocol):
    """Reads requests, one after another, and writes what they ask for."""

    transport: asyncio.Transport

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.data = b""
        self.stream: Stream | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.stream_over()

    def stream_over(self) -> None:
        if self.stream is not None:
            self.bench.ended(self.stream)
            self.stream = None

    def data_received(self, data: bytes) -> None:
        self.data = self.data + data if self.data else data
        while self.data:
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                return
            length = LENGTH.search(self.data, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.data) < whole:
                return
            method, path, _ = self.data[: self.data.index(b"\r\n")].split(b" ")
            body = self.data[end + 4 : whole]
            self.data = self.data[whole:]
            self.answer(method, path, body)

    def answer(self, method: bytes, path: bytes, body: bytes) -> None:
        asked = msgspec.json.decode(body, type=Asked) if body else Asked()
        match method, path:
            case (b"POST", b"/api/chat" | b"/api/generate"):
                self.chat(asked.model)
            case (b"POST", b"/api/embed"):
                self.embed(asked.model, wire.embed_reply(asked.count))
            case (b"POST", b"/v1/embeddings"):
                packed = asked.encoding_format == "base64"
                self.embed(asked.model, wire.openai_reply(asked.count, packed=packed))
            case (b"POST", b"/api/show"):
                self.json({"details": {"family": "bert"}, "model_info": {}, "capabilities": []})
            case (b"GET", b"/api/version"):
                self.json({"version": "0.33.0"})
            case (b"GET", b"/api/tags" | b"/api/ps"):
                self.json({"models": []})
            case (b"GET", b"/bench/usage"):
                self.json({"cpu": time.process_time()})
            case (b"GET", b"/bench/quiet"):
                if self.bench.live:
                    self.bench.quiet.append(self.say_the_time)
                else:
                    self.say_the_time()
            case _:
                self.transport.write(wire.reply(b"404 page not found", b"404 Not Found"))

    def json(self, value: Any) -> None:
        self.transport.write(wire.reply(msgspec.json.encode(value)))

    def say_the_time(self) -> None:
        self.json({"at": time.monotonic()})

    def chat(self, model: str) -> None:
        kind, *numbers = model.split("-")
        if kind == "hold":
            self.stream = Stream(self, 0)
            self.bench.live.add(self.stream)
            self.stream.send_next()
            return
        if kind == "gate":
            self.stream = Stream(self, int(numbers[1]))
            self.bench.live.add(self.stream)
            self.bench.wait_at_gate(model, self.stream)
            self.stream.send_next()
            return
        tokens, milliseconds = map(int, numbers)
        if not milliseconds:
            self.transport.write(wire.whole_stream(tokens))
            return
        self.stream = Stream(self, tokens)
        self.bench.live.add(self.stream)
        self.bench.wheel(milliseconds).add(self.stream)

    def embed(self, model: str, data: bytes) -> None:
        if model.startswith("served-"):
            self.bench.service(model).serve(lambda: self.transport.write(data))
        else:
            self.transport.write(data)


async def serve() -> None:
    bench = Bench()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(bench), "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    raise_file_limit()
    wire.stream_chunks()
    wire.embed_reply(1)
    wire.openai_reply(1, packed=True)
    try:
        import uvloop
    except ImportError:
        run = asyncio.run
    else:
        run = uvloop.run
    try:
        run(serve())
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
