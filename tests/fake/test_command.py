"""The fake as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from tests import forking
from tests.support import ROOT

COMMAND = [sys.executable, "-W", "error", "-m", "ollama_sc.testing"]
PATH = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
ENVIRONMENT = {**os.environ, "PYTHONPATH": PATH}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_command(number, backend):
    """It prints its URL, serves, and exits with 0 on either signal."""
    command = [*COMMAND, "--backend", backend]
    command += ["--models", "a,b", "--dimensions", "4", "--parallel", "2", "--tokens", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        url = process.stdout.readline().strip()
        with httpx.Client(base_url=url, trust_env=False, timeout=20) as http:
            names = [model["name"] for model in http.get("/api/tags").json()["models"]]
            vectors = http.post("/api/embed", json={"model": "a", "input": "x"}).json()[
                "embeddings"
            ]
            process.send_signal(number)
            assert process.wait(timeout=20) == 0
    assert names == ["a:latest", "b:latest"]
    assert len(vectors[0]) == 4


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_address_in_use(backend):
    """It says so in a line, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        done = subprocess.run(
            [*COMMAND, "--port", port, "--backend", backend],
            check=False,
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
            timeout=20,
        )
    assert done.returncode == 1
    assert done.stderr == f"127.0.0.1:{port} is in use; --port 0 takes a free one\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--port", "99999"), "'99999' is not a port"),
        (("--token-rate", "0"), "above zero"),
        (("--tokens", "-3"), "1 or more"),
        (("--parallel", "0"), "1 or more"),
        (("--dimensions", "many"), "'many' is not a number"),
        (("--embed-seconds", "nan"), "number of seconds"),
        (("--models", "bad/../x"), "invalid model name"),
        (("--host", "203.0.113.9"), "cannot listen at 203.0.113.9:0: "),
    ],
)
def test_wrong_options(words, text):
    """Each is refused in a line before anything listens, without a traceback."""
    done = forking.run(["-m", "ollama_sc.testing", *words])
    assert done.returncode in (1, 2)
    assert not done.stdout
    assert text in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
