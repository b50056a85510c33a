"""A web application: one client for as long as the server runs, one stream for each request.

The client is opened and closed by ASGI's lifespan. When a browser goes away, its request is
cancelled, and that ends the generation. On SIGTERM the generations in flight have five seconds;
what stands behind the second `receive` of the lifespan would come too late for that, when all
responses are over. Needs no framework; run it with any ASGI server, see docs/services.md:

    uvicorn --app-dir examples web_lifespan:app
    curl -N 'http://127.0.0.1:8000/?Why+is+the+sky+blue'
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_plus

import anyio

from ollama_sc import AsyncClient, OllamaError

MODEL = "llama3.2"

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


async def app(scope: Event, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["type"] == "http":
        await answer(scope["state"]["ollama"], scope, receive, send)


async def lifespan(scope: Event, receive: Receive, send: Send) -> None:
    """Open the client when the server starts, and close it when the server stops."""
    await receive()  # lifespan.startup
    async with AsyncClient(max_in_flight=100) as client, client.shutdown_on_signals(grace=5):
        scope["state"]["ollama"] = client  # the server hands it to every request
        await send({"type": "lifespan.startup.complete"})
        await receive()  # lifespan.shutdown
    await send({"type": "lifespan.shutdown.complete"})


async def answer(client: AsyncClient, scope: Event, receive: Receive, send: Send) -> None:
    """Stream the answer to what stands behind the `?` as plain text."""
    prompt = unquote_plus(scope["query_string"].decode())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel_on_disconnect, receive, tasks.cancel_scope)
        await stream_text(client, prompt, send)
        tasks.cancel_scope.cancel()


async def cancel_on_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def stream_text(client: AsyncClient, prompt: str, send: Send) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    try:
        # Fails before the response has begun, so that the status can still say so.
        stream = await client.generate(MODEL, prompt, stream=True)
    except OllamaError as error:
        await send({"type": "http.response.start", "status": 502, "headers": headers})
        await send({"type": "http.response.body", "body": f"{error}\n".encode()})
        return
    async with stream:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for text in stream.iter_text():
            body = text.encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
