"""What the tests run in a browser. Each function returns JSON, which the tests look at."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
import warnings
from importlib.metadata import distributions, requires
from pathlib import Path
from typing import Any

import anyio
import httpx

from ollama_sc import AsyncClient, OllamaError, RequestError, Timeouts

CHAT = [{"role": "user", "content": "Why is the sky blue?"}]
MODEL = "llama3.2"


def shown(error: BaseException) -> list[str]:
    return [type(error).__name__, str(error)]


async def error_of(awaitable: Any) -> list[str] | None:
    """What a call raises of this library's errors."""
    try:
        await awaitable
    except OllamaError as error:
        return shown(error)
    return None


async def until(condition: Any) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.005)


may_go_on = asyncio.Event()


async def going_on() -> None:
    """Wait until the test has seen at the server what it waits for."""
    await may_go_on.wait()
    may_go_on.clear()


async def go_on() -> None:
    may_go_on.set()


# -- what is there -------------------------------------------------------------------------------


async def environment() -> Any:
    return {
        "platform": sys.platform,
        "installed": sorted(one.metadata["Name"] for one in distributions()),
        "requires": requires("ollama-sc"),
        "loop": type(asyncio.get_running_loop()).__name__,
    }


async def refused_settings() -> Any:
    """Each setting that a page has no say in, and what is said of it."""
    found = {}
    for name, value in {
        "proxy": "http://proxy:3128",
        "cert": "file.pem",
        "verify": False,
        "http2": True,
        "http1": False,
        "cookies": {"a": "b"},
        "follow_redirects": True,
        "headers": {"Cookie": "a=b"},
    }.items():
        try:
            AsyncClient(**{name: value})
        except RequestError as error:
            found[name] = str(error)
    AsyncClient(proxy=None, verify=True, http2=False, cookies=None, headers={"X-Mine": "1"})
    return found


async def what_needs_more() -> Any:
    """What the parts say that need sockets or threads."""
    found = {}
    try:
        import ollama_sc.testing  # noqa: F401
    except ImportError as error:
        found["testing"] = str(error)
    from ollama_sc.embedding import Embedder

    try:
        Embedder("nomic-embed-text")
    except RequestError as error:
        found["Embedder"] = str(error)
    return found


# -- calls and streams ---------------------------------------------------------------------------


async def chat(url: str) -> Any:
    async with AsyncClient(url) as client:
        reply = await client.chat(MODEL, CHAT)
        listed = await client.list()
        return [
            reply.message.content,
            reply.complete,
            len(listed.models),
            list(client.statistics()),
        ]


async def stream(url: str) -> Any:
    """The parts, how many reads brought them, and the statistics meanwhile."""
    async with AsyncClient(url) as client:
        counts = []
        middle = None
        async with await client.chat(MODEL, CHAT, stream=True) as stream:
            async for batch in stream.batches():
                counts.append(len(batch))
                if len(counts) == 1:
                    middle = client.statistics()._asdict()
        await until(lambda: client.statistics().open == 0)
        whole = stream.result()
        return {
            "text": whole.message.content,
            "complete": whole.complete,
            "parts": sum(counts),
            "reads": len(counts),
            "middle": middle,
            "end": client.statistics()._asdict(),
        }


async def eight_streams(url: str) -> Any:
    """All end; the most that ran and that waited at any time."""
    async with AsyncClient(url) as client:
        texts = []
        most = {"in_flight": 0, "waiting": 0, "open": 0}

        async def one() -> None:
            async with await client.chat(MODEL, CHAT, stream=True) as stream:
                async for _ in stream:
                    now = client.statistics()
                    for name in most:
                        most[name] = max(most[name], getattr(now, name))
            texts.append(stream.result().message.content)

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(one)
        return {"texts": texts, **most}


async def more_in_flight(url: str, count: int) -> Any:
    """A higher number is taken."""
    async with AsyncClient(url, max_in_flight=count) as client:
        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(error_of, client.generate(MODEL, "a"))
            await until(lambda: client.statistics().in_flight == count)
            waiting = client.statistics().waiting
            client.abort()
        return waiting


# -- aborts and cancellation ---------------------------------------------------------------------


async def abort_before_headers(url: str) -> Any:
    """Its outcome, how many were aborted, and that the client goes on."""
    async with AsyncClient(url) as client:
        outcome: Any = None

        async def ask() -> None:
            nonlocal outcome
            outcome = await error_of(client.generate(MODEL, "a"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await going_on()
            count = client.abort("the user pressed Esc")
        reply = await client.chat(MODEL, CHAT)
        return [outcome, count, reply.complete]


async def abort_in_body(url: str) -> Any:
    async with AsyncClient(url) as client:
        stream = await client.generate(MODEL, "a", stream=True)
        await anext(stream)
        count = client.abort("enough")
        again = client.abort("again")
        outcome = await error_of(anext(stream))
        await until(lambda: not client.statistics().in_flight)
        return [outcome, count, again, stream.result().response != "", list(client.statistics())]


async def abort_while_waiting(url: str) -> Any:
    """Those that wait for one of the six connections are aborted, too."""
    async with AsyncClient(url) as client:
        outcomes: list[Any] = []

        async def ask() -> None:
            outcomes.append(await error_of(client.generate(MODEL, "a")))

        async with anyio.create_task_group() as tasks:
            for _ in range(9):
                tasks.start_soon(ask)
            await going_on()
            before = list(client.statistics())
            count = client.abort()
        return [count, before, len(outcomes), {one[0] for one in outcomes} == {"AbortError"}]


async def group_abort(url: str) -> Any:
    """One group's requests end, another's go on."""
    async with AsyncClient(url) as client, client.group() as ann, client.group() as bob:
        mine = await ann.generate(MODEL, "a", stream=True)
        other = await bob.generate(MODEL, "b", stream=True)
        await anext(mine)
        await anext(other)
        count = ann.abort("Ann closed her tab")
        outcome = await error_of(anext(mine))
        async for _ in other:
            pass
        return [count, outcome, other.result().complete]


async def cancel_scopes(url: str) -> Any:
    """A scope around a call that gets no headers, and around a stream in the middle."""
    async with AsyncClient(url) as client:
        begun = time.monotonic()
        with anyio.move_on_after(0.2) as silent:
            await client.chat(MODEL, CHAT)
        with anyio.move_on_after(1) as reading:
            async with await client.generate(MODEL, "a", stream=True) as stream:
                async for _ in stream:
                    pass
        with anyio.CancelScope() as shielded:
            shielded.cancel()
            with anyio.CancelScope(shield=True):
                models = len((await client.list()).models)
        return [
            silent.cancelled_caught,
            reading.cancelled_caught,
            stream.result().response != "",
            time.monotonic() - begun < 20,
            models > 0,
            list(client.statistics()),
        ]


async def native_cancellation(url: str) -> Any:
    """`Task.cancel`, `asyncio.timeout` and `asyncio.wait_for` end a call; the client goes on."""
    found = []
    async with AsyncClient(url) as client:
        task = asyncio.ensure_future(client.chat(MODEL, CHAT))
        await going_on()
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            found.append("cancelled")
        try:
            async with asyncio.timeout(0.2):
                await client.chat(MODEL, CHAT)
        except TimeoutError:
            found.append("timeout")
        try:
            await asyncio.wait_for(client.chat(MODEL, CHAT), 0.2)
        except TimeoutError:
            found.append("wait_for")
        found.append(list(client.statistics()))
        found.append(len((await client.list()).models) > 0)
    return found


async def time_limits(url: str) -> Any:
    """Each limit that a request runs into. `/api/chat` is silent, `/api/generate` stops half-way."""
    async with AsyncClient(url) as client:
        first = await error_of(client.chat(MODEL, CHAT, timeout=Timeouts(first_chunk=0.2)))
        total = await error_of(client.chat(MODEL, CHAT, timeout=Timeouts(total=0.2)))
        number = await error_of(client.chat(MODEL, CHAT, timeout=0.2))
        stream = await client.generate(MODEL, "a", stream=True, timeout=Timeouts(idle=0.5))
        idle = await error_of(_read(stream))
        return [first, total, number, idle, stream.result().response != ""]


async def slow_loading(url: str) -> Any:
    """A server that is silent for longer than the limit for connecting is no failure."""
    async with AsyncClient(url, timeout=Timeouts(connect=0.05)) as client:
        return (await client.chat(MODEL, CHAT)).complete


async def _read(stream: Any) -> None:
    async for _ in stream:
        pass


async def dropped_stream(url: str) -> Any:
    """A stream that nobody holds is aborted, with a warning."""
    async with AsyncClient(url) as client:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            stream = await client.generate(MODEL, "a", stream=True)
            await anext(stream)
            del stream
            gc.collect()
            await until(lambda: not client.statistics().in_flight)
        return [[one.category.__name__ for one in caught], list(client.statistics())]


async def shutdown(url: str) -> Any:
    """What was in flight gets its grace, and is aborted; nothing new is let in."""
    async with AsyncClient(url) as client:
        outcomes: list[Any] = []

        async def ask() -> None:
            outcomes.append(await error_of(client.generate(MODEL, "a")))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            tasks.start_soon(ask)
            await going_on()
            count = await client.shutdown(grace=0.2)
        late = await error_of(client.list())
        return [count, outcomes, late, list(client.statistics())]


async def leaving(url: str) -> Any:
    """Whoever waits elsewhere is told; nothing is left."""
    outcomes: list[Any] = []
    async with anyio.create_task_group() as tasks:
        async with AsyncClient(url) as client:

            async def ask() -> None:
                outcomes.append(await error_of(client.generate(MODEL, "a")))

            tasks.start_soon(ask)
            await going_on()
    return [outcomes, list(client.statistics())]


# -- failures ------------------------------------------------------------------------------------


async def errors(url: str, paths: list[str]) -> Any:
    """What GET requests to these paths raise."""
    async with AsyncClient(url) as client:
        return [await error_of(client.request("GET", path)) for path in paths]


async def chat_error(url: str, headers: dict[str, str] | None = None, get: bool = False) -> Any:
    """What one call raises."""
    async with AsyncClient(url, headers=headers) as client:
        call = client.list() if get else client.chat(MODEL, CHAT)
        return await error_of(call)


async def stream_error(url: str) -> Any:
    """What a stream raises, and what it has."""
    async with AsyncClient(url) as client:
        stream = await client.generate(MODEL, "a", stream=True)
        return [await error_of(_read(stream)), stream.result().response, stream.result().complete]


async def refused_everywhere(url: str) -> Any:
    """What would be tried again, where there is no use in that."""
    async with AsyncClient(url) as client:
        ready = await error_of(client.wait_ready(timeout=Timeouts(total=20)))

        async def job() -> None:
            async with client.embed_many("nomic-embed-text", ["a"]) as batches:
                await _read(batches)

        return [ready, await error_of(job()), await client.is_running()]


async def odd_requests(url: str) -> Any:
    """What a browser sends and what it does not."""
    async with AsyncClient(url) as client:
        with_body = await error_of(client.request("GET", "/api/tags", json={"a": 1}))
        headless = await client.has_blob("sha256:" + "0" * 64)
        running = await client.is_running()
        nothing = await client.request("POST", "/empty", type=bytes)
        return [with_body, headless, running, len(nothing)]


# -- everything ----------------------------------------------------------------------------------


async def all_calls(url: str) -> Any:
    """One of each that is asked in a way of its own, with a user and a password."""
    async with AsyncClient(url.replace("http://", "http://user:pa%20ss@")) as client:
        async with await client.pull("llama3.1", stream=True) as pull:
            await _read(pull)
        return [
            (await client.wait_ready()).version,
            (await client.show(MODEL)).details is not None,
            len((await client.ps()).models),
            (await client.copy(MODEL, "other")).status,
            (await client.delete("other")).status,
            await client.has_model("other"),
            pull.result().complete,
            len((await client.embeddings("nomic-embed-text", "a")).embedding),
            len((await client.web_search("x")).results) > 0,
            (await client.create("mine", from_=MODEL, system="x")).status,
            await client.request("PUT", "/any", json={"a": 1}),
        ]


async def hooks(url: str) -> Any:
    """What httpx is configured with works: hooks that read, parameters, a transport of one's own."""
    seen: list[Any] = []

    async def on_response(response: httpx.Response) -> None:
        await response.aread()
        seen.append(len(response.content) > 0)

    async with AsyncClient(
        url, event_hooks={"response": [on_response]}, params={"a": "b"}
    ) as client:
        complete = (await client.chat(MODEL, CHAT)).complete
        stream = await client.generate(MODEL, "a", stream=True)
        await _read(stream)
        statistics = list(client.statistics())

    async def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"version": "mine"})

    async with AsyncClient(transport=httpx.MockTransport(answer)) as client:
        version = (await client.version()).version
    return [seen, complete, stream.result().complete, statistics, version]


async def random_aborts(url: str, seed: int, count: int) -> Any:
    """Scopes that end at random times, and aborts of all, before and in replies of both kinds."""
    generator = random.Random(seed)
    ends: dict[str, int] = {}
    async with AsyncClient(url) as client:

        async def one(number: int) -> None:
            seconds = generator.choice([0.001, 0.02, 0.1, 5]) * generator.random()
            try:
                with anyio.move_on_after(seconds) as scope:
                    if number % 2:
                        await client.chat(MODEL, CHAT)
                    else:
                        async with await client.generate(MODEL, "a", stream=True) as stream:
                            await _read(stream)
                end = "cancelled" if scope.cancelled_caught else "whole"
            except OllamaError as error:
                end = type(error).__name__
            ends[end] = ends.get(end, 0) + 1

        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(one, number)
            for _ in range(20):
                await anyio.sleep(generator.random() * 0.03)
                if generator.random() < 0.1:
                    client.abort()
        reply = await client.chat(MODEL, CHAT)
        return [ends, reply.complete, list(client.statistics())]


# -- files, jobs, deadlines ----------------------------------------------------------------------


async def files(url: str, size: int) -> Any:
    """An image by its path, and a file that is uploaded."""
    Path("image.png").write_bytes(b"\x89PNG image")
    data = random.Random(size).randbytes(size)
    Path("model.gguf").write_bytes(data)
    told = []
    async with AsyncClient(url) as client:
        message = {"role": "user", "content": "What is it?", "images": [Path("image.png")]}
        reply = await client.chat("llava", [message])
        digest = await client.create_blob("model.gguf", progress=lambda *now: told.append(now))
        again = await client.create_blob(data)
        missing = await error_of(client.create_blob("nothing.gguf"))
        return [reply.complete, digest, again == digest, told[0], told[-1], missing]


async def embed_job(url: str, count: int) -> Any:
    """Vectors without numpy, in order, as many requests as the client lets in."""
    texts = [f"text {number}" for number in range(count)]
    async with AsyncClient(url) as client:
        rows: list[Any] = []
        kinds = set()
        job = client.embed_many("nomic-embed-text", texts, batch_size=16, max_in_flight=8)
        async with job as batches:
            async for batch in batches:
                kinds |= {type(row).__name__ for row in batch.vectors}
                rows += [list(row)[:2] for row in batch.vectors]
        single = await client.embed("nomic-embed-text", texts[-1])
        wanted = list(single.embeddings[0])[:2]
        near = all(abs(a - b) < 1e-6 for a, b in zip(rows[-1], wanted, strict=True))
        one_array = await error_of(client.embed_array("nomic-embed-text", texts))
        return [len(rows), sorted(kinds), near, one_array]


async def abort_job(url: str) -> Any:
    """A job is one operation, which an abort ends."""
    texts = [f"text {number}" for number in range(1000)]
    async with AsyncClient(url) as client:
        async with client.embed_many("nomic-embed-text", texts, batch_size=1) as batches:
            await anext(aiter(batches))
            count = client.abort("enough")
            outcome = await error_of(_read(batches))
        return [count, outcome, list(client.statistics())]


async def deadlines(url: str, count: int) -> Any:
    """How many deadlines were lost: of users' scopes, of asyncio's, of requests' own.

    `/api/chat` is silent, so that requests wait for their turn until their time is over.
    """
    generator = random.Random(7)
    lost = dict.fromkeys(("scopes", "asyncio", "requests"), 0)

    def seconds() -> float:
        return generator.choice([0.0001, 0.001, 0.002, 0.004, 0.01]) * generator.random() + 1e-6

    async def scope() -> None:
        with anyio.move_on_after(seconds()):
            await asyncio.get_running_loop().create_future()
            return

    async def asyncios() -> None:
        try:
            async with asyncio.timeout(seconds()):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            pass

    async with AsyncClient(url) as client:

        async def request() -> None:
            error = await error_of(client.chat(MODEL, CHAT, timeout=Timeouts(total=seconds())))
            assert error is not None and error[0] == "RequestTimeout", error

        for _ in range(6):
            asyncio.ensure_future(error_of(client.chat(MODEL, CHAT)))
        await until(lambda: client.statistics().receiving == 6)
        for name, work in (("scopes", scope), ("asyncio", asyncios), ("requests", request)):
            for start in range(0, count, 50):
                tasks = [asyncio.ensure_future(work()) for _ in range(min(50, count - start))]
                _, pending = await asyncio.wait(tasks, timeout=5)
                lost[name] += len(pending) + sum(bool(t.exception()) for t in tasks if t.done())
                for task in pending:
                    task.cancel()
        client.abort()
    return lost


async def without_mending(count: int) -> Any:
    """How many deadlines the loop loses by itself, so that the test above can fail."""
    loop = asyncio.get_running_loop()
    mended = loop.__dict__.pop("call_later", None)
    lost = 0
    try:
        for _ in range(count):
            try:
                loop.call_at(loop.time() - 1e-9, int)
            except ValueError:
                lost += 1
    finally:
        if mended is not None:
            loop.call_later = mended
    return lost
