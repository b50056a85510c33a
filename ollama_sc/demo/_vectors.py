"""Many texts into vectors: one job, several requests at a time."""

import anyio
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ollama_sc import AbortError, AsyncClient, OllamaError
from ollama_sc.demo._options import EMBED_SECONDS
from ollama_sc.demo._stage import LOAD_SECONDS, Stage, tick

BATCH = 16
IN_FLIGHT = 4


async def show_vectors(stage: Stage, count: int) -> None:
    """Embed many texts, with several requests in flight."""
    screen, model = stage.screen, stage.server.embed_model
    screen.head(f"client.embed_many: {count:,} texts, {IN_FLIGHT} requests at once")
    if model is None:
        screen.show("Skipped: this server has no embedding model.")
        screen.show("`ollama pull all-minilm` brings a small one.")
        stage.seen.append((False, "no vectors: this server has no embedding model"))
        return
    job = _Job(stage, model, count)
    pressed = stage.keys.next_press()
    with screen.live(job.render) as draw:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(job.run, stage.client)
            told = job.start
            while not job.over and anyio.current_time() < job.end:
                if anyio.current_time() >= told + 1:
                    told += 1
                    screen.note(f"{job.done:,} of {count:,} texts")
                draw()
                await tick(pressed)
                if pressed.is_set():
                    break
            stage.client.abort("a was pressed" if pressed.is_set() else "the time is up")
    job.tell(by_key=pressed.is_set())


class _Job:
    """A job of the client, and its place on the screen."""

    def __init__(self, stage: Stage, model: str, count: int) -> None:
        self._stage = stage
        self._model = model
        self._count = count
        self.done = 0
        self.over = False
        self.start = anyio.current_time()
        self._ready: float | None = None  # when the model was loaded
        self._stopped: float | None = None
        self._dimensions = 0
        self._error: OllamaError | None = None

    @property
    def end(self) -> float:
        """When it has to be over."""
        if self._ready is None:
            return self.start + LOAD_SECONDS
        return self._ready + EMBED_SECONDS

    @property
    def seconds(self) -> float:
        """How long the vectors have been coming."""
        if self._ready is None:
            return 0.0
        return (self._stopped or anyio.current_time()) - self._ready

    async def run(self, client: AsyncClient) -> None:
        """Embed all texts, or as many as there is time for."""
        texts = (
            f"Text {number}: a short line about subject {number % 97}."
            for number in range(self._count)
        )
        try:
            # A failure is shown at once: to try again, a job needs stamina (the extra `jobs`).
            async with client.embed_many(
                self._model, texts, batch_size=BATCH, max_in_flight=IN_FLIGHT, attempts=1
            ) as batches:
                self._ready = anyio.current_time()
                self._dimensions = batches.dimensions
                async for batch in batches:
                    self.done += len(batch)
        except AbortError:
            pass
        except OllamaError as error:
            self._error = error
        finally:
            self._stopped = anyio.current_time()
            self.over = True

    def render(self) -> RenderableType:
        """Draw the bar."""
        rate = self.done / self.seconds if self.seconds else 0
        row = Table.grid(padding=(0, 2), expand=True)
        row.add_column(no_wrap=True)
        row.add_column(ratio=1)
        row.add_column(no_wrap=True)
        row.add_row(
            f"{self.done:5,} of {self._count:,}",
            ProgressBar(total=self._count, completed=self.done),
            f"{rate:,.0f} texts/s",
        )
        if self.over:
            return row
        now = self._stage.client.statistics()
        status = f"requests in flight: {now.in_flight}"
        if self._ready is None:
            status = f"the server loads {self._model}"
        hint = self._stage.hint("abort the job")
        return Group(row, status, *([Text(hint, "bold")] if hint else []))

    def tell(self, *, by_key: bool) -> None:
        """Say what came of it."""
        screen = self._stage.screen
        if self._error is not None:
            screen.show(f"It failed: {self._error}", "red")
            self._stage.seen.append((False, "the embedding job failed: see above"))
            return
        why = ""
        if self.done < self._count:
            why = "a was pressed" if by_key else "the time was up"
        if self.done:
            rate = self.done / self.seconds if self.seconds else 0
            screen.show(
                f"{self.done:,} vectors of {self._dimensions} numbers in {self.seconds:.1f} s: "
                f"{rate:,.0f} texts/s" + (f" (of {self._count:,}: {why})" if why else "")
            )
        else:
            screen.show(f"No vector yet: {why}.")
        if self._stage.server.fake is not None:
            screen.show("(the fake server takes its time, for something to be seen: no measure)")
        until = f", until {why}" if why else ""
        self._stage.seen.append((True, f"one job turned {self.done:,} texts into vectors{until}"))
