"""Blocking calls and `AsyncClient.open()` in the cells of a notebook: a real kernel runs them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.embedding.support import Served, serving

pytest.importorskip("ipykernel")

Run = Callable[[str], str]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving(token_rate=200) as served:
        yield served


@pytest.fixture(scope="module")
def cell(server: Served) -> Iterator[Run]:
    """Runs a cell; what it printed, or the error that it ended with."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(startup_timeout=40)
    try:

        def run(code: str) -> str:
            said: list[str] = []

            def on_output(message: Any) -> None:
                content = message["content"]
                if message["msg_type"] == "stream":
                    said.append(content["text"])
                elif message["msg_type"] == "error":
                    said.append(f"{content['ename']}: {content['evalue']}")

            client.execute_interactive(
                textwrap.dedent(code), output_hook=on_output, timeout=40, allow_stdin=False
            )
            return "".join(said).strip()

        started = run(
            f"""
            import os
            os.environ["OLLAMA_HOST"] = {server.url!r}
            import ollama_sc
            from ollama_sc import AsyncClient, Client
            messages = [{{"role": "user", "content": "Hi"}}]
            """
        )
        assert started == ""
        yield run
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


@pytest.mark.filterwarnings("ignore")  # of what talks to the kernel
def test_cells(cell: Run, server: Served) -> None:
    """Each cell has a running event loop: blocking calls work in it, and so does `open()` across cells."""
    assert cell("import asyncio; print(asyncio.get_running_loop().is_running())") == "True"
    assert cell("print(ollama_sc.chat('llama3.2', messages).text)").startswith("This is synthetic")
    streamed = """
        with Client() as client:
            with client.chat('llama3.2', messages, stream=True) as stream:
                print(len([part for part in stream]) > 5, stream.result().complete)
    """
    assert cell(streamed) == "True True"
    assert cell("client = await AsyncClient().open()") == ""
    assert cell("print((await client.chat('llama3.2', messages)).done)") == "True"
    begun = """
        stream = await client.chat('llama3.2', messages, stream=True)
        part = await anext(stream)
    """
    assert cell(begun) == ""
    # Another cell is another task: the request of the stream has gone on.
    assert cell("print(len([part async for part in stream]) > 5)") == "True"
    assert cell("await client.aclose()") == ""
    assert cell("await client.version()").startswith("ClientClosedError: ")
    blocked = cell("ollama_sc.show('missing')")
    assert blocked.startswith("ModelNotFoundError: ")
    assert cell("print(ollama_sc.abort())") == "0"
    assert cell("ollama_sc.blocking._default._client.close()") == ""
    server.wait_all_closed()
