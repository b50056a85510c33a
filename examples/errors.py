"""What can go wrong, and what to do about it. All errors are OllamaErrors."""

import anyio

from ollama_sc import (
    AbortError,
    AsyncClient,
    ConnectError,
    ModelNotFoundError,
    OllamaError,
    RateLimitError,
    RequestTimeout,
    ServerBusyError,
    Timeouts,
)

MODEL = "llama3.2"


async def ask(client: AsyncClient, model: str, prompt: str) -> str:
    """An answer, or what to tell the user."""
    try:
        reply = await client.generate(model, prompt)
    except ModelNotFoundError:
        return f"the server does not have it: run `ollama pull {model}`"
    except (ServerBusyError, RateLimitError) as error:
        return f"try again later ({error.error})"
    except ConnectError:
        return "is `ollama serve` running, and OLLAMA_HOST right?"
    except RequestTimeout as error:
        return f"too slow, the limit {error.limit!r} passed"
    except AbortError as error:
        return f"this program ended it: {error.reason}"
    except OllamaError as error:
        return f"{type(error).__name__}: {error}"
    return f"answered with {len(reply.response)} characters"


async def main() -> None:
    async with AsyncClient() as client:
        print("good:", await ask(client, MODEL, "Say hello."))
        print("no such model:", await ask(client, "no-such-model", "Say hello."))
        print("a wrong call:", await ask(client, "", "Say hello."))

        async def ask_for_long() -> None:
            print("aborted:", await ask(client, MODEL, "Write a very long story."))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask_for_long)
            await anyio.sleep(0.5)
            client.abort("the user pressed Esc")
    print("outside of `async with`:", await ask(client, MODEL, "Say hello."))

    async with AsyncClient("127.0.0.1:9") as nobody:  # a port where nothing listens
        print("no server:", await ask(nobody, MODEL, "Say hello."))
    async with AsyncClient(timeout=Timeouts(total=0.5)) as hasty:
        print("too slow:", await ask(hasty, MODEL, "Write a very long story."))


if __name__ == "__main__":
    anyio.run(main)
