"""What the tests of calls share: the loop's tasks, and calls that are streamed or not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sniffio

from ollama_sc import AsyncClient
from tests.support import MESSAGES, exhaust

asyncio_only = pytest.mark.parametrize("anyio_backend", ["asyncio"])


def running_tasks() -> set[Any]:
    """The tasks of this loop, by whatever each backend calls them."""
    if sniffio.current_async_library() == "asyncio":
        return {task for task in asyncio.all_tasks() if not task.done()}
    import trio  # noqa: PLC0415

    found: set[Any] = set()
    todo = [trio.lowlevel.current_root_task()]
    while todo:
        task = todo.pop()
        if task is not None and task not in found:
            found.add(task)
            todo += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


def name_of(task: Any) -> str:
    """A task's name, which each backend keeps somewhere else."""
    return str(task.get_name() if hasattr(task, "get_name") else task.name)


async def chat(client: AsyncClient, streamed: bool) -> None:
    """A chat, to its end."""
    if not streamed:
        await client.chat("llama3.2", MESSAGES)
        return
    async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
        await exhaust(stream)
