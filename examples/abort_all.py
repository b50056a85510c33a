"""Several answers at once, and one call that ends all of them."""

import anyio

from ollama_sc import AbortError, AsyncClient

MODEL = "llama3.2"
SUBJECTS = ("lighthouses", "rivers", "clocks", "kites", "bread")


async def read(client: AsyncClient, subject: str) -> None:
    messages = [{"role": "user", "content": f"Write a very long story about {subject}."}]
    async with await client.chat(MODEL, messages, stream=True) as stream:
        async for _ in stream:
            pass
    print(f"the story about {subject} is complete")


async def main() -> None:
    async with AsyncClient() as client:
        try:
            async with anyio.create_task_group() as tasks:
                for subject in SUBJECTS:
                    tasks.start_soon(read, client, subject)
                await anyio.sleep(2)
                count = client.abort("two seconds are enough")
                print(f"aborted {count} requests")
        except* AbortError as group:
            # The first AbortError that leaves a task makes the task group cancel the others, so
            # the group holds one or more of them, not always all.
            print(f"consumers ended by: {group.exceptions[0]}")

        print(f"requests in flight: {client.statistics().in_flight}")
        reply = await client.generate(MODEL, "Say hello.", options={"num_predict": 5})
        print(f"the client goes on: {reply.response!r}")


if __name__ == "__main__":
    anyio.run(main)
