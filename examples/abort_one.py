"""Two answers at once; one of them is ended, the other one goes on."""

import anyio

from ollama_sc import AbortError, AsyncClient, GenerateResponse, Stream

MODEL = "llama3.2"


async def read(name: str, stream: Stream[GenerateResponse]) -> None:
    try:
        async for _ in stream:
            pass
        print(f"{name}: complete")
    except AbortError as error:
        print(f"{name}: aborted ({error.reason}), {len(stream.result().response)} characters came")


async def main() -> None:
    async with (
        AsyncClient() as client,
        await client.generate(MODEL, "Tell a long story about rivers.", stream=True) as rivers,
        await client.generate(MODEL, "Tell me of kites.", stream=True) as kites,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(read, "rivers", rivers)
        tasks.start_soon(read, "kites", kites)
        await anyio.sleep(0.5)
        rivers.abort("this tab was closed")


if __name__ == "__main__":
    anyio.run(main)
