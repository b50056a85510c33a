"""A real web server in a process of its own, with the application of docs/services.md."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import SocketStream

from tests.support import ROOT

GRACE = 0.5
SECONDS = 40

COMMANDS = {
    "uvicorn": "uvicorn --port {port} --loop asyncio app:app",
    "uvicorn-uvloop": "uvicorn --port {port} --loop uvloop app:app",
    "uvicorn-workers": "uvicorn --port {port} --workers 2 app:app",
    "uvicorn-reload": "uvicorn --port {port} --reload app:app",
    "uvicorn-option": "uvicorn --port {port} --timeout-graceful-shutdown 1 silent:app",
    "granian": "granian --interface asgi --port {port} app:app",
    "granian-uvloop": "granian --interface asgi --loop uvloop --port {port} app:app",
    "gunicorn": "gunicorn -k uvicorn_worker.UvicornWorker -b 127.0.0.1:{port} app:app",
    "gunicorn-option": "gunicorn -k uvicorn_worker.UvicornWorker -b 127.0.0.1:{port}"
    " --graceful-timeout 1 silent:app",
    "hypercorn": "hypercorn -b 127.0.0.1:{port} --graceful-timeout 1 app:app",
    "hypercorn-uvloop": "hypercorn -k uvloop -b 127.0.0.1:{port} --graceful-timeout 1 app:app",
    "hypercorn-trio": "hypercorn -k trio -b 127.0.0.1:{port} --graceful-timeout 1 app:app",
}


def application() -> str:
    """The one of the document, with a grace that tests can wait for."""
    text = (ROOT / "docs/services.md").read_text()
    found = re.search(r"<!-- the application [^\n]*-->\n```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    assert found[1].count("grace=5") == 1
    return found[1].replace("grace=5", f"grace={GRACE}")


class Server:
    """A web server that runs."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    async def get(self, target: str, method: str = "GET") -> SocketStream:
        """Send a request; the connection."""
        stream = await anyio.connect_tcp("127.0.0.1", self.port)
        await stream.send(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return stream

    async def stop(self) -> int:
        """Send SIGTERM, and wait for the end; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await anyio.to_thread.run_sync(self.process.wait)


async def read_until(stream: SocketStream, wanted: bytes) -> bytes:
    """What comes, up to and with these bytes."""
    data = b""
    while wanted not in data:
        data += await stream.receive()
    return data


async def read_all(stream: SocketStream) -> bytes:
    """What comes until the server closes the connection, in whatever way."""
    data = b""
    async with stream:
        try:
            while True:
                data += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return data


@asynccontextmanager
async def running(name: str, folder: Path, url: str) -> AsyncIterator[Server]:
    """A server of this name, with the application in a folder."""
    (folder / "app.py").write_text(application())
    # The same without anything that hears signals: what the servers' own options are for.
    block = f"async with client.shutdown_on_signals(grace={GRACE}):"
    plain = application().replace(block, "if True:")
    assert "signals" not in plain
    (folder / "silent.py").write_text(plain)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = COMMANDS[name].format(port=port).split()
    environment: dict[str, Any] = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PYTEST")},
        "OLLAMA_HOST": url,
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
    }
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        with anyio.fail_after(SECONDS):
            while True:
                assert process.poll() is None, log.read_text()
                try:
                    stream = await anyio.connect_tcp("127.0.0.1", port)
                except OSError:
                    await anyio.sleep(0.02)  # nobody says when it listens
                else:
                    await stream.aclose()
                    break
            yield Server(process, port)
    except BaseException as error:
        error.add_note(log.read_text())
        raise
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
