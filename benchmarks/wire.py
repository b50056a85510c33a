"""The bytes that the benchmark's server sends, made once, in the form that Ollama gives them."""

from __future__ import annotations

import base64
import random
import struct
from decimal import Decimal
from functools import cache

DIMENSIONS = 768
VECTORS = 64  # different ones; longer batches repeat them
STAMP = "2026-11-23T02:26:%02d.%09dZ"
WORDS = (
    "Why is the sky blue ? One sentence . The light that comes from sun through air scatters , and "
    "what has a short wave length does so more than others , from every side at once , to where you "
    "stand and look up"
).split()

NDJSON = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
    b"Date: Mon, 23 Nov 2026 02:26:39 GMT\r\nTransfer-Encoding: chunked\r\n\r\n"
)
JSON = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
    b"Date: Mon, 23 Nov 2026 02:26:55 GMT\r\n"
)
END = b"0\r\n\r\n"


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def reply(body: bytes, status: bytes = b"200 OK") -> bytes:
    """A JSON reply: with its length where it is short, in one chunk above, as Go sends them."""
    head = JSON.replace(b"200 OK", status)
    if len(body) <= 2048:
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + http_chunk(body) + END


# -- streams -------------------------------------------------------------------------------------


@cache
def stream_chunks() -> list[bytes]:
    """Chat parts, each in an HTTP chunk of its own; no two of them alike."""
    picked = random.Random(1)
    chunks = []
    for number in range(512):
        stamp = STAMP % (number // 20 % 60, picked.randrange(10**9))
        part = (
            '{"model":"llama3.2","created_at":"%s","message":{"role":"assistant","content":" %s"},'
            '"done":false}\n' % (stamp, picked.choice(WORDS))
        )
        chunks.append(http_chunk(part.encode()))
    return chunks


@cache
def stream_end(tokens: int) -> bytes:
    """The last object of a stream, and the end of its body."""
    part = (
        '{"model":"llama3.2","created_at":"%s","message":{"role":"assistant","content":""},'
        '"done":true,"done_reason":"stop","total_duration":4782350112,"load_duration":153040221,'
        '"prompt_eval_count":15,"prompt_eval_duration":212345678,"eval_count":%d,'
        '"eval_duration":4400112233}\n' % (STAMP % (59, 999_999_999), tokens)
    )
    return http_chunk(part.encode()) + END


@cache
def whole_stream(tokens: int) -> bytes:
    chunks = stream_chunks()
    body = b"".join(chunks[number % len(chunks)] for number in range(tokens))
    return NDJSON + body + stream_end(tokens)


# -- vectors -------------------------------------------------------------------------------------


def go_float(value: float) -> str:
    """A float32 as Go's JSON encoder writes it: the shortest digits, no exponent down to 1e-6."""
    packed = struct.pack("f", value)
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if struct.pack("f", float(text)) == packed:
            break
    if 0 < abs(value) < 1e-6:
        mantissa, _, exponent = text.partition("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{Decimal(text):f}"


@cache
def vectors() -> list[list[float]]:
    """Vectors of unit length, as embedding models give them."""
    picked = random.Random(2)
    found = []
    for _ in range(VECTORS):
        values = [picked.gauss(0, 1) for _ in range(DIMENSIONS)]
        length = sum(value * value for value in values) ** 0.5
        found.append([value / length for value in values])
    return found


@cache
def _vectors_as_text() -> list[str]:
    return ["[" + ",".join(map(go_float, vector)) + "]" for vector in vectors()]


@cache
def _vectors_as_base64() -> list[str]:
    packed = (struct.pack(f"<{DIMENSIONS}f", *vector) for vector in vectors())
    return [base64.b64encode(data).decode() for data in packed]


@cache
def embed_reply(count: int) -> bytes:
    """The reply of /api/embed with so many vectors."""
    texts = _vectors_as_text()
    listed = ",".join(texts[number % VECTORS] for number in range(count))
    body = (
        f'{{"model":"nomic-embed-text","embeddings":[{listed}],"total_duration":14500000,'
        f'"load_duration":900000,"prompt_eval_count":{8 * count}}}'
    )
    return reply(body.encode())


@cache
def openai_reply(count: int, *, packed: bool) -> bytes:
    """The reply of /v1/embeddings with so many vectors, in base64 or as numbers."""
    texts = [f'"{text}"' for text in _vectors_as_base64()] if packed else _vectors_as_text()
    listed = ",".join(
        f'{{"object":"embedding","embedding":{texts[number % VECTORS]},"index":{number}}}'
        for number in range(count)
    )
    body = (
        f'{{"object":"list","data":[{listed}],"model":"nomic-embed-text",'
        f'"usage":{{"prompt_tokens":{8 * count},"total_tokens":{8 * count}}}}}\n'
    )
    return reply(body.encode())
