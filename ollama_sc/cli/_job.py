"""`ollama-sc embed` from its options to its exit status."""

import re
import time
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import anyio
import anyio.to_thread
import pyarrow as pa

from ollama_sc import AsyncClient, OllamaError, RequestError
from ollama_sc.cli import _inputs
from ollama_sc.cli._errors import JobError, Refused, Stopped
from ollama_sc.cli._feed import Feed, unusable
from ollama_sc.cli._folder import FAILURES, Folder, opened
from ollama_sc.cli._inputs import Format, Input
from ollama_sc.cli._jsonl import JsonLines
from ollama_sc.cli._lines import LineFormat, LinesReader, PlainLines
from ollama_sc.cli._manifest import Manifest, Progress, Settings
from ollama_sc.cli._parquet import ParquetColumns, ParquetReader, columns_of
from ollama_sc.cli._progress import Reporter, duration
from ollama_sc.cli._rows import Reader
from ollama_sc.cli._servers import Servers, connected
from ollama_sc.cli._shards import CannotWrite, Shards
from ollama_sc.cli._signals import until_signal
from ollama_sc.cli._table import EMBEDDING
from ollama_sc.embedding import Batch, Batches, embed_many

DONE, SOME_FAILED = 0, 1

_FIELD = "text"
_MUCH = 2 << 30  # bytes, which take some seconds to hash
_KEY_TYPES: dict[str, pa.DataType] = {"int64": pa.int64(), "string": pa.string()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says.

    Attributes:
        command: the command itself, to be shown where a job can go on.
    """

    inputs: Sequence[str]
    output: Path
    model: str
    field: str | None
    key: str | None
    input_format: Format | None
    hosts: Sequence[str]
    max_in_flight: int | Literal["auto"]
    batch_size: int
    dimensions: int | None
    truncate: bool | None
    on_error: Literal["raise", "skip"]
    shard_rows: int
    command: str


async def run(options: Options, reporter: Reporter) -> int:
    """Do the job; returns the exit status."""
    job = _Job(options, reporter)
    try:
        number = await until_signal(job.run)
    except RequestError as error:
        reporter.say(f"ollama-sc: {error}")
        return Refused.status
    except OllamaError as error:
        reporter.say(f"ollama-sc: stopped: {error}")
        job.say_how_to_go_on()
        return Stopped.status
    except JobError as error:
        stopped = "stopped: " if isinstance(error, Stopped) else ""
        reporter.say(f"ollama-sc: {stopped}{error}")
        if stopped:
            job.say_how_to_go_on()
        return error.status
    if number is not None:
        reporter.say(f"ollama-sc: stopped by {number.name}")
        job.say_how_to_go_on()
        return 128 + number
    return SOME_FAILED if job.failures else DONE


class _Job:
    """One run of the command."""

    def __init__(self, options: Options, reporter: Reporter) -> None:
        self._options = options
        self._reporter = reporter
        self._shards: Shards | None = None
        self.failures = 0  # rows that have no vector

    async def run(self) -> None:
        """Do all of it.

        Raises:
            JobError, OllamaError: what ended it.
        """
        options = self._options
        paths, format = _inputs.find(options.inputs, options.input_format)
        field = self._field(format)
        with opened(options.output) as folder:
            self._say_that_it_takes_time(paths)
            source = await _inputs.examine(paths, format)
            columns: ParquetColumns | None = None
            if format == "parquet":
                assert field is not None
                columns = await anyio.to_thread.run_sync(columns_of, source, field, options.key)
            async with connected(options.hosts, options.model, self._reporter.say) as servers:
                settings = self._settings(source, field, servers)
                manifest = self._manifest(folder, settings)
                if manifest.progress.done and not source.is_pipe:
                    self._say_done_before(manifest)
                    return
                reader = self._reader(source, manifest, columns)
                try:
                    total = source.total if columns is None else columns.rows
                    await self._embed(folder, manifest, reader, servers, total)
                finally:
                    await reader.aclose()

    # -- what the job is ---------------------------------------------------------------------

    def _field(self, format: Format) -> str | None:
        options = self._options
        if options.key == EMBEDDING:
            raise Refused(f'the key column cannot be "{EMBEDDING}": that is where the vectors go')
        if format != "lines":
            return options.field or _FIELD
        if options.field is not None or options.key is not None:
            raise Refused("plain lines have neither --field nor --key")
        return None

    def _settings(self, source: Input, field: str | None, servers: Servers) -> Settings:
        options = self._options
        return Settings(
            input=source.fingerprint,
            input_format=source.format,
            field=field,
            key=options.key,
            model=options.model,
            digest=servers.digest,
            dimensions=options.dimensions,
            truncate=options.truncate,
            shard_rows=options.shard_rows,
        )

    def _manifest(self, folder: Folder, settings: Settings) -> Manifest:
        """That of the folder, or a new one.

        Raises:
            Refused: the folder is that of another job.
        """
        path = self._options.output
        try:
            manifest = folder.load()
            if manifest is None:
                return Manifest(settings=settings)  # written with the first rows: it binds
            if differences := manifest.settings.differences(settings):
                lines = "\n  ".join(differences)
                raise Refused(f"{path} belongs to another job:\n  {lines}\nUse another folder.")
            folder.clear(manifest)
        except OSError as error:
            raise Refused(f"cannot write to {path}: {error.strerror}") from error
        return manifest

    def _reader(self, source: Input, manifest: Manifest, columns: ParquetColumns | None) -> Reader:
        settings, progress = manifest.settings, manifest.progress
        if columns is not None:
            return ParquetReader(
                source,
                progress.rows,
                field=settings.field or _FIELD,
                key=settings.key,
                key_type=columns.key_type,
            )
        format: LineFormat = PlainLines()
        if settings.field is not None:
            format = JsonLines(
                settings.field,
                settings.key,
                _KEY_TYPES.get(progress.key_type or ""),
                going_on=progress.rows > 0,
            )
        return LinesReader(source, format, progress.rows, progress.mark)

    # -- the work ----------------------------------------------------------------------------

    async def _embed(
        self,
        folder: Folder,
        manifest: Manifest,
        reader: Reader,
        servers: Servers,
        total: int | None,
    ) -> None:
        shards = self._shards = Shards(folder, manifest, lambda: reader.key_type)
        await shards.restore()
        before = shards.rows
        if before:
            self._reporter.say(f"Going on after {before:,} rows that are done")
        self._reporter.start(before, total)
        start = time.monotonic()
        feed = Feed(reader, skip_unusable=self._options.on_error == "skip")
        try:
            await self._fill(shards, feed, servers.clients)
            await shards.finish()
        except CannotWrite:
            raise
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await shards.keep()
            if isinstance(error, Refused) and shards.rows > before:
                raise Stopped(str(error)) from error  # too late to refuse: rows were written
            raise
        finally:
            self._reporter.end()
        self._say_done(shards, shards.rows - before, time.monotonic() - start)

    async def _fill(self, shards: Shards, feed: Feed, clients: Sequence[AsyncClient]) -> None:
        while await feed.more():
            async with self._vectors_of(clients, feed) as batches:
                shards.expect(batches.dimensions)
                async for batch in batches:
                    await self._add(shards, feed, batch)
                    self._reporter.update(shards.rows, shards.failures)
            if feed.error is not None:
                break
            await shards.add(feed.rest())
            self._reporter.update(shards.rows, shards.failures)
        if feed.error is not None:
            raise feed.error

    async def _add(self, shards: Shards, feed: Feed, batch: Batch) -> None:
        """Add a batch, or what is in front of its first failure where nothing may be skipped."""
        failures = {index - batch.start: reason for index, reason in batch.failures.items()}
        if not failures or self._options.on_error == "skip":
            await shards.add(feed.take(len(batch.vectors)), batch.vectors, failures)
            return
        index, reason = min(failures.items())
        await shards.add(feed.take(index), batch.vectors[:index])
        *between, failed = feed.take(1)
        await shards.add(between)
        raise unusable(failed, reason)

    def _vectors_of(self, clients: Sequence[AsyncClient], texts: AsyncIterable[str]) -> Batches:
        options = self._options
        return embed_many(
            clients=clients,
            model=options.model,
            texts=texts,
            batch_size=options.batch_size,
            max_in_flight=options.max_in_flight,
            dimensions=options.dimensions,
            truncate=options.truncate,
            on_error="skip",  # where nothing may be skipped, what is done before is to be kept
        )

    # -- what it says ------------------------------------------------------------------------

    def _say_that_it_takes_time(self, paths: Sequence[Path | None]) -> None:
        size = sum(_inputs.status_of(path).st_size for path in paths if path is not None)
        if size >= _MUCH:
            self._reporter.say(f"Reading the input once, {size / 1e9:,.1f} GB, to know it again")

    def _say_done(self, shards: Shards, rows: int, seconds: float) -> None:
        progress = shards.progress
        path = self._options.output
        count = -(-progress.rows // self._options.shard_rows)
        parts = f"{progress.rows:,} rows in {count:,} {'shard' if count == 1 else 'shards'}"
        length = f" of {progress.vector_length} numbers" if progress.vector_length else ""
        self._reporter.say(f"Done: {parts} in {path}, vectors{length}")
        if rows:
            rate = f"{rows / seconds:,.0f}/s" if seconds else ""
            self._reporter.say(f"This run: {rows:,} rows in {duration(seconds)}, {rate}")
        self._say_failures(progress)

    def _say_done_before(self, manifest: Manifest) -> None:
        progress = manifest.progress
        self._reporter.say(f"Done before: {progress.rows:,} rows in {self._options.output}")
        self._say_failures(progress)

    def _say_failures(self, progress: Progress) -> None:
        self.failures = progress.failures
        if progress.failures:
            many = "row has" if progress.failures == 1 else "rows have"
            path = self._options.output / FAILURES
            self._reporter.say(f"{progress.failures:,} {many} no vector: {path} says why")

    def say_how_to_go_on(self) -> None:
        """Say the command, and what is done."""
        shards = self._shards
        if shards is not None and shards.progress.rows:
            self._reporter.say(f"{shards.progress.rows:,} rows are done")
        self._reporter.say(f"Go on with: {_hidden(self._options.command)}")


def _hidden(command: str) -> str:
    """The command without passwords."""
    return re.sub(r"(://)[^/@\s]+@", r"\1...@", command)
