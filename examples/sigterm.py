"""A service that ends on SIGTERM or Ctrl-C: no new request, some grace, an abort of the rest."""

import signal

import anyio

from ollama_sc import AbortError, AsyncClient, ClientClosedError

MODEL = "llama3.2"
GRACE = 2.0  # seconds for the requests in flight


async def worker(client: AsyncClient, number: int) -> None:
    """Ask without end, until the client lets no more requests in."""
    while True:
        try:
            await client.generate(MODEL, "Write a very long story.")
            print(f"worker {number}: a story is complete", flush=True)
        except AbortError as error:
            print(f"worker {number}: aborted: {error.reason}", flush=True)
        except ClientClosedError:
            print(f"worker {number}: no more requests", flush=True)
            return


async def main() -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with AsyncClient() as client, anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(worker, client, number)
            print("running; stop me with SIGTERM", flush=True)
            async for signum in signals:
                print(f"got {signum.name}", flush=True)
                count = await client.shutdown(grace=GRACE)
                print(f"shut down, {count} requests had to be aborted", flush=True)
                break
    print("bye", flush=True)


if __name__ == "__main__":
    anyio.run(main)
