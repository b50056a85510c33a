"""What the tests of the command share: a server in the test's loop, one as a process, a corpus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import pytest

from ollama_sc.testing import FakeOllama
from tests.cli.support import SERVER, process_server, write_jsonl
from tests.support import LONG

MEMORY = Path("/dev/shm")  # Linux has files in memory there


@pytest.fixture
async def fake(anyio_backend: Any) -> AsyncIterator[FakeOllama]:
    """A fake server with short vectors."""
    async with FakeOllama(dimensions=8) as server:
        yield server


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """A fake server for jobs that are processes."""
    with process_server(*SERVER, "--backend", "asyncio") as found:
        yield found


if MEMORY.is_dir() and not LONG:

    @pytest.fixture(scope="module")
    def memory() -> Iterator[Path]:
        """A folder in memory."""
        with TemporaryDirectory(prefix="ollama-sc-", dir=MEMORY) as folder:
            yield Path(folder)

    @pytest.fixture
    def tmp_path(memory: Path) -> Path:
        """A folder in memory, where `make soak` has one on the disk.

        A job syncs each file that it writes. That can take longer than all else while others write
        to the disk, and where processes are killed, not the system, it makes no difference.
        """
        return Path(mkdtemp(dir=memory))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Fifty texts with keys."""
    return write_jsonl(tmp_path / "corpus.jsonl", 50)
