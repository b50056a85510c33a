"""`to_dict()`, and JSON made from replies, say what the server said: also what is empty or false."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc import (
    ChatResponse,
    EmbeddingsResponse,
    EmbedResponse,
    GenerateResponse,
    ListResponse,
    Message,
    ProcessResponse,
    ProgressResponse,
    RecommendationsResponse,
    ServerStatus,
    ShowResponse,
    UserResponse,
    VersionResponse,
    WebFetchResponse,
    WebSearchResponse,
)
from ollama_sc.types import WireObject
from tests.replies.support import decode, reply
from tests.support import RECORDINGS, recorded_body, recording


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


# -- what the API always sends, by hand from its document, as blank as it can be ---------------------

DETAILS = dict.fromkeys(("parent_model", "format", "family", "parameter_size"), "")
DETAILS |= {"families": None, "quantization_level": ""}
TIME = "0001-01-01T00:00:00Z"
MODEL = {"name": "", "model": "", "size": 0, "digest": "", "details": DETAILS}
CALL = {"function": {"index": 0, "name": "", "arguments": {}}}
TOKEN = {"token": "", "logprob": 0.0}
ALWAYS: list[tuple[type[WireObject], dict[str, Any]]] = [
    (
        ChatResponse,
        {"model": "", "created_at": "", "message": {"role": "", "content": ""}, "done": False},
    ),
    (GenerateResponse, {"model": "", "created_at": "", "response": "", "done": False}),
    (EmbedResponse, {"model": "", "embeddings": []}),
    (EmbeddingsResponse, {"embedding": []}),
    (ListResponse, {"models": []}),
    (ListResponse, {"models": [MODEL | {"modified_at": TIME}]}),
    (ProcessResponse, {"models": []}),
    (
        ProcessResponse,
        {"models": [MODEL | {"expires_at": TIME, "size_vram": 0, "context_length": 0}]},
    ),
    (ShowResponse, {"details": DETAILS, "model_info": {}, "modified_at": TIME}),
    (ProgressResponse, {"status": ""}),
    (ServerStatus, {"cloud": {"disabled": False, "source": ""}}),
    (UserResponse, {"id": "", "email": "", "name": ""}),
    (RecommendationsResponse, {"recommendations": []}),
    (RecommendationsResponse, {"recommendations": [{"model": "", "description": ""}]}),
    (WebSearchResponse, {"results": []}),
    (WebSearchResponse, {"results": [{"title": "", "url": "", "content": ""}]}),
    (WebFetchResponse, {"title": "", "content": ""}),
    (VersionResponse, {"version": ""}),
]
IDS = [f"{cls.__name__} {len(json.dumps(wire))}" for cls, wire in ALWAYS]


def forms(whole: WireObject) -> list[WireObject]:
    """The same reply, come by in other ways."""
    again = msgspec.json.decode(msgspec.json.encode(whole), type=type(whole))
    return [
        whole,
        again,
        copy.copy(whole),
        copy.deepcopy(whole),
        pickle.loads(pickle.dumps(whole)),
        msgspec.structs.replace(whole),
    ]


@pytest.mark.parametrize(("cls", "wire"), ALWAYS, ids=IDS)
def test_what_is_always_sent_is_always_there(cls: type[WireObject], wire: dict[str, Any]) -> None:
    """A field that a server always sends is in the dictionary, and in JSON, as blank as it is."""
    for form in forms(reply(cls, json.dumps(wire).encode())):
        assert form.to_dict() == wire
        assert json.loads(msgspec.json.encode(form)) == wire


@pytest.mark.parametrize(("cls", "wire"), ALWAYS, ids=IDS)
def test_the_same_where_a_leaf_is_odd(cls: type[WireObject], wire: dict[str, Any]) -> None:
    """It is there, too, where a reply had to be read field by field."""
    optional = [field for field in msgspec.structs.fields(cls) if field.encode_name not in wire]
    for field in optional:
        odd = wire | {field.encode_name: [[[{"of": "nothing known"}]]]}
        found = reply(cls, json.dumps(odd).encode()).to_dict()
        found.pop(field.encode_name, None)  # a list's own items are left out, and it stays
        assert found == wire, field.name


TYPES: dict[str, type[WireObject]] = {
    "/api/chat": ChatResponse,
    "/api/generate": GenerateResponse,
    "/api/embed": EmbedResponse,
    "/api/embeddings": EmbeddingsResponse,
    "/api/tags": ListResponse,
    "/api/ps": ProcessResponse,
    "/api/show": ShowResponse,
    "/api/version": VersionResponse,
    "/api/status": ServerStatus,
    "/api/create": ProgressResponse,
    "/api/pull": ProgressResponse,
}


def recorded() -> list[Any]:
    """What real servers answered with success, by name."""
    found: list[Any] = []
    for folder in ("", "0.33/"):
        for entry in json.loads((RECORDINGS / folder / "index.json").read_text())["responses"]:
            name = folder + entry["name"]
            if entry["path"] in TYPES and b" 200 OK" in recording(name)[:20]:
                found.append(pytest.param(TYPES[entry["path"]], recorded_body(name), id=name))
    return found


def cut(value: Any, key: str = "") -> Any:
    """The same JSON with times to the second: those of Python have no nanoseconds."""
    if isinstance(value, dict):
        return {key: cut(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [cut(item) for item in value]
    if key in ("modified_at", "expires_at"):
        return datetime.fromisoformat(value).replace(microsecond=0)
    return value


@pytest.mark.parametrize(("cls", "body"), recorded())
def test_recorded_replies(cls: type[WireObject], body: bytes) -> None:
    """What real servers sent is in the dictionary whole, and nothing besides."""
    for line in filter(None, body.split(b"\n")):
        if not line.startswith(b'{"error"'):
            assert cut(reply(cls, line).to_dict()) == cut(json.loads(line))


TEXT = st.sampled_from(["", "a"])
PART = st.fixed_dictionaries(
    {
        "model": TEXT,
        "created_at": TEXT,
        "message": st.fixed_dictionaries(
            {"role": TEXT, "content": TEXT},
            optional={
                "thinking": TEXT,
                "images": st.just([]),
                "tool_calls": st.sampled_from([[], [CALL], [CALL | {"id": ""}]]),
                "tool_name": TEXT,
                "signature": TEXT,
            },
        ),
        "done": st.just(False),
    },
    optional={
        "done_reason": TEXT,
        "logprobs": st.sampled_from(
            [[], [TOKEN], [TOKEN | {"bytes": [], "top_logprobs": [TOKEN]}]]
        ),
        "total_duration": st.just(0),
        "remote_model": TEXT,
        "_debug_info": st.just({}),
    },
)


@given(parts=st.lists(PART, min_size=1, max_size=6), apart=st.booleans())
@settings(max_examples=100, deadline=None)
def test_parts_of_any_kind_say_what_was_sent(parts: list[dict[str, Any]], apart: bool) -> None:
    """Each part of a stream is what its line said, whichever decoder has read it."""
    lines = [json.dumps(part).encode() + b"\n" for part in parts]
    found = decode(lines if apart else [b"".join(lines)]).parts
    assert [part.to_dict() for part in found] == parts
    assert [json.loads(msgspec.json.encode(part)) for part in found] == parts


def test_what_can_be_left_out_is_not_made_up() -> None:
    """A field that the API leaves out where it is empty is in neither, unless it was sent."""
    wire = {"model": "m", "created_at": "", "message": {"role": "a", "content": ""}, "done": False}
    for key in ("done_reason", "logprobs", "total_duration", "remote_model", "_debug_info"):
        found = reply(ChatResponse, json.dumps(wire | {key: None}).encode())
        assert found.to_dict() == wire
    assert Message("user").to_dict() == {"role": "user", "content": ""}
