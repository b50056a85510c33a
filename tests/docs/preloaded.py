"""A process that has imported what the demo needs, and forks: most of a start is imports.

`python -W error -m tests.docs.preloaded DESCRIPTOR` reads requests from a socket: JSON, with the
descriptors of stdin, stdout, stderr and of a pipe, which gets the pid and the exit status.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import runpy
import signal
import socket
import sys
import termios
from typing import Any, NoReturn

import anyio
import trio  # noqa: F401 - imported before it is needed

import ollama_sc.demo._app  # noqa: F401 - the same
from ollama_sc.testing import FakeOllama


async def warm_up() -> None:
    """Import what is imported late."""
    async with FakeOllama() as fake, ollama_sc.AsyncClient(fake.url) as client:
        await client.embed_array("all-minilm", ["a text"])


def main() -> NoReturn:
    for backend in ("asyncio", "trio"):
        anyio.run(warm_up, backend=backend)
    gc.collect()
    door = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    while True:
        request, descriptors, _, _ = socket.recv_fds(door, 65536, 4)
        if not request:
            sys.exit()
        if os.fork() == 0:
            door.close()
            wait_for_one(json.loads(request), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def wait_for_one(request: dict[str, Any], *descriptors: int) -> NoReturn:
    """Run it in a process of its own, and tell how it ended."""
    *standard, tell = descriptors
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(tell)
        become(request, standard)
    for descriptor in standard:
        os.close(descriptor)
    os.write(tell, f"{pid}\n".encode())
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(tell, f"{status}\n".encode())
    os._exit(0)


def become(request: dict[str, Any], standard: list[int]) -> NoReturn:
    """Be `python -m ollama_sc.demo`."""
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if request["terminal"]:
        os.setsid()
        fcntl.ioctl(1, termios.TIOCSCTTY, 0)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # whatever started the tests, as nohup does
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # New ones: those that there are remember what they belonged to.
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", closefd=False, buffering=1, errors="backslashreplace")
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[1:] = request["arguments"]
    status: object = 0
    try:
        runpy.run_module("ollama_sc.demo", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    gc.collect()  # what was left open warns now
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(str(status)))


if __name__ == "__main__":
    main()
