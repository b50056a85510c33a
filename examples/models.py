"""What a server has and what it has loaded; a model's copy is loaded, unloaded and deleted."""

import anyio

from ollama_sc import AsyncClient

MODEL = "llama3.2"
COPY = "ollama-sc-example"


async def main() -> None:
    async with AsyncClient() as client:
        print(f"version: {(await client.version()).version}")

        for model in (await client.list()).models:
            print(f"list: {model.name}, {(model.size or 0) / 1e9:.1f} GB")

        shown = await client.show(MODEL)
        print(f"show: {MODEL} can do {shown.capabilities}")

        await client.copy(MODEL, COPY)
        print(f"copy: {COPY} is there: {await client.has_model(COPY)}")

        await client.load(COPY, keep_alive="5m")
        for running in (await client.ps()).models:
            print(f"ps: {running.name} is loaded until {running.expires_at}")
        await client.unload(COPY)

        await client.delete(COPY)
        print(f"delete: {COPY} is there: {await client.has_model(COPY)}")


if __name__ == "__main__":
    anyio.run(main)
