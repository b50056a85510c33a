"""What the contenders share that decode by msgspec: requests into bytes, replies into objects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]


class Decoding:
    """What the peers share that decode by msgspec."""

    def __init__(self) -> None:
        import msgspec

        from ollama_sc.types import ChatResponse, EmbedResponse

        self.encode = msgspec.json.Encoder().encode
        self.decode_parts = msgspec.json.Decoder(ChatResponse).decode_lines
        self.decode_embedding = msgspec.json.Decoder(EmbedResponse).decode

    def chat(self, model: str) -> bytes:
        return self.encode({"model": model, "messages": MESSAGES, "stream": True})

    async def count(
        self, blocks: AsyncIterator[bytes], first: Callable[[], object] | None = None
    ) -> int:
        """Decode a stream a network read at a time; tells when the first part has come."""
        count = 0
        rest = b""
        async for block in blocks:
            if rest:
                block = rest + block
            end = block.rfind(b"\n") + 1
            rest = block[end:]
            for part in self.decode_parts(block[:end] if rest else block):
                part.message.content
                count += 1
            if first is not None and count:
                first()
                first = None
        return count
