"""The main job on one screen: several chats at once, the end of all of them, many vectors.

    python examples/demo.py --backend trio        (or asyncio)

Asks the Ollama server at OLLAMA_HOST, or at 127.0.0.1:11434. Where none answers, it starts the fake
server that comes with this package. Ends by itself in less than 20 seconds.
"""

import argparse
import io
import os
import signal
import sys
import textwrap
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import anyio
import anyio.abc
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ollama_sc import AbortError, AsyncClient, OllamaError
from ollama_sc.testing import FakeOllama, Reply
from ollama_sc.types import ListedModel

CHAT_SECONDS = 4.0  # how long the chats run, from the first part of the first one, ...
LOAD_SECONDS = 4.0  # ... for which they wait so long
EMBED_SECONDS = 5.0  # what is not embedded by then is left out
TOTAL_SECONDS = 17.0  # the end, whatever happens
TEXTS = 6000
BATCH = 32
MAX_IN_FLIGHT = 8

SUBJECTS = ("a lighthouse", "a lost key", "two rivers", "the last train", "a glass bee", "the moon")

# What the fake server says in place of a model.
FAKE_SENTENCES = (
    "No model is at work: this text comes from the fake server that ollama-sc brings along.",
    "It sends one token after the other over a real socket, as Ollama does.",
    "Every chat on this screen is a task of its own, in the task group of one client.",
    "In a moment one call, client.abort(), ends all of them at the same time.",
    "The server will then see each connection close, and take the time.",
    "Where Ollama is at hand, a model's story stands here instead.",
)
FAKE_RATES = (24, 19, 29, 15, 22, 34)  # tokens a second


class Screen:
    """Where everything is printed; keeps what stays on it, for `--save-svg`."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.is_live = self.console.is_terminal and not self.console.is_dumb_terminal
        self._kept: list[RenderableType] = []

    def show(self, content: RenderableType = "") -> None:
        """Print something."""
        self._kept.append(content)
        self.console.print(content)

    def note(self, text: str) -> None:
        """Print how far it is, where no live view shows it."""
        if not self.is_live:
            self.console.print(text)

    @contextmanager
    def live(self, render: Callable[[], RenderableType]) -> Generator[Callable[[], None]]:
        """Show something that changes; the block calls what it gets to have it drawn again."""
        if not self.is_live:
            yield lambda: None
            self._kept.append(render())
            return
        # Without rich's own thread, which would disturb what is being measured.
        with Live(render(), console=self.console, auto_refresh=False) as view:
            try:
                yield lambda: view.update(render(), refresh=True)
            finally:
                view.update(render(), refresh=True)
                self._kept.append(render())

    def save_svg(self, path: Path) -> None:
        """Save what has been printed, as a picture of a terminal."""
        console = Console(
            record=True,
            width=self.console.width,
            file=io.StringIO(),
            force_terminal=True,
            highlight=False,
        )
        for content in self._kept:
            console.print(content)
        path.write_text(console.export_svg(title="make demo"), encoding="utf-8")


# -- the server ------------------------------------------------------------------------------------


@dataclass
class Server:
    """What the demo talks to."""

    url: str | None  # None: what OLLAMA_HOST says, or the default
    chat_model: str
    embed_model: str | None
    fake: FakeOllama | None = None


@asynccontextmanager
async def find_server(screen: Screen) -> AsyncGenerator[Server]:
    """Find the user's server, or start the fake one."""
    where = os.environ.get("OLLAMA_HOST") or "127.0.0.1:11434"
    found = await ask_server(where)
    if isinstance(found, Server):
        screen.show(f"Server: Ollama at {where}, model {found.chat_model}")
        yield found
        return
    async with FakeOllama(models=["llama3.2", "all-minilm"], dimensions=384) as fake:
        for number, rate in enumerate(FAKE_RATES):
            sentences = islice(cycle(FAKE_SENTENCES), number, number + 200)
            words = (f"{word} " for sentence in sentences for word in sentence.split())
            fake.script("/api/chat", Reply.chat_text(words).but(rate=rate))
        screen.show(found)
        screen.show(f"The bundled fake server stands in: {fake.url}")
        yield Server(fake.url, "llama3.2", "all-minilm", fake)


async def ask_server(where: str) -> Server | str:
    """Ask the user's server for its models; why it cannot be used, where it cannot."""
    try:
        async with AsyncClient(timeout=1.5) as client:
            with anyio.move_on_after(2):
                models = (await client.list()).models
                # The smallest first. Those that another host runs could cost money.
                local = [model for model in models if model.name and not model.remote_host]
                local.sort(key=lambda model: model.size or 0)
                chat = [model.name for model in local if model.name and not embeds(model)]
                embed = [model.name for model in local if model.name and embeds(model)]
                if not chat:
                    return f"The server at {where} has no model for chats."
                return Server(None, chat[0], embed[0] if embed else None)
    except OllamaError:
        pass
    return f"No Ollama answers at {where}."


def embeds(model: ListedModel) -> bool:
    """Whether a model turns texts into vectors."""
    if model.capabilities is not None:
        return "embedding" in model.capabilities
    return any(part in str(model.name) for part in ("embed", "minilm", "bge-"))  # older servers


# -- chats -----------------------------------------------------------------------------------------


@dataclass
class Chat:
    """One chat, and its place on the screen."""

    subject: str
    text: str = ""
    parts: int = 0
    state: str = "waiting"

    async def follow(self, client: AsyncClient, model: str) -> None:
        """Have the chat until it ends."""
        content = f"Write a very long story about {self.subject}."
        try:
            async with await client.chat(
                model, [{"role": "user", "content": content}], stream=True
            ) as stream:
                self.state = "streaming"
                async for part in stream:
                    self.text += part.message.thinking or part.message.content
                    self.parts += 1
            self.state = "done"
        except AbortError:
            self.state = "aborted"
        except OllamaError as error:
            self.state = "failed"
            self.text = str(error)

    def render(self, width: int) -> Panel:
        """Draw its last three lines."""
        colour = {"streaming": "green", "aborted": "red", "failed": "red"}.get(self.state, "blue")
        lines = textwrap.wrap(self.text, width - 4)[-3:]
        return Panel(
            Text("\n".join(lines)),
            title=f"[bold]{self.subject}[/bold]",
            subtitle=f"[{colour}]{self.state}, {self.parts} parts[/{colour}]",
            border_style=colour,
            height=5,
        )


async def run_chats(screen: Screen, server: Server, client: AsyncClient, seconds: float) -> None:
    """Stream several chats side by side, then abort all of them at once."""
    chats = [Chat(subject) for subject in SUBJECTS]

    def render() -> RenderableType:
        grid = Table.grid(expand=True)
        grid.add_column(ratio=1)
        grid.add_column(ratio=1)
        panels = [chat.render(screen.console.width // 2) for chat in chats]
        for left, right in zip(panels[::2], panels[1::2], strict=True):
            grid.add_row(left, right)
        now = client.statistics()
        return Group(grid, f"requests in flight: {now.in_flight}, open connections: {now.open}")

    before, count = anyio.current_time(), 0
    with screen.live(render) as draw:
        async with anyio.create_task_group() as tasks:
            for chat in chats:
                tasks.start_soon(chat.follow, client, server.chat_model)
            await watch(screen, chats, draw, seconds)
            before = anyio.current_time()
            count = client.abort("enough")
        consumers = anyio.current_time() - before
    for chat in chats:
        if chat.state == "failed":
            screen.show(Text(f"The chat about {chat.subject} failed: {chat.text}"))
    if not count:
        screen.show("All chats had ended: there was nothing left to abort.")
        return
    many = "request" if count == 1 else "requests"
    screen.show(f'[bold]client.abort("enough")[/bold] ended {count} {many}:')
    if server.fake is not None:
        server_saw = await seconds_until_closed(server.fake, before)
        screen.show(f"  the server saw the last connection close after {server_saw}")
        screen.show(
            f"  the last of the consumers had its AbortError after {milliseconds(consumers)}"
        )
        return
    left = client.statistics()
    screen.show(
        f"  after {milliseconds(consumers)} every consumer had its AbortError, and "
        f"{left.open - left.idle} connections were in use"
    )
    screen.show("  (measured on this side: when the server sees it is not visible from here)")


async def watch(
    screen: Screen, chats: Sequence[Chat], draw: Callable[[], None], seconds: float
) -> None:
    """Draw the chats for a while, or until all have ended."""
    start = anyio.current_time()
    end = start + LOAD_SECONDS + seconds
    next_note = start + 1
    began = False
    while (now := anyio.current_time()) < end:
        if not began and any(chat.parts for chat in chats):
            began = True
            end = now + seconds
        if not any(chat.state in ("waiting", "streaming") for chat in chats):
            return
        if now >= next_note:
            next_note += 1
            counts = ", ".join(str(chat.parts) for chat in chats)
            screen.note(f"  after {now - start:.0f} s, parts of each chat: {counts}")
        draw()
        await anyio.sleep(0.1)


async def seconds_until_closed(fake: FakeOllama, before: float) -> str:
    """Say how long after `before` the fake server saw the last chat's connection close."""
    chats = [request for request in fake.requests if request.path == "/api/chat"]
    with anyio.move_on_after(2):
        for request in chats:
            await request.wait_closed()
    times = [request.closed_at for request in chats if request.closed_at is not None]
    return milliseconds(max(times) - before) if len(times) == len(chats) else "more than 2 s"


def milliseconds(seconds: float) -> str:
    """Seconds as a text."""
    return f"[bold]{seconds * 1000:.1f} ms[/bold]"


# -- vectors ---------------------------------------------------------------------------------------


class Embedding:
    """Many texts into vectors, one request for each batch."""

    def __init__(self, client: AsyncClient, model: str, texts: Sequence[str]) -> None:
        self.client = client
        self.model = model
        self.texts = texts
        self.done = 0
        self.dimensions = 0
        self.error: OllamaError | None = None
        self.start = anyio.current_time()

    async def embed(self, batch: Sequence[str]) -> None:
        """Embed one batch."""
        try:
            reply = await self.client.embed(self.model, batch)
        except AbortError:
            return  # the batch came too late, or another one failed
        except OllamaError as error:
            self.error = error
            self.client.abort("another batch failed")
            return
        self.done += len(reply.embeddings)
        self.dimensions = len(reply.embeddings[0])

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return anyio.current_time() - self.start

    def render(self) -> RenderableType:
        """Draw the bar."""
        now = self.client.statistics()
        row = Table.grid(padding=(0, 2), expand=True)
        row.add_column(no_wrap=True)
        row.add_column(ratio=1)
        row.add_column(no_wrap=True)
        row.add_row(
            f"{self.done:5,} of {len(self.texts):,}",
            ProgressBar(total=len(self.texts), completed=self.done),
            f"{self.done / max(self.seconds, 0.001):,.0f} texts/s",
        )
        return Group(
            row, f"requests in flight: {now.in_flight}, waiting for their turn: {now.waiting}"
        )


async def run_embedding(screen: Screen, model: str, client: AsyncClient, count: int) -> None:
    """Embed many texts, with several requests in flight."""
    texts = [f"Text {number}: a short line about subject {number % 97}." for number in range(count)]
    job = Embedding(client, model, texts)
    with screen.live(job.render) as draw:
        async with anyio.create_task_group() as tasks:
            for first in range(0, count, BATCH):
                tasks.start_soon(job.embed, texts[first : first + BATCH])
            while job.done < count and job.error is None and job.seconds < EMBED_SECONDS:
                draw()
                await anyio.sleep(0.1)
            client.abort("the time is up")
        seconds = job.seconds
    if job.error is not None:
        screen.show(Text(f"It failed: {job.error}"))
        return
    why = "" if job.done == count else f" (of {count:,}: the time was up)"
    screen.show(
        f"[bold]{job.done:,}[/bold] vectors of {job.dimensions} numbers in {seconds:.1f} s: "
        f"[bold]{job.done / seconds:,.0f} texts/s[/bold]{why}"
    )


# -- all of it -------------------------------------------------------------------------------------


async def run(screen: Screen, backend: str, options: argparse.Namespace) -> None:
    """Show all parts, one after the other."""
    screen.show(Rule(f"[bold]ollama-sc on {backend}[/bold]", characters="="))
    async with find_server(screen) as server:
        client = AsyncClient(server.url, max_in_flight=MAX_IN_FLIGHT)
        async with client:
            screen.show()
            screen.show(Rule(f"{len(SUBJECTS)} chats at once, each a task", align="left"))
            await run_chats(screen, server, client, options.seconds)
            screen.show()
            screen.show(
                Rule(
                    f"the same client embeds {options.texts:,} texts, {BATCH} to a request, "
                    f"{MAX_IN_FLIGHT} at once",
                    align="left",
                )
            )
            if server.embed_model is None:
                screen.show("Skipped: this server has no embedding model.")
                screen.show("`ollama pull all-minilm` brings a small one.")
            else:
                await run_embedding(screen, server.embed_model, client, options.texts)
                if server.fake is not None:
                    screen.show("(client and fake server share one process: no measure of either)")
        end = client.statistics()
        screen.show()
        screen.show(Rule("after `async with AsyncClient()`", align="left"))
        screen.show(f"requests in flight: {end.in_flight}, open connections: {end.open}")


async def main(options: argparse.Namespace) -> int:
    """Run the demo; what the exit status is."""
    screen = Screen()
    status = 1

    async def stop_on_ctrl_c(
        scope: anyio.CancelScope, *, task_status: anyio.abc.TaskStatus[None]
    ) -> None:
        with anyio.open_signal_receiver(signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                scope.cancel()
                return

    async with anyio.create_task_group() as tasks:
        await tasks.start(stop_on_ctrl_c, tasks.cancel_scope)
        with anyio.move_on_after(TOTAL_SECONDS) as limit:
            await run(screen, options.backend, options)
            status = 0
        if limit.cancelled_caught:
            screen.show("The time is up: every request has been ended.")
            status = 0
        tasks.cancel_scope.cancel()
    if status:
        screen.show("\nStopped: every request has been ended.")
        return 128 + signal.SIGINT
    if options.save_svg is not None:
        screen.save_svg(options.save_svg)
    return status


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="What ollama-sc does, on one screen.")
    parser.add_argument("--backend", choices=("trio", "asyncio"), default="trio")
    parser.add_argument(
        "--seconds", type=float, default=CHAT_SECONDS, help="how long the chats run"
    )
    parser.add_argument("--texts", type=int, default=TEXTS, help="how many texts are embedded")
    parser.add_argument(
        "--save-svg", type=Path, metavar="FILE", help="save the screen as a picture"
    )
    return parser.parse_args()


if __name__ == "__main__":
    try:
        arguments = parse_arguments()
        sys.exit(anyio.run(main, arguments, backend=arguments.backend))
    except KeyboardInterrupt:  # before anything was open
        sys.exit(128 + signal.SIGINT)
