"""Calls of every kind through a proxy that breaks what passes through it (`tests.soak.faulty`).

Each call ends in a right reply, an `OllamaError` or its own cancellation, within a bound. A reply
is right where it is derived from what its request alone has sent: a vector from its text, an answer
from its `format`, a digest from its bytes. Afterwards the client is as good as new.

`make test` runs this for about a second on each loop and in each variant; `make soak`, or
`SOAK_SECONDS`, for longer. `SOAK_SEED` draws the same faults and calls again.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import random
import secrets
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from ollama_sc import AbortError, AsyncClient, ModelNotFoundError, OllamaError, Timeouts
from ollama_sc.testing import FakeModel
from ollama_sc.testing._model.synthetic import embedding
from tests.embedding.support import Served, serving
from tests.soak.faulty import Corruption, FaultProxy, fault_proxy
from tests.support import LONG, is_quiet, new_seed
from tests.wire import client_context, open_files, server_context, until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize(
        "anyio_backend",
        [
            pytest.param(("asyncio", {}), id="asyncio"),
            pytest.param(("trio", {}), id="trio"),
            pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
        ],
    ),
]

SECONDS = float(os.environ.get("SOAK_SECONDS", "60" if LONG else "0.7"))
IS_LONG = SECONDS > 20
SEED = new_seed()
WORKERS = 16
PLACES = 12
AFTERWARDS = 200
LIMITS = Timeouts(connect=0.5, first_chunk=0.4, idle=0.3, total=1)
BOUND = 5.0  # seconds that a call of these limits takes at most, on a machine that has other work
BOUND_OF_JOBS = 15.0  # of many requests, each tried twice
GROWTH = 16  # MiB, after the first third
MIB = 1024**2
EMBEDS, CHATS = "nomic-embed-text", "llama3.2"
SHOWN = [f"shown-{number}" for number in range(5)]
KINDS = [
    *("version", "embed", "embed", "chat", "stream", "stream", "stream", "show"),
    *("copy", "blob", "many", "request"),
]


def read(text: str | None) -> object:
    """JSON, or text that a flipped bit has made something else of."""
    try:
        return json.loads(text or "")
    except ValueError:
        return text


class WrongReply(Exception):  # noqa: N818
    """A reply that is not what its request asked for."""


class Soak:
    """What the workers do, and what they saw.

    Args:
        server: the fake server behind the proxy.
        proxy: what is between.
        clients: to be used at random; they share what is behind them.
        seed: determines the calls.
    """

    def __init__(
        self, server: Served, proxy: FaultProxy, clients: list[AsyncClient], seed: object
    ) -> None:
        self.server = server
        self.proxy = proxy
        self.clients = clients
        self.chance = random.Random(f"calls {seed}")
        self.ends: Counter[str] = Counter()
        self.running: dict[str, tuple[str, float, float]] = {}
        self.asked: set[str] = set()
        self.failures: list[str] = []
        self.altered = 0

    def check(self, got: object, wanted: object) -> None:
        """Hold a reply to its request.

        Where a flipped bit makes another right text, a client cannot know: that is counted. What
        another call has sent is wrong however it came.
        """
        if got == wanted:
            return
        text, allowed = repr(got), repr(wanted)
        foreign = any(name in text and name not in allowed for name in self.asked)
        if self.proxy.corruption == "spoil" or foreign:
            raise WrongReply(f"{got!r} in place of {wanted!r}")
        self.altered += 1

    async def ask(self, kind: str, name: str, calls: Any, options: dict[str, Any]) -> None:
        """One call of a kind, whose reply says its name or something that comes from it."""
        chance = self.chance
        if kind == "version":
            self.check((await calls.version(**options)).version, "0.33.0")
        elif kind == "embed":
            texts = [f"{name} {number}" for number in range(chance.choice([1, 2, 20]))]
            reply = await calls.embed(EMBEDS, texts, **options)
            self.check([list(vector) for vector in reply.embeddings], [vector_of(t) for t in texts])
        elif kind == "chat":
            message = {"role": "user", "content": "x" * chance.choice([1, 1, 300_000])}
            reply = await calls.chat(CHATS, [message], format={"const": name}, **options)
            self.check(read(reply.message.content), name)
        elif kind == "stream":
            await self.stream(name, calls, options)
        elif kind == "show":
            shown = chance.choice(SHOWN)
            self.check((await calls.show(shown, **options)).system, f"I am {shown}")
        elif kind == "copy":
            await calls.copy(SHOWN[0], name, **options)
            try:
                await calls.delete(name, **options)
            except ModelNotFoundError:
                # It was there, and nothing but this deletes it: this was sent twice.
                self.check("deleted before", "deleted")
        elif kind == "blob":
            data = name.encode() + chance.randbytes(chance.choice([0, 10, 300_000]))
            digest = await calls.create_blob(data, **options)
            self.check(digest, "sha256:" + hashlib.sha256(data).hexdigest())
            self.check(digest in self.server.fake.blobs, True)
            self.server.fake.blobs.discard(digest)
        elif kind == "many":
            texts = [f"{name} {number}" for number in range(40)]
            done = 0
            async with calls.embed_many(
                EMBEDS, texts, batch_size=15, attempts=2, retry_timeout=2.0, **options
            ) as batches:
                async for batch in batches:
                    got = [[round(float(x), 4) for x in vector] for vector in batch.vectors]
                    wanted = [[round(x, 4) for x in vector_of(text)] for text in batch.inputs]
                    self.check(batch.inputs, texts[batch.start : batch.start + len(batch)])
                    self.check(close(got, wanted), True)
                    done += len(batch)
            self.check(done, len(texts))
        else:
            asked = {"model": EMBEDS, "input": name}
            reply = await calls.request("POST", "/api/embed", json=asked, **options)
            self.check(reply["embeddings"] if isinstance(reply, dict) else reply, [vector_of(name)])

    async def stream(self, name: str, calls: Any, options: dict[str, Any]) -> None:
        """A streamed chat, read whole, slowly or not to its end."""
        chance = self.chance
        wanted = [name] * chance.choice([1, 10, 200])
        message = {"role": "user", "content": "x" * chance.choice([1, 1, 1, 300_000])}
        stream = await calls.chat(
            CHATS, [message], format={"const": wanted}, stream=True, **options
        )
        way, text = chance.choice(["whole", "whole", "slow", "leave", "abort"]), ""
        pauses = 20 if way == "slow" else 0
        self.running[name] = (f"stream, {way}", *self.running[name][1:])
        async with stream:
            async for part in stream:
                text += part.message.content or ""
                if pauses and chance.random() < 0.1:
                    pauses -= 1
                    await anyio.sleep(chance.random() * 0.02)
                elif way == "leave" and chance.random() < 0.05:
                    return
                elif way == "abort" and chance.random() < 0.05:
                    stream.abort()
        self.check(read(text), wanted)

    async def worker(self, end: float) -> None:
        """Call and be disturbed, again and again."""
        chance = self.chance
        while (now := anyio.current_time()) < end and not self.failures:
            kind, name = chance.choice(KINDS), f"id-{secrets.token_hex(8)}"
            calls = chance.choice(self.clients)
            options: dict[str, Any] = {}
            if chance.random() < 0.2:
                options["timeout"] = Timeouts(total=0.01 + chance.random() ** 2 * 0.3)
            limit = 60.0 if chance.random() < 0.7 else chance.random() ** 2 * 0.2
            limit = min(limit, end + (BOUND if IS_LONG else 0.2) - now)
            bound = BOUND_OF_JOBS if kind == "many" else BOUND
            self.asked.add(name)
            self.running[name] = kind, now, bound
            try:
                with anyio.move_on_after(limit) as scope:
                    ending = await self.call(kind, name, calls, options)
                if scope.cancelled_caught:
                    ending = "cancelled"
                self.ends[ending] += 1
            except Exception:
                self.failures.append(f"{kind} {name}\n{traceback.format_exc()}")
            finally:
                del self.running[name]
                self.asked.discard(name)

    async def call(self, kind: str, name: str, calls: Any, options: dict[str, Any]) -> str:
        """One call, perhaps aborted; how it ended."""
        chance = self.chance
        async with calls.group() as group, anyio.create_task_group() as tasks:
            ending = "right"
            if chance.random() < 0.2:
                tasks.start_soon(self.abort, calls if chance.random() < 0.05 else group)
            try:
                await self.ask(kind, name, group, options)
            except AbortError:
                ending = "aborted"
            except OllamaError as error:
                str(error)
                ending = type(error).__name__
            tasks.cancel_scope.cancel()
        return ending

    async def abort(self, calls: Any) -> None:
        await anyio.sleep(self.chance.random() ** 2 * 0.1)
        calls.abort("chance")

    async def watch(self) -> None:
        """Say which calls do not end; and keep the server's memory of what was asked short."""
        while True:
            await anyio.sleep(0.2)
            now = anyio.current_time()
            for name, (kind, begun, bound) in self.running.items():
                if now - begun > bound:
                    active = [call for client in self.clients for call in client._calls.calls()]
                    late = f"{kind} {name} has not ended after {now - begun:.1f} s of {active}"
                    self.failures.append(late)
            if self.failures:
                raise AssertionError("\n".join(self.failures[:3]))
            del self.server.fake.requests[:-10]

    async def run(self, seconds: float) -> None:
        """All workers, for so long."""
        end = anyio.current_time() + seconds
        async with anyio.create_task_group() as watching:
            watching.start_soon(self.watch)
            async with anyio.create_task_group() as tasks:
                for _ in range(WORKERS):
                    tasks.start_soon(self.worker, end)
            watching.cancel_scope.cancel()
        assert not self.failures, "\n".join(self.failures[:3])

    async def is_as_new(self, portal: Any) -> None:
        """Nothing is left of any call; through a calm proxy every call succeeds."""
        for client in self.clients:
            await until(lambda client=client: is_quiet(client))
            assert client._shared.limiter.available == PLACES
            statistics = client.statistics()
            assert statistics.open == statistics.idle <= PLACES
        # Idle connections whose other end is gone are no hindrance.
        await anyio.to_thread.run_sync(portal.call, self.proxy.calm)
        waiting = iter(range(AFTERWARDS))

        async def worker() -> None:
            for number in waiting:
                texts = [f"calm {number}"]
                client = self.clients[number % len(self.clients)]
                reply = await client.embed(EMBEDS, texts, timeout=20)
                assert [list(vector) for vector in reply.embeddings] == [vector_of(texts[0])]

        async with anyio.create_task_group() as tasks:
            for _ in range(PLACES):
                tasks.start_soon(worker)


def vector_of(text: str) -> list[float]:
    """What the fake server makes of a text."""
    return embedding(text, 8, 8)


def close(got: list[list[float]], wanted: list[list[float]]) -> bool:
    """Whether vectors are the same but for rounding."""
    return len(got) == len(wanted) and all(
        len(a) == len(b) and all(abs(x - y) < 0.001 for x, y in zip(a, b, strict=True))
        for a, b in zip(got, wanted, strict=True)
    )


def tasks() -> list[str]:
    """The tasks of the running event loop."""
    return sorted(str(task.name) for task in anyio.get_running_tasks())


def threads() -> list[str]:
    """The threads but for those that pools keep for later."""
    pools = ("AnyIO worker", "Trio thread", "Trio worker")
    names = (thread.name for thread in threading.enumerate())
    return sorted(name for name in names if not name.startswith(pools))


async def becomes(look: Callable[[], Any], wanted: Any) -> None:
    """Wait until something is so; or say what it is instead."""
    with suppress(TimeoutError):
        await until(lambda: look() == wanted)
    assert look() == wanted


def resident() -> float:
    """This process's memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


@contextmanager
def behind_a_proxy(variant: str, seed: object) -> Iterator[tuple[Served, FaultProxy, Any]]:
    """A fake server and a proxy, each in a thread of its own."""
    models = [EMBEDS, CHATS, *(FakeModel(name, system=f"I am {name}") for name in SHOWN)]
    corruption: Corruption = "spoil" if variant == "plain" else "flip"
    with (
        serving(
            models=models, ssl_context=server_context() if variant == "tls" else None
        ) as server,
        fault_proxy(
            server.fake.port,
            seed=seed,
            corruption=corruption,
            tls=server_context() if variant == "inside" else None,
        ) as (proxy, portal),
    ):
        yield server, proxy, portal


@pytest.mark.timeout(SECONDS * 2 + 60)
@pytest.mark.parametrize("variant", ["plain", "tls", "inside"])
async def test_calls_through_a_faulty_proxy(anyio_backend: Any, variant: str) -> None:
    """Plain, TLS with the faults below it, and TLS that ends at the proxy, with faults in HTTP."""
    print("SOAK_SEED", SEED, "SOAK_SECONDS", SECONDS)
    before = tasks(), threads()
    files = open_files()
    scheme = "http" if variant == "plain" else "https"
    with behind_a_proxy(variant, SEED) as (server, proxy, portal):
        inside = tasks(), threads()
        options: dict[str, Any] = {"timeout": LIMITS, "max_in_flight": PLACES}
        if variant != "plain":
            options["verify"] = client_context()
        async with (
            AsyncClient(f"{scheme}://127.0.0.1:{proxy.port}", **options) as one,
            AsyncClient(f"{scheme}://localhost:{proxy.port}", **options) as other,
        ):
            soak = Soak(server, proxy, [one, other], SEED)
            early = 0.0
            if IS_LONG:
                await soak.run(SECONDS / 3)
                gc.collect()
                early = resident()
            await soak.run(SECONDS * 2 / 3 if IS_LONG else SECONDS)
            for _ in range(20):  # on a busy machine few calls come through in so short a time
                if soak.ends.keys() >= {"right", "ConnectError"}:
                    break
                await soak.run(SECONDS)
            print(dict(soak.ends), dict(proxy.done), "accepted", proxy.accepted)
            print("altered", soak.altered, "corruptions", proxy.corruptions)
            await soak.is_as_new(portal)
        await becomes(lambda: proxy.open, 0)
        await becomes(lambda: server.fake.open_connections, 0)
        await becomes(lambda: (tasks(), threads()), inside)
        if IS_LONG:
            gc.collect()
            print(f"{early:.1f} MiB after a third, then {resident() - early:.1f} MiB more")
            assert resident() - early < GROWTH
    await becomes(lambda: (tasks(), threads()), before)
    await becomes(lambda: open_files() <= files, wanted=True)
    assert soak.altered <= (proxy.corruptions if variant == "inside" else 0)
    assert {"right", "ConnectError"} <= soak.ends.keys()
