"""The log under `ollama_sc`: a request's life at DEBUG, no secret, and nothing by default."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from ollama_sc import AsyncClient, OllamaError
from ollama_sc.testing import FakeOllama, Reply
from tests.support import MESSAGES, exhaust

pytestmark = pytest.mark.anyio


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged, without numbers and times."""
    assert {record.levelno for record in caplog.records} <= {logging.DEBUG}
    assert {record.name for record in caplog.records} <= {"ollama_sc.requests"}
    return [re.sub(r"#\d+ |[\d.]+ s$", "", record.getMessage()) for record in caplog.records]


async def test_a_requests_life(fake: FakeOllama, caplog: pytest.LogCaptureFixture) -> None:
    """Each step is a line, with the request's number and the time since its start."""
    caplog.set_level(logging.DEBUG, "ollama_sc")
    async with AsyncClient(fake.url) as client:
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            await exhaust(stream)
        await client.list()
    name = "POST /api/chat, model 'llama3.2'"
    assert lines(caplog)[:6] == [f"{name}: started"] + [
        f"{name}: {step} after "
        for step in ("has its turn", "connected", "sent", "first part", "complete")
    ]
    assert lines(caplog)[6:] == ["GET /api/tags: started"] + [
        f"GET /api/tags: {step} after "
        for step in ("has its turn", "connected", "sent", "complete")
    ]


async def test_ends(slow: FakeOllama, caplog: pytest.LogCaptureFixture) -> None:
    """An error is named, with its status; an abort is none."""
    caplog.set_level(logging.DEBUG, "ollama_sc")
    slow.script("/api/generate", Reply.error(500, "first line\nsecond\r\n\x1b[31mline"))
    async with AsyncClient(slow.url) as client:
        with pytest.raises(OllamaError):
            await client.generate("llama3.2", "Hi")
        async with await client.generate("llama3.2", "Hi", stream=True) as stream:
            await anext(stream)
    ends = [line for line in lines(caplog) if ": closed" in line or "Error" in line]
    assert len(ends) == 2
    assert "ResponseError: HTTP 500 after" in ends[0]


async def test_nothing_by_default(
    fake: FakeOllama, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Where nobody has set logging up, nothing is printed, and no record is made."""
    async with AsyncClient(fake.url) as client:
        await client.chat("llama3.2", MESSAGES)
        with pytest.raises(OllamaError):
            await client.chat("nobody", MESSAGES)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


async def test_no_secret_is_logged(
    fake: FakeOllama, caplog: pytest.LogCaptureFixture, anyio_backend: Any
) -> None:
    """Neither keys nor passwords nor what was said, on success and on failure."""
    caplog.set_level(logging.DEBUG, "ollama_sc")
    secret = "sk-secret-77"
    fake.script(
        "/api/chat", Reply.default(), Reply.html(502), Reply.default().replace(reset_at=0),
        Reply.error(401, f"the key {secret} is wrong"), Reply.text(f"welcome, {secret}"),
        Reply.error(302, "", {"Location": f"http://u:{secret}@other/?key={secret}"}),
    )  # fmt: skip
    host = fake.url.replace("//", f"//user:{secret}@")
    async with AsyncClient(host, headers={"X-Key": secret}) as client:
        for _ in range(6):
            try:
                await client.chat("llama3.2", [{"role": "user", "content": f"my key: {secret}"}])
            except OllamaError:
                pass
        await client.request("GET", f"/api/version?key={secret}")
    async with AsyncClient(f"http://user:{secret}@127.0.0.1:1") as client:
        with pytest.raises(OllamaError):
            await client.list()
    assert len(caplog.records) > 15
    assert secret not in "\n".join(
        str(record.__dict__) for record in caplog.records if record.name.startswith("ollama_sc")
    )
