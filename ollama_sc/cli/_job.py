"""`ollama-sc embed` from its options to its exit status."""

import signal
import time
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread
import pyarrow as pa

from ollama_sc import OllamaError, RequestError
from ollama_sc._jobs.start import make_job
from ollama_sc.cli import _inputs
from ollama_sc.cli._clients import ModelReplaced, OpenClients, open_clients
from ollama_sc.cli._errors import JobError, Refused, Stopped
from ollama_sc.cli._feed import Feed, unusable_row_error
from ollama_sc.cli._folder import Folder, open_folder
from ollama_sc.cli._inputs import Format, Input
from ollama_sc.cli._jsonl import JsonLines
from ollama_sc.cli._lines import LineFormat, LinesReader, PlainLines
from ollama_sc.cli._manifest import FixedSettings, Manifest
from ollama_sc.cli._parquet import ParquetColumns, ParquetReader, columns_of
from ollama_sc.cli._reporter import Reporter, duration
from ollama_sc.cli._rows import RowReader
from ollama_sc.cli._shards import Shards, ShardWriteError
from ollama_sc.cli._shown import CleanReporter, Secrets, shown_path
from ollama_sc.cli._signals import run_until_signal
from ollama_sc.embedding import Batch, Batches
from ollama_sc.embedding.folder import EMBEDDING, LAYOUTS

DONE, SOME_FAILED = 0, 1

_DEFAULT_FIELD = "text"
_LARGE_INPUT_BYTES = 2 << 30  # which take some seconds to hash
_KEY_TYPES: dict[str, pa.DataType] = {
    "int64": pa.int64(),
    "uint64": pa.uint64(),
    "string": pa.string(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandOptions:
    """The options of the command line.

    Attributes:
        headers, api_key, timeout: of each request.
        command: the command itself without secrets, shown where it can be given again.
        secrets: what is not to be printed.
    """

    inputs: Sequence[str]
    output: Path
    model: str
    field: str | None
    key: str | None
    input_format: Format | None
    hosts: Sequence[str]
    headers: Mapping[str, str]
    api_key: str | None
    timeout: float | None
    max_in_flight: int | Literal["auto"]
    batch_size: int
    dimensions: int | None
    truncate: bool | None
    on_error: Literal["raise", "skip"]
    shard_rows: int
    command: str
    secrets: Secrets


async def run(options: CommandOptions, reporter: Reporter) -> int:
    """Run the job; returns the exit status.

    There are five outcomes, and each has its status and its message: it is done; an argument is
    invalid; a server or the connection to it failed; the input or the folder did; a signal came.
    """
    reporter = CleanReporter(reporter, options.secrets)
    job = _JobRun(options, reporter)
    try:
        caught = await run_until_signal(job.run, job.report_signal)
    except RequestError as error:
        reporter.say(f"ollama-sc: {error}")
        return Refused.status
    except OllamaError as error:
        # The notes say which server it was.
        text = "\n".join([str(error), *getattr(error, "__notes__", ())])
        text = text.replace("\n", "\n  ")  # it may be a server's
        reporter.say(f"ollama-sc: stopped: {text}")
        job.report_resume_command()
        return Stopped.status
    except JobError as error:
        stopped = "stopped: " if isinstance(error, Stopped) else ""
        reporter.say(f"ollama-sc: {stopped}{error}")
        if stopped:
            job.report_resume_command()
        return error.status
    if caught is not None:
        reporter.say(f"ollama-sc: stopped by {caught.name}")
        job.report_resume_command()
        return 128 + caught
    return SOME_FAILED if job.failures else DONE


class _JobRun:
    """One run of the command, which starts a job or resumes it.

    Attributes:
        failures: rows that have no vector, once the job is done.
    """

    def __init__(self, options: CommandOptions, reporter: Reporter) -> None:
        self._options = options
        self._reporter = reporter
        self._shards: Shards | None = None
        self.failures = 0

    async def run(self) -> None:
        """Run the job to its end. Cancelling it keeps the rows that are done.

        Raises:
            JobError, OllamaError: what ended it early.
        """
        options = self._options
        paths, format = _inputs.find(options.inputs, options.input_format)
        field = self._text_field(format)
        with open_folder(options.output) as folder:
            self._report_large_input(paths)
            job_input = await _inputs.examine(paths, format)
            columns: ParquetColumns | None = None
            if format == "parquet":
                assert field is not None
                columns = await anyio.to_thread.run_sync(columns_of, job_input, field, options.key)
            async with open_clients(
                options.hosts,
                options.model,
                self._reporter.say,
                headers=options.headers,
                api_key=options.api_key,
                timeout=options.timeout,
            ) as opened:
                settings = self._make_settings(job_input, field, opened)
                manifest = self._load_manifest(folder, settings)
                if manifest.progress.done and not job_input.is_pipe:
                    self._report_done_before(manifest)
                    return
                reader = self._make_reader(job_input, manifest, columns)
                try:
                    total = job_input.total if columns is None else columns.rows
                    await self._embed(folder, manifest, reader, opened, total)
                finally:
                    await reader.aclose()

    # -- before the first request ------------------------------------------------------------

    def _text_field(self, format: Format) -> str | None:
        options = self._options
        if options.key == EMBEDDING:
            raise Refused(f'the key column cannot be "{EMBEDDING}": that is where the vectors go')
        if format != "lines":
            return options.field or _DEFAULT_FIELD
        if options.field is not None or options.key is not None:
            raise Refused("plain lines have neither --field nor --key")
        return None

    def _make_settings(
        self, job_input: Input, field: str | None, opened: OpenClients
    ) -> FixedSettings:
        options = self._options
        return FixedSettings(
            input=job_input.fingerprint,
            input_format=job_input.format,
            field=field,
            key=options.key,
            model=options.model,
            digest=opened.digest,
            dimensions=options.dimensions,
            truncate=options.truncate,
            shard_rows=options.shard_rows,
        )

    def _load_manifest(self, folder: Folder, settings: FixedSettings) -> Manifest:
        """The manifest of the folder, or a new one.

        Raises:
            Refused: the folder belongs to another job, or a file of it is missing.
        """
        path = shown_path(self._options.output)
        try:
            manifest = folder.load()
            if manifest is None:
                return Manifest(settings=settings)  # written with the first rows: it binds
            if differences := manifest.settings.differences(settings):
                lines = "\n  ".join(differences)
                raise Refused(f"{path} belongs to another job:\n  {lines}\nUse another folder.")
            folder.roll_back(manifest)
        except OSError as error:
            raise Refused(f"cannot write to {path}: {error.strerror}") from error
        return manifest

    def _make_reader(
        self, job_input: Input, manifest: Manifest, columns: ParquetColumns | None
    ) -> RowReader:
        settings, progress = manifest.settings, manifest.progress
        if columns is not None:
            return ParquetReader(
                job_input,
                progress.rows,
                field=settings.field or _DEFAULT_FIELD,
                key=settings.key,
                key_type=columns.key_type,
            )
        format: LineFormat = PlainLines()
        if settings.field is not None:
            format = JsonLines(
                settings.field,
                settings.key,
                # Open while the first shard is: it is not written before.
                _KEY_TYPES.get(progress.key_type or "")
                if progress.rows >= settings.shard_rows
                else None,
                resuming=progress.rows > 0,
                learn_rows=settings.shard_rows,
            )
        return LinesReader(job_input, format, progress.rows, progress.mark)

    # -- rows and vectors --------------------------------------------------------------------

    async def _embed(
        self,
        folder: Folder,
        manifest: Manifest,
        reader: RowReader,
        opened: OpenClients,
        total: int | None,
    ) -> None:
        shards = self._shards = Shards(
            folder, manifest, lambda: reader.key_type, opened.check_model
        )
        await shards.restore()
        done_before = shards.rows
        if done_before:
            self._reporter.say(f"Going on after {done_before:,} rows that are done")
        self._reporter.start(done_before, total)
        started_at = time.monotonic()
        feed = Feed(reader, skip_unusable=self._options.on_error == "skip")
        try:
            await self._write_vectors(shards, feed, opened)
            await shards.finish()
        except (ShardWriteError, ModelReplaced):
            raise
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await shards.save_partial()
            if isinstance(error, Refused) and shards.rows > done_before:
                raise Stopped(str(error)) from error  # not refused: rows were written
            raise
        finally:
            self._reporter.end()
        self._report_done(shards, shards.rows - done_before, time.monotonic() - started_at)

    async def _write_vectors(self, shards: Shards, feed: Feed, opened: OpenClients) -> None:
        while await feed.has_more():
            async with self._start_embedding(opened, feed) as batches:
                shards.allocate(batches.dimensions)
                async for batch in batches:
                    await self._add_batch(shards, feed, batch)
                    self._reporter.update(shards.rows, shards.failures)
            if feed.error is not None:
                break
            await shards.add(feed.take_rest())
            self._reporter.update(shards.rows, shards.failures)
        if feed.error is not None:
            raise feed.error

    async def _add_batch(self, shards: Shards, feed: Feed, batch: Batch) -> None:
        """Add a batch. With ``--on-error raise``, only the rows before its first failure."""
        failures = {index - batch.start: reason for index, reason in batch.failures.items()}
        if not failures or self._options.on_error == "skip":
            await shards.add(feed.take_rows(len(batch.vectors)), batch.vectors, failures)
            return
        index, reason = min(failures.items())
        await shards.add(feed.take_rows(index), batch.vectors[:index])
        *unusable_rows, failed_row = feed.take_rows(1)
        await shards.add(unusable_rows)
        raise unusable_row_error(failed_row, reason)

    def _start_embedding(self, opened: OpenClients, texts: AsyncIterable[str]) -> Batches:
        options = self._options
        fields: dict[str, Any] = {
            "batch_size": options.batch_size,
            "max_in_flight": options.max_in_flight,
            "dimensions": options.dimensions,
            "truncate": options.truncate,
            "on_error": "skip",  # also with --on-error raise: it keeps the rows before the failure
        }
        return make_job(opened.clients, options.model, texts, fields, digest=opened.digest)

    # -- messages ----------------------------------------------------------------------------

    def _report_large_input(self, paths: Sequence[Path | None]) -> None:
        size = sum(_inputs.stat_file(path).st_size for path in paths if path is not None)
        if size >= _LARGE_INPUT_BYTES:
            self._reporter.say(f"Reading the input once, {size / 1e9:,.1f} GB, to know it again")

    def _report_done(self, shards: Shards, rows: int, seconds: float) -> None:
        progress = shards.progress
        path = shown_path(self._options.output)
        count = -(-progress.rows // self._options.shard_rows)
        parts = f"{progress.rows:,} rows in {count:,} {'shard' if count == 1 else 'shards'}"
        length = f" of {progress.vector_length} numbers" if progress.vector_length else ""
        self._reporter.say(f"Done: {parts} in {path}, vectors{length}")
        if rows:
            rate = f"{rows / seconds:,.0f}/s" if seconds else ""
            self._reporter.say(f"This run: {rows:,} rows in {duration(seconds)}, {rate}")
        self._report_failures(shards.manifest)

    def _report_done_before(self, manifest: Manifest) -> None:
        progress = manifest.progress
        self._reporter.say(
            f"Done before: {progress.rows:,} rows in {shown_path(self._options.output)}"
        )
        self._report_failures(manifest)

    def _report_failures(self, manifest: Manifest) -> None:
        progress = manifest.progress
        self.failures = progress.failures
        if progress.failures:
            many = "row has" if progress.failures == 1 else "rows have"
            path = shown_path(self._options.output / LAYOUTS[manifest.format].failures)
            self._reporter.say(f"{progress.failures:,} {many} no vector: {path} says why")

    def report_signal(self, number: signal.Signals) -> None:
        """Print at once that a signal has come: what it leads to can take a while."""
        self._reporter.say(f"{number.name}: stopping; another signal ends it at once")

    def report_resume_command(self) -> None:
        """Print what is done, and the command that resumes the job."""
        shards = self._shards
        if shards is not None and shards.progress.rows:
            self._reporter.say(f"{shards.progress.rows:,} rows are done")
        self._reporter.say(f"Go on with: {self._options.command}")
