"""Functions as tools: the model has them called, and answers with what they return."""

from typing import Annotated

import anyio

from ollama_sc import AsyncClient, Message, ToolError

MODEL = "qwen3"
DEGREES = {"Oslo": 5, "Rome": 19}


async def get_temperature(city: str) -> int:
    """Tell how warm it is now, in degrees Celsius.

    Args:
        city: such as "Oslo".
    """
    await anyio.sleep(0.01)  # a request to a weather service
    if city not in DEGREES:
        raise ToolError(f"there is no weather of {city}; there is that of {', '.join(DEGREES)}")
    return DEGREES[city]


def to_fahrenheit(celsius: Annotated[float, "in degrees Celsius"]) -> float:
    """Convert a temperature."""  # not asynchronous: it runs in a worker thread
    return celsius * 9 / 5 + 32


async def main() -> None:
    messages = [Message("user", "How warm is it in Oslo and in Rome, in Fahrenheit?")]
    async with AsyncClient() as client:
        run = await client.run_tools(MODEL, messages, [get_temperature, to_fahrenheit])
        for record in run.calls:
            call = record.call.function
            print(f"{call.name}({call.arguments}) -> {record.message.content}")
        print(run.text)


if __name__ == "__main__":
    anyio.run(main)
