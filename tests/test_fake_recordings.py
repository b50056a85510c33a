"""Every recording of a real server, replayed against the fake at its version."""

import hashlib
import json
import re
from typing import Any

import anyio
import pytest
from conftest import RECORDINGS, recorded_body, recording
from ollama_sc.testing import FakeModel, FakeOllama, Registry
from test_fake import read_all

pytestmark = pytest.mark.anyio

INDEX = json.loads((RECORDINGS / "index.json").read_text())["responses"]
# The bytes of the uploaded model were not kept: others of the same length stand for them, and
# their digest for the recorded one.
BLOB = b"GGUF".ljust(303392, b"\x01")
DIGEST = "sha256:3ab349bf9b025fed041a765f7a42bb2e25400449517943741edd6242f32c1fe0"
OUR_DIGEST = "sha256:" + hashlib.sha256(BLOB).hexdigest()
BODIES = {
    "blob-post-created": BLOB,
    "blob-post-wrong-digest": b"hello",
    "chat-bad-json": b"{nope",
}
# Fields whose values the fake must have, too; of others it has the type.
EXACT = frozenset(
    {"model", "name", "role", "done", "done_reason", "status", "error", "object", "index", "cloud"}
    | {"template", "parameters", "modelfile", "details", "tensors", "capabilities", "total"}
    | {"context_length", "size_vram", "disabled", "source"}
)
# Where the fake's answer is another, and why.
EXCEPTIONS: dict[str, str] = {}


def recorded_model() -> FakeModel:
    """gemma3:270m, as its own `show` tells of it."""
    show = json.loads(recorded_body("show"))
    details = show["details"]
    size = next(
        model["size"]
        for model in json.loads(recorded_body("tags"))["models"]
        if model["name"] == "gemma3:270m"
    )
    return FakeModel(
        "gemma3:270m",
        capabilities=tuple(show["capabilities"]),
        family=details["family"],
        parent_model=details["parent_model"],
        parameter_size=details["parameter_size"],
        quantization_level=details["quantization_level"],
        size=size,
        context_length=show["model_info"]["gemma3.context_length"],
        weights="sha256:" + re.search(r"FROM .*sha256-(\w+)", show["modelfile"])[1],
        template=show["template"],
        parameters={"num_ctx": 2048, "stop": ["<end_of_turn>"]},
        model_info=show["model_info"],
        tensors=tuple(show["tensors"]),
    )


def request_of(entry: dict[str, Any]) -> bytes:
    """The recorded request, with the digest of our blob."""
    body = BODIES.get(entry["name"], b"")
    if isinstance(entry["body"], dict):
        body = json.dumps(entry["body"]).encode()
    head = (
        f"{entry['method']} {entry['path']} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return (head.encode() + body).replace(DIGEST.encode(), OUR_DIGEST.encode())


def parse(raw: bytes) -> tuple[str, list[tuple[str, str]], bytes]:
    """Status line, headers in order, and body without chunk sizes."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    headers = [tuple(field.split(": ", 1)) for field in fields]
    if ("Transfer-Encoding", "chunked") in headers:
        whole = b""
        while body:
            size, _, rest = body.partition(b"\r\n")
            whole += rest[: int(size, 16)]
            body = rest[int(size, 16) + 2 :]
        body = whole
    return status, headers, body


def shape(value: object, field: str = "") -> object:
    """Names in order and types; values where they are exact; alike items of a list once."""
    if isinstance(value, dict):
        return [(key, shape(item, key)) for key, item in value.items()]
    if isinstance(value, list):
        items: list[object] = []
        for item in value:
            form = shape(item)
            if not items or items[-1] != form:
                items.append(form)
        return items
    if field in EXACT or isinstance(value, bool) or value is None:
        return value
    return "number" if isinstance(value, int | float) else "text"


def form_of(raw: bytes) -> dict[str, object]:
    """What must be the same of a recorded response and the fake's."""
    status, headers, body = parse(raw)
    varying = ("Date", "Content-Length")
    form: dict[str, object] = {
        "status": status,
        "headers": [(name, "" if name in varying else value) for name, value in headers],
        "newline": body.endswith(b"\n"),
    }
    if not body.startswith((b"{", b"[", b"null")):
        return form | {"text": body}
    lines = shape([json.loads(line) for line in body.splitlines()])
    # Deltas are shown once: a real model's text is another.
    return form | {"lines": lines}


async def replay() -> dict[str, bytes]:
    """What the fake answers to each recorded request, one after the other."""
    registry = Registry(
        (),
        error='Get "https://registry.ollama.ai/v2/library/nope/manifests/latest": dial tcp: '
        "lookup registry.ollama.ai on 192.0.2.153:5353: no such host",
    )
    answers: dict[str, bytes] = {}
    async with FakeOllama(
        models=[recorded_model()], registry=registry, version="0.24.0", dimensions=64
    ) as fake:
        for entry in INDEX:
            if entry["name"] == "embed-batch":
                # The recorded tiny model embeds and answers; 0.24.0 does not tell so in any reply.
                tiny = fake.models.get("tiny")
                assert tiny is not None
                tiny.capabilities = ("completion", "embedding")
            async with await anyio.connect_tcp(fake.host, fake.port) as stream:
                await stream.send(request_of(entry))
                answer, clean = await read_all(stream)
                assert clean
            answers[entry["name"]] = answer.replace(OUR_DIGEST.encode(), DIGEST.encode())
    return answers


async def test_the_fake_answers_as_the_recorded_server():
    """Status, headers in order, fields in order, types, and texts of errors are the server's."""
    answers = await replay()
    differences: dict[str, object] = {}
    for entry in INDEX:
        name = entry["name"]
        ours, theirs = form_of(answers[name]), form_of(recording(name))
        if ours != theirs:
            differences[name] = [
                (key, ours.get(key), theirs.get(key))
                for key in theirs
                if ours.get(key) != theirs.get(key)
            ]
    unexpected = {name: value for name, value in differences.items() if name not in EXCEPTIONS}
    assert not unexpected
    assert set(differences) == set(EXCEPTIONS)


def test_every_recording_is_in_the_index():
    """No recording is left out of the replay."""
    assert {entry["name"] for entry in INDEX} == {p.stem for p in RECORDINGS.glob("*.http")}
    assert re.search(r"0\.24\.0", (RECORDINGS / "index.json").read_text())
