"""Threads that share one blocking client; a signal ends all of their requests."""

import signal
from concurrent.futures import ThreadPoolExecutor

from ollama_sc import AbortError, Client

MODEL = "llama3.2"
SUBJECTS = ("kites", "bread", "clocks", "rivers", "dust")


def main() -> None:
    with Client() as client, ThreadPoolExecutor(len(SUBJECTS)) as pool:

        def stop(number: int, _: object) -> None:  # any thread can abort, and so can a handler
            print("aborted", client.abort(signal.Signals(number).name))

        signal.signal(signal.SIGTERM, stop)

        def tell(subject: str) -> str:
            try:
                with client.generate(MODEL, f"Tell of {subject}.", stream=True) as stream:
                    return f"{subject}: {sum(1 for _ in stream)} parts"
            except AbortError as error:
                return f"{subject}: {error}"

        for line in pool.map(tell, SUBJECTS):
            print(line)


if __name__ == "__main__":
    main()
