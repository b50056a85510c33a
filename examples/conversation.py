"""A conversation: a list of messages that grows by whole turns."""

import anyio

from ollama_sc import AsyncClient, Conversation, OllamaError, keep_last

MODEL = "llama3.2"
QUESTIONS = ("Why is the sky blue?", "And at night?", "Say it in one word.")


async def main() -> None:
    async with AsyncClient() as client:
        talk = Conversation(client, MODEL, system="Answer in one sentence.", trim=keep_last(4))
        for question in QUESTIONS:
            print(f"> {question}")
            try:
                async with await talk.send(question, stream=True) as stream:
                    async for text in stream.iter_text():
                        print(text, end="", flush=True)
            except OllamaError as error:
                print(error)  # the list is as it was before this turn
            print()
        print(len(talk.messages), "messages")  # plain objects, to be saved or changed


if __name__ == "__main__":
    anyio.run(main)
