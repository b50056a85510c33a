"""A proxy that breaks what passes through it, in a thread of its own.

Each connection draws its faults from a random generator of its own, which the proxy's seed and the
number of the connection determine: what is wrong at accepting, and for either direction how bytes
are cut into pieces, how long they are held back, and what happens at which byte. A connection that
is used for long enough gets every fault that it drew.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

from anyio.from_thread import start_blocking_portal

BLOCK = 64 * 1024
HELD = 1.5  # seconds that a stalled connection stays
# What a byte becomes. A spoiled one can be no part of JSON, nor of the names and numbers in HTTP,
# so that nobody takes what it stands in for right; a flipped bit can make another right text.
Corruption = Literal["spoil", "flip"]
FAULTS = ["cut", "cut", "reset", "reset", "half close", "stall", "swallow", *["corrupt"] * 3]
BROKEN = (OSError, ssl.SSLError, EOFError, RuntimeError)


class Direction:
    """What happens to the bytes that go one way."""

    def __init__(self, chance: random.Random, *, to_client: bool) -> None:
        self.chance = chance
        self.to_client = to_client
        self.passed = 0
        self.at = self.draw()
        self.fault = chance.choice(FAULTS)
        self.pieces = chance.choice([0, 0, 0, 1, 7, 100])  # bytes at most; 0: as they come
        self.delays = chance.random() < 0.3

    def draw(self) -> int:
        """After how many bytes; many requests and replies are short, uploads are long."""
        if self.chance.random() < 0.5:
            return self.chance.randrange(20_000, 500_000)
        return int(10 ** (self.chance.random() * 4))

    def again(self) -> None:
        """Draw a further fault, for later."""
        self.at = self.passed + self.draw()
        self.fault = self.chance.choice(FAULTS)

    def corrupted(self, byte: int, how: Corruption) -> int:
        """Another byte."""
        if how == "flip":
            return byte ^ 1 << self.chance.randrange(8)
        # Go reads any byte in a text, and replaces those that are no UTF-8: zero is an error there.
        return self.chance.choice([0, 0xFF]) if self.to_client else 0


class Link:
    """One connection: the client's side and the server's."""

    def __init__(self, proxy: FaultProxy, number: int, client: asyncio.StreamWriter) -> None:
        self.chance = random.Random(f"{proxy.seed} {number}")
        self.proxy = proxy
        self.writers = [client]

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Pass on what comes, until an end."""
        start = self.chance.choice([*[""] * 50, "reset at accept", "close at accept", "no answer"])
        if start and not self.proxy.is_calm:
            self.proxy.done[start] += 1
            if start == "no answer":
                await asyncio.sleep(HELD)
            elif start == "reset at accept":
                self.reset()
            return
        there, server = await asyncio.open_connection("127.0.0.1", self.proxy.port_behind)
        client = self.writers[0]
        self.writers.append(server)
        up = Direction(self.chance, to_client=False)
        down = Direction(self.chance, to_client=True)
        pumps = [
            asyncio.ensure_future(self.pump(reader, server, up)),
            asyncio.ensure_future(self.pump(there, client, down)),
        ]
        try:
            # One side that has ended may still get what the other one has to say.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Direction
    ) -> None:
        """One direction; raises where the connection is to end."""
        while data := await reader.read(BLOCK):
            while way.passed + len(data) > way.at and not self.proxy.is_calm:
                cut = way.at - way.passed
                await self.send(writer, data[:cut], way)
                data = await self.fault(reader, writer, way, data[cut:])
            await self.send(writer, data, way)
        if writer.can_write_eof():
            writer.write_eof()
        else:
            raise EOFError

    async def send(self, writer: asyncio.StreamWriter, data: bytes, way: Direction) -> None:
        """Pass bytes on, in pieces and late."""
        chance = way.chance
        if way.delays and chance.random() < 0.3:
            await asyncio.sleep(chance.random() * 0.02)
        end = min(len(data), 1000) if way.pieces else 0  # more would be slow, and show no more
        at = 0
        while at < end and not writer.is_closing():
            size = chance.randint(1, way.pieces)
            writer.write(data[at : at + size])
            at += size
            await asyncio.sleep(0.0005 if chance.random() < 0.05 else 0)
        if writer.is_closing():  # the other side has ended it
            raise EOFError
        writer.write(data[at:])
        way.passed += len(data)
        await writer.drain()

    async def fault(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        way: Direction,
        data: bytes,
    ) -> bytes:
        """Let the fault happen; what goes on after it."""
        fault = way.fault
        self.proxy.done[f"{fault} {'down' if way.to_client else 'up'}"] += 1
        if fault == "corrupt":
            data = bytes([way.corrupted(data[0], self.proxy.corruption)]) + data[1:]
            way.again()
            return data
        if fault == "reset":
            self.reset()
        elif fault == "stall":  # reads no further: whoever sends has to wait
            await asyncio.sleep(HELD)
        elif fault in ("swallow", "half close"):  # takes all, and passes nothing on
            if fault == "half close" and writer.can_write_eof():
                writer.write_eof()
            with suppress(TimeoutError):
                async with asyncio.timeout(HELD):
                    while await reader.read(BLOCK):
                        pass
        raise EOFError

    def reset(self) -> None:
        """RST to both sides."""
        for writer in self.writers:
            sock = writer.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def close(self) -> None:
        """FIN to both sides, behind what was sent; not for ever."""
        try:
            for writer in self.writers:
                writer.close()
            async with asyncio.timeout(0.2):
                for writer in self.writers:
                    with suppress(*BROKEN):
                        await writer.wait_closed()
        except TimeoutError:
            pass
        finally:
            for writer in self.writers:
                writer.transport.abort()


class FaultProxy:
    """Accepts connections, and makes one to the server behind for each.

    Attributes:
        done: how often which fault has happened.
        open: how many connections clients have open.
        is_calm: whether nothing goes wrong any more.
    """

    def __init__(
        self,
        port_behind: int,
        seed: object,
        corruption: Corruption,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.port_behind = port_behind
        self.seed = seed
        self.corruption: Corruption = corruption
        self.done: Counter[str] = Counter()
        self.accepted = 0
        self.is_calm = False
        self.failures: list[BaseException] = []
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        return len(self._tasks)

    @property
    def corruptions(self) -> int:
        """How many bytes have become others."""
        return self.done["corrupt up"] + self.done["corrupt down"]

    async def start(self) -> None:
        """Listen; what speaks TLS with clients speaks plain HTTP with the server behind."""
        self._server = await asyncio.start_server(
            self._accepted, "127.0.0.1", 0, ssl=self._tls, backlog=1024
        )
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def calm(self) -> None:
        """End every connection; nothing goes wrong with later ones."""
        self.is_calm = True
        await self._end_all()

    async def stop(self) -> None:
        """Accept nothing more, and end every connection."""
        self._server.close()
        await self._end_all()

    async def _end_all(self) -> None:
        while tasks := set(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=1)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.ensure_future(self._serve(reader, writer, self.accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        link = Link(self, number, writer)
        try:
            await link.run(reader)
        except BROKEN:
            pass
        except asyncio.CancelledError:
            pass  # `calm` and `stop`; the sides have still to be closed
        except Exception as error:
            self.failures.append(error)
        await link.close()


@contextmanager
def fault_proxy(
    port_behind: int,
    *,
    seed: object,
    corruption: Corruption = "spoil",
    tls: ssl.SSLContext | None = None,
) -> Iterator[tuple[FaultProxy, Any]]:
    """A proxy in a thread of its own, and the portal into that thread."""
    proxy = FaultProxy(port_behind, seed, corruption, tls)
    with start_blocking_portal() as portal:
        portal.call(proxy.start)
        try:
            yield proxy, portal
        finally:
            portal.call(proxy.stop)
    assert not proxy.failures, proxy.failures
