"""What the browser loads, and how the tests have code run there.

A page and a worker ask `/next` for code, and send what came of it to `/result`: no driver is needed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from email.parser import HeaderParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from tests.support import ROOT

# Pages have this host, which the browser is told to look for on this machine: an origin that no
# server allows unless it is told to.
HOST = "pages.test"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".json": "application/json",
    ".wasm": "application/wasm",
}
POLL_SECONDS = 20
THERE = {"sys_platform": "emscripten", "platform_system": "Emscripten", "python_version": "3.14"}


class Site:
    """The files, and the code that waits to be run.

    Args:
        pyodide: the folder of Pyodide.
        wheels: what can be installed in the page.
    """

    def __init__(self, pyodide: Path, wheels: list[Path]) -> None:
        self.folders = {
            "/pyodide/": pyodide,
            "/tests/": Path(__file__).parent,
            "/examples/": ROOT / "examples" / "browser",
        }
        self.wheels = {wheel.name: wheel for wheel in wheels}
        self.lock = json.dumps(lock_file(pyodide, wheels)).encode()
        self._waiting: dict[str, SimpleQueue[tuple[int, str]]] = {}
        self._results: dict[int, Future[dict[str, Any]]] = {}
        self._numbers = count()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                if url.path == "/next":
                    found = site._next(parse_qs(url.query)["place"][0])
                else:
                    found = site._file(url.path)
                status, type_, body = found
                self.send_response(status)
                self.send_header("Content-Type", type_)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                number = int(parse_qs(urlsplit(self.path).query)["id"][0])
                site._results.pop(number).set_result(json.loads(body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # the browser was ended

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.origin = f"http://{HOST}:{self.port}"

    @contextmanager
    def serving(self) -> Iterator[Site]:
        thread = Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    async def run(self, place: str, code: str) -> Any:
        """Run code in a page or a worker; what it returns as JSON.

        It must write nothing to its standard error: whatever nobody waits for would end there.
        """
        number = next(self._numbers)
        future = self._results[number] = Future()
        self._queue(place).put((number, code))
        result = await asyncio.wrap_future(future)
        assert result["error"] is None, f"in the {place}: {result['error']}"
        assert result["said"] == [], f"in the {place}"
        return result["value"]

    def _queue(self, place: str) -> SimpleQueue[tuple[int, str]]:
        return self._waiting.setdefault(place, SimpleQueue())

    def _next(self, place: str) -> tuple[int, str, bytes]:
        try:
            number, code = self._queue(place).get(timeout=POLL_SECONDS)
        except Empty:
            return 202, "text/plain", b""
        return 200, "application/json", json.dumps({"id": number, "code": code}).encode()

    def _file(self, path: str) -> tuple[int, str, bytes]:
        name = path.rpartition("/")[2]
        if path == "/pyodide/pyodide-lock.json":
            return 200, TYPES[".json"], self.lock
        if name in self.wheels:
            return 200, "application/zip", self.wheels[name].read_bytes()
        for prefix, folder in self.folders.items():
            if path == prefix + name and (folder / name).is_file():
                type_ = TYPES.get(Path(name).suffix, "application/octet-stream")
                return 200, type_, (folder / name).read_bytes()
        return 404, "text/plain", b"not here"


def lock_file(pyodide: Path, wheels: list[Path]) -> dict[str, Any]:
    """Pyodide's list of the packages that it can load: these wheels alone."""
    lock = json.loads((pyodide / "pyodide-lock.json").read_text())
    names = {canonicalize_name(parse_wheel_filename(wheel.name)[0]) for wheel in wheels}
    lock["packages"] = {}
    for wheel in wheels:
        name, version, *_ = parse_wheel_filename(wheel.name)
        with ZipFile(wheel) as archive:
            metadata = next(file for file in archive.namelist() if file.endswith("/METADATA"))
            fields = HeaderParser().parsestr(archive.read(metadata).decode())
            tops = {file.partition("/")[0] for file in archive.namelist()}
        needed = map(Requirement, fields.get_all("Requires-Dist", []))
        depends = [
            canonicalize_name(one.name)
            for one in needed
            if one.marker is None or one.marker.evaluate({**THERE, "extra": ""})
        ]
        lock["packages"][name] = {
            "name": name,
            "version": str(version),
            "file_name": wheel.name,
            "install_dir": "site",
            "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
            "package_type": "package",
            "imports": sorted(top for top in tops if not top.endswith(".dist-info")),
            "depends": sorted(set(depends) & names),
            "unvendored_tests": False,
        }
    return lock
