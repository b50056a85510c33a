"""A process that has imported everything, and forks for each program that it is told to run.

For programs whose end is the subject, and not their start, which takes a second. Each is the main
program of its process: the fork leaves the loop below, runs the program as `__main__`, and ends as
any Python process does. Nothing else runs here, no thread and no event loop.

Each line of the input is a program, and where its output goes to; the answers are the process that
runs it, and then its exit status.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import warnings
from types import ModuleType

import anyio._backends._asyncio
import anyio._backends._trio  # noqa: F401
import numpy as np  # noqa: F401
import stamina  # noqa: F401

import ollama_sc.embedding.worker.thread  # noqa: F401 - what the first call imports


def told() -> str:
    """The program that is to run in this process, a fork."""
    for line in sys.stdin:
        program, stdout, stderr = json.loads(line)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # for threads of numpy
            process = os.fork()
        if not process:
            os.setsid()
            for number, path in enumerate((os.devnull, stdout, stderr)):
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
                os.dup2(file, number)
                os.close(file)
            return program
        os.write(1, b"%d\n" % process)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        os.write(1, b"%d\n" % status)
    os._exit(0)


gc.freeze()  # what was imported, which would take most of the time when a program ends
code = compile(told(), "<program>", "exec", dont_inherit=True)
sys.modules["__main__"] = ModuleType("__main__")  # and nothing else refers to it
exec(code, vars(sys.modules["__main__"]))
