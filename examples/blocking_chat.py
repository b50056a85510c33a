"""Without an event loop: a question, an answer as it is written, and vectors.

Functions of the module ask one default client; a `Client` of your own has settings of its own.
"""

from ollama_sc import Client, chat
from ollama_sc.blocking import Stream
from ollama_sc.types import ChatResponse

MODEL = "llama3.2"
MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]


def show(stream: Stream[ChatResponse]) -> None:
    # Leaving the block ends the request, also by Ctrl-C.
    with stream:
        for text in stream.iter_text():
            print(text, end="", flush=True)
    print(f"\n{stream.result().eval_count} tokens")


def main() -> None:
    print(chat(MODEL, MESSAGES).message.content)
    with Client(timeout=300, headers={"X-Team": "weather"}) as client:
        show(client.chat(MODEL, MESSAGES, stream=True))
        vectors = client.embed("nomic-embed-text", ["one", "two"]).embeddings
        print(len(vectors), "vectors of", len(vectors[0]))


if __name__ == "__main__":
    main()
