"""A run of tools as it happens: the text, the calls, a question before one, and its end."""

import anyio

from ollama_sc import AsyncClient, ChatResponse, Message, ToolCall, ToolEnded, ToolStarted

MODEL = "qwen3"


async def list_files(folder: str) -> list[str]:
    """List the files of a folder."""
    return [path.name async for path in anyio.Path(folder).glob("*.py")]


async def delete_file(path: str) -> str:
    """Delete a file."""
    return f"{path} is gone"  # an example deletes nothing


def approve(call: ToolCall) -> bool | str:
    """Decide before each call; a text is the reason that the model gets."""
    return call.function.name != "delete_file" or "the user keeps all files"


async def main() -> None:
    messages = [Message("user", "Which files are in '.'? Delete the oldest.")]
    async with AsyncClient() as client:
        # Leaving this block ends the model's request and every tool.
        async with await client.run_tools(
            MODEL, messages, [list_files, delete_file], approve=approve, stream=True
        ) as stream:
            async for event in stream:
                match event:
                    case ChatResponse():
                        print(event.text, end="", flush=True)
                    case ToolStarted(call=call):
                        print(f"[{call.function.name} ...]")
                    case ToolEnded(record=record):
                        print(f"[{record.call.function.name}: {record.outcome}]")
                    case _:
                        pass
        run = stream.result()
        print(f"\n{run.rounds} rounds, {len(run.calls)} calls, {run.stopped}")


if __name__ == "__main__":
    anyio.run(main)
