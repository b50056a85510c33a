"""A client with its own host, headers and httpx settings: `python custom_client.py [HOST]`."""

import sys

import anyio
import httpx

from ollama_sc import AsyncClient, Timeouts

MODEL = "llama3.2"


async def tell(response: httpx.Response) -> None:
    print(f"{response.request.method} {response.request.url.path}: {response.status_code}")


async def main() -> None:
    host = sys.argv[1] if len(sys.argv) > 1 else None  # None: OLLAMA_HOST, or 127.0.0.1:11434
    async with AsyncClient(
        host,  # "192.168.1.5", "host:8080", "https://example.com/ollama"
        # api_key="...",  # goes to this host, as `Authorization: Bearer ...`
        headers={"X-Team": "weather"},
        timeout=Timeouts(connect=5, idle=60),
        max_in_flight=4,
        # The rest is httpx's: auth, verify, cert, cookies, proxy, transport, ...
        event_hooks={"response": [tell]},
    ) as client:
        print(client)
        reply = await client.chat(MODEL, [{"role": "user", "content": "Why is the sky blue?"}])
        print(reply.message.content)


if __name__ == "__main__":
    anyio.run(main)
