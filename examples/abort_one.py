"""Two answers; one of them is ended, the other one goes on, or has its turn."""

import anyio
from anyio.abc import TaskStatus

from ollama_sc import AbortError, AsyncClient, GenerateResponse, Stream

MODEL = "llama3.2"


async def read(
    client: AsyncClient,
    subject: str,
    *,
    task_status: TaskStatus[Stream[GenerateResponse]] = anyio.TASK_STATUS_IGNORED,
) -> None:
    prompt = f"Tell a long story about {subject}."
    async with await client.generate(
        MODEL, prompt, stream=True, options={"num_predict": 100}
    ) as stream:
        task_status.started(stream)
        try:
            async for _ in stream:
                pass
            print(f"{subject}: complete")
        except AbortError as error:
            length = len(stream.result().response)
            print(f"{subject}: aborted ({error.reason}), {length} characters came")


async def main() -> None:
    async with AsyncClient() as client, anyio.create_task_group() as tasks:
        rivers: Stream[GenerateResponse] = await tasks.start(read, client, "rivers")
        # A task of its own for each: a server that has OLLAMA_NUM_PARALLEL=1, as most have, begins
        # with the second answer of a model where the first one has ended.
        tasks.start_soon(read, client, "kites")
        await anyio.sleep(0.5)
        rivers.abort("this tab was closed")


if __name__ == "__main__":
    anyio.run(main)
