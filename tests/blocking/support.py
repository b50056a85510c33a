"""What the tests of blocking clients share."""

from __future__ import annotations

import threading
from typing import Any

from ollama_sc.blocking import Client, Stream

MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]
MODEL = "llama3.2"
CHAT = "/api/chat"


def threads() -> list[threading.Thread]:
    """The threads of clients; one whose start was interrupted is none, though Python lists it."""
    return [
        one for one in threading.enumerate() if one.name == "ollama_sc client" and one.is_alive()
    ]


def opened(client: Client) -> Stream[Any]:
    """A stream of which one part was read."""
    stream = client.chat(MODEL, MESSAGES, stream=True)
    next(stream)
    return stream


def is_idle(client: Client) -> bool:
    """Whether nothing of any request is left, in its event loop neither."""
    worker = client._worker
    if worker is None:
        return True
    running = worker.call_now(lambda: len(tuple(worker.client._calls.calls())), otherwise=0)
    return not (running or worker._pending or worker._running)
