"""A headless Chromium, and the little of its protocol that the tests of a page for people need."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

SECONDS = 30
FLAGS = [
    "--headless",
    "--no-sandbox",  # which root cannot have, and containers do not
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-features=Translate,MediaRouter,OptimizationHints",
    "--hide-scrollbars",
    "--window-size=1000,800",
    "--remote-debugging-pipe",
]


class Chromium:
    """A running browser; what it is told goes through a pipe, as JSON."""

    def __init__(self, reading: int, writing: int) -> None:
        self._numbers = count(1)
        self._answers: dict[int, Future[Any]] = {}
        self._reading, self._writing = reading, writing
        Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        data = b""
        while block := os.read(self._reading, 1 << 16):
            *messages, data = (data + block).split(b"\0")
            for message in map(json.loads, messages):
                answer = self._answers.pop(message.get("id"), None)
                if answer is not None:
                    answer.set_result(message)
        for answer in tuple(self._answers.values()):
            answer.set_exception(EOFError("the browser has ended"))

    def tell(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """Tell it something, and wait for its answer."""
        number = next(self._numbers)
        answer = self._answers[number] = Future()
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        found = answer.result(SECONDS)
        assert "error" not in found, found
        return found["result"]

    def open(self, url: str) -> Tab:
        """A page in a tab of its own."""
        target = self.tell("Target.createTarget", url=url)["targetId"]
        session = self.tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return Tab(self, target, session)


class Tab:
    """A page, as a person has it."""

    def __init__(self, browser: Chromium, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session

    def _tell(self, method: str, **parameters: Any) -> Any:
        return self._browser.tell(method, self._session, **parameters)

    def evaluate(self, expression: str) -> Any:
        """What an expression of JavaScript is, once it is there."""
        found = self._tell(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until a condition holds; it is looked at whenever the page is drawn."""
        self.evaluate(
            "new Promise((done) => { const look = () =>"
            f" ({condition}) ? done() : setTimeout(look, 10); look(); }})"
        )

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self._tell("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Click with the mouse into the middle of an element."""
        box = self.evaluate(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        where = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self._tell("Input.dispatchMouseEvent", type=kind, **where)

    def screenshot(self, x: int, y: int, width: int, height: int) -> bytes:
        """What is seen of a part of the page, as a PNG."""
        clip = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
        return base64.b64decode(
            self._tell("Page.captureScreenshot", format="png", clip=clip)["data"]
        )

    def close(self) -> None:
        self._browser.tell("Target.closeTarget", targetId=self._target)


@contextmanager
def running(program: str, host: str) -> Iterator[Chromium]:
    """A browser for which `host` is this machine."""
    folder = Path(tempfile.mkdtemp(prefix="chromium-"))
    from_browser, its_writing = os.pipe()
    its_reading, to_browser = os.pipe()

    def hand_over() -> None:  # in the child: where it looks for the pipe
        reading, writing = os.dup(its_reading), os.dup(its_writing)
        os.dup2(reading, 3)
        os.dup2(writing, 4)

    command = [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    command.insert(1, f"--host-resolver-rules=MAP {host} 127.0.0.1")
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=hand_over,
        pass_fds=(3, 4),
        start_new_session=True,
    )
    os.close(its_reading)
    os.close(its_writing)
    browser = Chromium(from_browser, to_browser)
    try:
        yield browser
    finally:
        with suppress(OSError, EOFError, TimeoutError):
            browser.tell("Browser.close")
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(to_browser)
        shutil.rmtree(folder, ignore_errors=True)
