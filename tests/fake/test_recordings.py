"""Every recording of a real server, replayed against the fake at its version."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest

from ollama_sc.testing import FakeModel, FakeOllama, Registry, Reply
from tests.fake.support import connect, read_all
from tests.support import RECORDINGS, recorded_body, recording

pytestmark = pytest.mark.anyio

VERSIONS = {"0.24.0": "", "0.33.0-rc2": "0.33/"}
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
# What is the recorded server's own, and another one's is as good; and what stands in its place.
OWN = [
    (rb"/var/lib/models1(-head)?/", b"/opt/llm/models/"),  # its folder
    (rb"3010", b"3000"),  # its tokens of three thousand words
    # This bert model was built in a way that left its list without its lengths.
    (rb',"context_length":512,"embedding_length":384(?=},"capabilities")', b""),
]
EMBEDS = {"embed-batch": "tiny", "0.33/embed-single": "all-minilm"}
# What the recorded models said, of which the framing is the subject; the fake's own has another.
CALL = {"name": "get_weather", "arguments": {"city": "Oslo"}}
REPEATING = ["Model", " with", " ", "1", *["0"] * 300]
SCRIPTS = {
    "0.33/generate-repeat-guard": Reply.chat_text(REPEATING),
    "0.33/generate-repeat-guard-stream": Reply.chat_text(REPEATING),
    "0.33/tools-stream": Reply.chat_text(tool_calls=[CALL] * 3, done_reason="length"),
    "0.33/tools-single": Reply.chat_text(tool_calls=[CALL] * 3, done_reason="length"),
    "0.33/tools-result": Reply.chat_text(["5", " C, rain"], done_reason="length"),
}


def index_of(folder: str) -> list[dict[str, Any]]:
    return json.loads((RECORDINGS / folder / "index.json").read_text())["responses"]


def recorded_model(folder: str, name: str, show: str, parameters: dict[str, Any]) -> FakeModel:
    """A model, as its own `show` tells of it, and the list."""
    shown = json.loads(recorded_body(folder + show))
    listed = json.loads(recorded_body(f"{folder}tags"))["models"]
    entry = next(model for model in listed if model["name"].split(":latest")[0] == name)
    info, details = shown["model_info"], entry["details"]
    return FakeModel(
        name,
        capabilities=tuple(entry.get("capabilities", shown["capabilities"])),
        family=details["family"],
        parent_model=details["parent_model"],
        parameter_size=details["parameter_size"],
        quantization_level=details["quantization_level"],
        size=entry["size"],
        context_length=info[f"{info['general.architecture']}.context_length"],
        weights="sha256:" + re.search(r"FROM .*sha256-(\w+)", shown["modelfile"])[1],
        template=shown["template"],
        parameters=parameters,
        model_info=info,
        tensors=tuple(shown["tensors"]),
    )


def models_of(folder: str) -> list[FakeModel]:
    """The models that the recorded server had."""
    if not folder:
        parameters = {"num_ctx": 2048, "stop": ["<end_of_turn>"]}
        return [recorded_model(folder, "gemma3:270m", "show", parameters)]
    parameters = {"num_predict": 80, "num_thread": 1, "stop": ["<end_of_turn>"]}
    parameters |= {"top_k": 64, "top_p": 0.95}
    embedding = {"num_thread": 1}
    return [  # as they were listed
        recorded_model(folder, "tooly", "show", parameters),
        recorded_model(folder, "all-minilm", "show-embedding", embedding),
        recorded_model(folder, "llama3.2", "show", parameters),
        recorded_model(folder, "gemma3", "show", parameters),
        recorded_model(folder, "nomic-embed-text", "show-embedding", embedding),
        recorded_model(folder, "gemma3:270m", "show", parameters),
    ]


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
    if field == "parameters" and isinstance(value, str):
        return sorted(value.splitlines())  # Go's maps have no order
    if field in EXACT or isinstance(value, bool) or value is None:
        return value
    return "number" if isinstance(value, int | float) else "text"


def form_of(raw: bytes) -> dict[str, object]:
    """What must be the same of a recorded response and the fake's."""
    status, headers, body = parse(raw)
    for own, other in OWN:
        body = re.sub(own, other, body)
    varying = ("Date", "Content-Length")
    form: dict[str, object] = {
        "status": status,
        "headers": [(name, "" if name in varying else value) for name, value in headers],
        "newline": body.endswith(b"\n"),
    }
    if not body.startswith((b"{", b"[", b"null")):
        return form | {"text": body}
    found = [json.loads(line) for line in body.splitlines()]
    if b'"expires_at"' in body:  # the recorded models had been loaded before, for other times
        found[0]["models"].sort(key=lambda model: model["name"])
    lines = shape(found)
    # Deltas are shown once: a real model's text is another.
    return form | {"lines": lines}


async def replay(version: str, folder: str) -> dict[str, bytes]:
    """What the fake answers to each recorded request, one after the other."""
    said = recorded_body(f"{folder}pull-unreachable").splitlines()[-1]
    registry = Registry((), error=json.loads(said)["error"].removeprefix("pull model manifest: "))
    answers: dict[str, bytes] = {}
    async with FakeOllama(
        models=models_of(folder),
        registry=registry,
        version=version,
        dimensions=384 if folder else 64,
    ) as fake:
        for entry in index_of(folder):
            name = folder + entry["name"]
            if name in EMBEDS:
                # A recorded model embeds and answers, and does not tell so in any reply.
                model = fake.models.get(EMBEDS[name])
                assert model is not None
                model.capabilities = ("completion", "embedding")
            if name in SCRIPTS:
                fake.script(entry["path"], SCRIPTS[name])
            fake.cloud.reachable = "offline" not in name
            async with await connect(fake, request_of(entry)) as stream:
                answer, clean = await read_all(stream)
                assert clean
            answers[name] = answer.replace(OUR_DIGEST.encode(), DIGEST.encode())
    return answers


@pytest.mark.parametrize(("version", "folder"), VERSIONS.items())
async def test_the_fake_answers_as_the_recorded_server(version: str, folder: str):
    """Status, headers in order, fields in order, types, and texts of errors are the server's."""
    answers = await replay(version, folder)
    differences: dict[str, object] = {}
    for name in answers:
        ours, theirs = form_of(answers[name]), form_of(recording(name))
        if ours != theirs:
            differences[name] = [
                (key, ours.get(key), theirs.get(key))
                for key in theirs
                if ours.get(key) != theirs.get(key)
            ]
    assert not differences


@pytest.mark.parametrize("name", ["generate-repeat-guard", "generate-repeat-guard-stream"])
async def test_the_guard_against_repetition_ends_where_the_recorded_one_did(name: str):
    """The text up to there is the recorded one, token by token."""
    answers = await replay("0.33.0-rc2", "0.33/")
    found, recorded = (
        [json.loads(line)["response"] for line in parse(raw)[2].splitlines()]
        for raw in (answers[f"0.33/{name}"], recording(f"0.33/{name}"))
    )
    assert found == recorded


@pytest.mark.parametrize(("version", "folder"), VERSIONS.items())
def test_every_recording_is_in_the_index(version: str, folder: str):
    """No recording is left out of the replay."""
    there = {p.stem for p in (RECORDINGS / folder).glob("*.http")}
    assert {entry["name"] for entry in index_of(folder)} == there
    assert version in json.loads((RECORDINGS / folder / "index.json").read_text())["server"]
