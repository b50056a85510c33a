"""An argument that cannot be right is an error that says what to write."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from ollama_sc import AsyncClient, Options, RequestError
from ollama_sc._api.fields import ChatFields
from ollama_sc._http.options import HttpxOptions
from tests.api.support import CLIENT, USER, first_step


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


CALLS: dict[str, Any] = {
    "chat": lambda **fields: CLIENT.chat("m", [USER], **fields),
    "generate": lambda **fields: CLIENT.generate("m", "Hi", **fields),
    "embed": lambda **fields: CLIENT.embed("m", "Hi", **fields),
    "embeddings": lambda **fields: CLIENT.embeddings("m", "Hi", **fields),
    "show": lambda **fields: CLIENT.show("m", **fields),
    "pull": lambda **fields: CLIENT.pull("m", **fields),
    "push": lambda **fields: CLIENT.push("m", **fields),
    "create": lambda **fields: CLIENT.create("m", **fields),
    "load": lambda **fields: CLIENT.load("m", **fields),
    "delete": lambda **fields: CLIENT.delete("m", **fields),
    "copy": lambda **fields: CLIENT.copy("m", "n", **fields),
    "list": lambda **fields: CLIENT.list(**fields),
    "ps": lambda **fields: CLIENT.ps(**fields),
    "version": lambda **fields: CLIENT.version(**fields),
    "has_model": lambda **fields: CLIENT.has_model("m", **fields),
    "web_search": lambda **fields: CLIENT.web_search("q", **fields),
    "create_blob": lambda **fields: CLIENT.create_blob(b"x", **fields),
    "embed_array": lambda **fields: CLIENT.embed_array("m", ["Hi"], **fields),
}


def wrong(call: Any, **fields: Any) -> str:
    try:
        error = first_step(call(**fields))
    except TypeError as raised:  # before there is a coroutine
        error = raised
    assert type(error) is TypeError
    return str(error)


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_keyword_names_the_call(name: str) -> None:
    """Every call says its own name, as Python does."""
    text = wrong(CALLS[name], no_such_keyword=1)
    assert re.search(rf"\b{name}\(\) got an unexpected keyword argument 'no_such_keyword'", text)


@pytest.mark.parametrize("parameter", Options.__struct_fields__)
@pytest.mark.parametrize(
    "name", ["chat", "generate", "embed", "embeddings", "load", "show", "embed_array"]
)
def test_a_parameter_of_the_model_goes_into_options(name: str, parameter: str) -> None:
    """`temperature=0` and all the others."""
    text = wrong(CALLS[name], **{parameter: 0})
    assert f"options={{{parameter!r}: ...}}" in text


def slips(name: str) -> list[str]:
    """What fingers make of a name."""
    swapped = [name[:n] + name[n + 1] + name[n] + name[n + 2 :] for n in range(len(name) - 1)]
    left_out = [name[:n] + name[n + 1 :] for n in range(len(name))]
    return [*swapped, *left_out, name.replace("_", ""), f"{name}s"]


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.sampled_from(["keep_alive", "timeout", "logprobs", "top_logprobs", "truncate", "format",
                        "options", "tools"]).flatmap(lambda name: st.tuples(st.just(name), st.sampled_from(slips(name)))))  # fmt: skip
def test_a_slip_of_the_finger_is_told(pair: tuple[str, str]) -> None:
    """A name that is nearly one of the call's: did you mean that?"""
    meant, written = pair
    if written in ChatFields.__annotations__:
        return
    assert f"did you mean {meant!r}" in wrong(CALLS["chat"], **{written: 1})


@pytest.mark.parametrize(
    ("call", "written", "meant"),
    [
        ("chat", "mesages", "messages"),
        ("chat", "steam", "stream"),
        ("chat", "modl", "model"),
        ("generate", "promt", "prompt"),
        ("generate", "steam", "stream"),
        ("embed", "inptu", "input"),
        ("pull", "strem", "stream"),
        ("copy", "destinaton", "destination"),
        ("embed_array", "textz", "texts"),
    ],
)
def test_a_slip_in_what_a_call_has_by_itself(call: str, written: str, meant: str) -> None:
    """Its own parameters are as near as its fields, and `extra` is not the place for them."""
    assert wrong(CALLS[call], **{written: 1}).endswith(f"did you mean {meant!r}?")


def test_a_slip_in_a_parameter_of_the_model() -> None:
    """It leads to options, too."""
    assert "did you mean options={'temperature': ...}" in wrong(CALLS["chat"], temprature=1)


@pytest.mark.parametrize(
    ("call", "keyword", "advice"),
    [
        ("chat", "max_tokens", "options={'num_predict': ...}"),
        ("generate", "max_new_tokens", "options={'num_predict': ...}"),
        ("chat", "response_format", "'format'"),
        ("chat", "functions", "'tools'"),
        ("chat", "reasoning_effort", "'think'"),
        ("chat", "prompt", "'messages'"),
        ("chat", "message", "'messages'"),
        ("chat", "Stream", "'stream'"),
        ("pull", "streaming", "'stream'"),
        ("chat", "system", "a message with the role 'system'"),
        ("chat", "images", "into a message"),
        ("generate", "messages", "'prompt'"),
        ("embed", "texts", "'input'"),
        ("embed", "prompt", "'input'"),
        ("embed_array", "input", "'texts'"),
        ("create", "modelfile", "from_="),
        ("chat", "headers", "AsyncClient()"),
        ("embed", "host", "AsyncClient()"),
    ],
)
def test_the_words_of_other_clients(call: str, keyword: str, advice: str) -> None:
    """What others call it leads to what it is called here, and never to something else."""
    assert advice in wrong(CALLS[call], **{keyword: 1})


@pytest.mark.parametrize(
    ("call", "keyword"),
    [("show", "stream"), ("embed", "batch_size"), ("chat", "n"), ("delete", "force")],
)
def test_what_is_like_nothing_is_not_guessed(call: str, keyword: str) -> None:
    """No "did you mean" where there is nothing alike."""
    assert "did you mean" not in wrong(CALLS[call], **{keyword: 1})


@pytest.mark.parametrize(
    "host", ["http:/box", "https:/box:11434", "http//box", "HTTPS//box/x", "http://https://box"]
)
def test_a_slip_in_the_scheme(host: str) -> None:
    """It is no user before the host."""
    with pytest.raises(RequestError, match="a scheme ends in ://"):
        AsyncClient(host)


def test_a_host_without_the_scheme_before_its_slashes() -> None:
    """It is no prefix on this machine."""
    with pytest.raises(RequestError, match="write http://host|as in http://host"):
        AsyncClient("//box")


@pytest.mark.parametrize("timeout", [(5, 5), timedelta(seconds=5), "5", {}])
def test_a_timeout_of_others(timeout: Any) -> None:
    """What is no number leads to Timeouts."""
    with pytest.raises(RequestError, match=r"Timeouts\(connect="):
        AsyncClient(timeout=timeout)


@pytest.mark.parametrize(
    ("name", "advice"),
    [("max_connections", "max_in_flight="), ("max_retries", "jobs"), ("token", "api_key="),
     ("ssl", "verify="), ("model", "each call"), ("limits", "max_in_flight="), ("base_url", "host="), ("timeouts", "timeout="),
     ("verfiy", "'verify'"), ("proxies", "'proxy'"), ("header", "'headers'"), ("apikey", "'api_key'"),
     ("max_inflight", "'max_in_flight'"), ("max_body_byte", "'max_body_bytes'")],
)  # fmt: skip
def test_a_wrong_setting_of_a_client(name: str, advice: str) -> None:
    """The same for what a client is made with."""
    with pytest.raises(TypeError, match=f"'{name}'") as caught:
        AsyncClient(**{name: None})  # type: ignore[misc]
    assert advice in str(caught.value)
    assert name not in HttpxOptions.__annotations__


class Pydantic(BaseModel):
    x: int


class Struct(msgspec.Struct):
    x: int


@dataclass
class Data:
    x: int


@pytest.mark.parametrize(
    ("given_format", "advice"),
    [
        (Pydantic, "Pydantic.model_json_schema()"),
        (Struct, "msgspec.json.schema(Struct)"),
        (Data, "msgspec.json.schema(Data)"),
        (dict, "the class dict"),
        (list[int], "msgspec.json.schema(list[int])"),
        (Pydantic | None, "the type"),
        (Pydantic(x=1), "Pydantic.model_json_schema()"),
        (Pydantic.model_json_schema, "call it"),
        (json.dumps(Pydantic.model_json_schema()), "json.loads(...)"),
        ("JSON", "write 'json'"),
    ],
)
def test_a_class_as_format(given_format: Any, advice: str) -> None:
    """Among the fields of the body a type is no schema, and the error says how it becomes one."""
    error = first_step(CLIENT.chat("m", [USER], extra={"format": given_format}))
    assert isinstance(error, RequestError)
    assert advice in str(error)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.one_of(st.integers(-100, 10**6).map(str), st.floats(-1e3, 1e6).map(str),
                 st.sampled_from(["-1", "5", "1.5", "", " ", "nan", "inf", "forever", "5 m", "1h 30m",
                                  "5min", "1d", "m", "h1", "1hm", "--1m", "1e3s"])))  # fmt: skip
def test_a_text_that_is_no_duration(given_text: str) -> None:
    """The server would refuse it; a number in quotes is told to lose them, or to get a unit."""
    if given_text in ("0", "-0"):
        return
    error = first_step(CLIENT.chat("m", [USER], keep_alive=given_text))
    assert isinstance(error, RequestError)
    assert "keep_alive" in str(error)
    assert re.search(r"number|unit", str(error))


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["1", "05", "1.5", ".5", "2."]),
                          st.sampled_from(["ns", "us", "\u00b5s", "\u03bcs", "ms", "s", "m", "h"])), min_size=1),
       st.sampled_from(["", "-", "+"]))  # fmt: skip
def test_what_go_reads_as_a_duration_is_one(parts: list[tuple[str, str]], sign: str) -> None:
    """All that the server can read goes out."""
    text = sign + "".join(number + unit for number, unit in parts)
    assert not isinstance(first_step(CLIENT.chat("m", [USER], keep_alive=text)), RequestError)


def test_minus_one_says_so() -> None:
    error = first_step(CLIENT.chat("m", [USER], keep_alive="-1"))
    assert "write -1 as a number" in str(error)


ENDPOINTS = [
    "/api",
    "/v1",
    "/api/",
    "/api/chat",
    "/v1/chat/completions",
    "/api/tags",
    "/v1/embeddings",
]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "host", ["http://box:11434", "box", "https://user:s3cret@h/prefix", "ollama.com"]
)
def test_a_host_with_an_endpoint_behind_it(
    monkeypatch: pytest.MonkeyPatch, host: str, endpoint: str
) -> None:
    """It ends before that, and the error says so, without a password."""
    with pytest.raises(
        RequestError, match=r"the host ends before /(api|v1)\S*: write http"
    ) as caught:
        AsyncClient(host + endpoint)
    assert "s3cret" not in str(caught.value)
    monkeypatch.setenv("OLLAMA_HOST", host + endpoint)
    with pytest.raises(RequestError, match="OLLAMA_HOST"):
        AsyncClient()


@pytest.mark.parametrize(
    "host", ["box/ollama", "box/api/ollama", "box/v1x", "box/myapi", "api", "v1:80", "api.box"]
)
def test_other_prefixes_may_be(host: str) -> None:
    AsyncClient(host)
