"""Two ways to limit time: a cancel scope of yours, and limits that the request has itself."""

import anyio

from ollama_sc import AsyncClient, RequestTimeout, Timeouts

MODEL = "llama3.2"
PROMPT = "Write a very long story."


async def main() -> None:
    # Limits for every request of the client; each can be given per call as well. Loading a model
    # is silence before the first chunk, and can take minutes.
    limits = Timeouts(connect=5, first_chunk=300, idle=30)
    async with AsyncClient(timeout=limits) as client:
        # A cancel scope limits whatever is inside of it. No exception: the block just ends.
        with anyio.move_on_after(1) as scope:
            await client.generate(MODEL, PROMPT)
        print(f"the scope was cancelled: {scope.cancelled_caught}")

        # A limit of the request raises RequestTimeout, which is a TimeoutError too.
        try:
            await client.generate(MODEL, PROMPT, timeout=Timeouts(total=1))
        except RequestTimeout as error:
            print(f"the limit {error.limit!r} of {error.seconds:g} s passed: {error}")

        # What a stream has brought until then stays readable.
        async with await client.generate(MODEL, PROMPT, stream=True) as stream:
            with anyio.move_on_after(1):
                async for _ in stream:
                    pass
        partial = stream.result()
        print(f"{len(partial.response)} characters arrived, complete: {partial.complete}")


if __name__ == "__main__":
    anyio.run(main)
