"""Requests that belong together, such as those of one user, and the end of these alone."""

import anyio

from ollama_sc import AbortError, AsyncClient, Group

MODEL = "llama3.2"


async def tell(group: Group, name: str, subject: str) -> None:
    try:
        async with await group.generate(
            MODEL, f"Tell a story about {subject}.", stream=True, options={"num_predict": 100}
        ) as stream:
            async for _ in stream:
                pass
        print(f"{name}: the story about {subject} is complete")
    except AbortError as error:
        print(f"{name}: the story about {subject} was aborted ({error.reason})")


async def main() -> None:
    async with (
        AsyncClient() as client,
        client.group() as ann,
        client.group() as bob,
        anyio.create_task_group() as tasks,
    ):
        for subject in ("kites", "bread"):
            tasks.start_soon(tell, ann, "Ann", subject)
            tasks.start_soon(tell, bob, "Bob", subject)
        await anyio.sleep(1)
        count = ann.abort("Ann closed her tab")
        print(f"aborted {count} of Ann's requests, {bob.statistics().in_flight} of Bob's go on")


if __name__ == "__main__":
    anyio.run(main)
