"""The modules `js` and `pyodide.ffi`, as far as `ollama_sc._http.fetch` uses them, and no browser."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from ollama_sc import _platform


class JsError(Exception):
    """What an exception of JavaScript's is in Python."""

    def __init__(self, message: str = "Failed to fetch", name: str = "TypeError") -> None:
        super().__init__(f"{name}: {message}")
        self.message = message
        self.name = name


class Controller:
    """An AbortController."""

    def __init__(self) -> None:
        self.aborted = anyio.Event()
        self.signal = self

    def abort(self) -> None:
        self.aborted.set()


class JsArray:
    """A Uint8Array, or a part of one."""

    def __init__(self, data: bytearray, start: int = 0, stop: int | None = None) -> None:
        self.data = data
        self._part = slice(start, stop)

    def subarray(self, start: int, stop: int) -> JsArray:
        return JsArray(self.data, start, stop)

    def assign(self, block: bytes) -> None:
        assert len(self.data[self._part]) == len(block)
        self.data[self._part] = block

    def to_bytes(self) -> bytes:
        return bytes(self.data)


class Body:
    """A ReadableStream of these blocks; one that is an exception is how it breaks.

    The last `None` is a read that never ends.
    """

    def __init__(self, blocks: Iterable[bytes | Exception | None]) -> None:
        self._blocks = iter(blocks)

    def getReader(self) -> Body:
        return self

    async def read(self) -> Any:
        await checkpoint()
        try:
            block = next(self._blocks)
        except StopIteration:
            return SimpleNamespace(done=True, value=None)
        if block is None:
            await anyio.sleep_forever()
        if isinstance(block, Exception):
            raise block
        return SimpleNamespace(done=False, value=JsArray(bytearray(block)))


class Headers:
    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = [list(pair) for pair in pairs]

    def entries(self) -> list[list[str]]:
        return self._pairs


def response(
    body: Iterable[bytes | Exception | None] | None = (b"{}",),
    status: int = 200,
    headers: Iterable[tuple[str, str]] = (("content-type", "application/json"),),
    type: str = "cors",
) -> Any:
    stream = None if body is None else Body(body)
    return SimpleNamespace(status=status, headers=Headers(headers), body=stream, type=type)


class Browser:
    """What `fetch` is asked for, and what it answers.

    Attributes:
        asked: the requests, as a page makes them: `url`, and what stands in their settings.
        answer: makes an answer to a request; raises where there is none.
    """

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answer: Callable[[Any], Any] = lambda _: response()
        self.origin = "http://pages.test"
        self.failure: Exception | None = None
        self.Object = SimpleNamespace(fromEntries=dict)
        self.AbortController = SimpleNamespace(new=Controller)
        self.Request = SimpleNamespace(new=self._request)
        self.Uint8Array = SimpleNamespace(new=lambda size: JsArray(bytearray(size)))

    def _request(self, url: str, settings: dict[str, Any]) -> Any:
        if self.failure is not None:
            raise self.failure
        return SimpleNamespace(url=url, **settings)

    async def fetch(self, request: Any) -> Any:
        self.asked.append(request)
        await checkpoint()
        answer = self.answer(request)
        if answer is None:
            await request.signal.aborted.wait()
            raise JsError("signal is aborted without reason", "AbortError")
        return answer


def to_js(value: Any, dict_converter: Any = None) -> Any:
    return value if dict_converter is None else dict_converter(value)


def install(monkeypatch: pytest.MonkeyPatch) -> Browser:
    """Let the library think that it is in a browser."""
    import sys

    browser = Browser()
    ffi = SimpleNamespace(JsException=JsError, to_js=to_js)
    monkeypatch.setitem(sys.modules, "js", browser)
    monkeypatch.setitem(sys.modules, "pyodide", SimpleNamespace(ffi=ffi))
    monkeypatch.setitem(sys.modules, "pyodide.ffi", ffi)
    monkeypatch.setattr(_platform, "sys", SimpleNamespace(platform="emscripten"))
    return browser
