"""What costs nothing to take as programs for the official libraries write it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_sc import AsyncClient, Message, RequestError, Timeouts
from ollama_sc._api import arguments
from ollama_sc._api.fields import ChatFields, GenerateFields
from ollama_sc.testing import FakeOllama

USER = {"role": "user", "content": "Hi"}


def body_of(path: str, allowed: type, **fields: Any) -> Any:
    request = arguments.build_request(path, "m", allowed, fields)
    assert isinstance(request.body, bytes)
    return msgspec.json.decode(request.body)


def sent(client: AsyncClient) -> dict[str, str]:
    return dict(client._shared.sender._client.headers)


# -- what is read once -----------------------------------------------------------------------------


def test_messages_tools_and_images_may_come_from_a_generator() -> None:
    """Each is checked and sent as those of a list are; what has no order is refused."""
    tool = {"type": "function", "function": {"name": "f"}}
    messages = (each for each in [USER, Message("assistant", "Hello"), {**USER, "images": (b"a",)}])
    body = arguments.build_request(
        "/api/chat", "m", ChatFields, {"tools": iter([tool])}, messages=messages
    ).body
    assert isinstance(body, bytes)
    found = msgspec.json.decode(body)
    assert [each["role"] for each in found["messages"]] == ["user", "assistant", "user"]
    assert found["messages"][2]["images"] == ["YQ=="]
    assert found["tools"] == [tool]
    images = map(bytes, [b"a", b"b"])
    assert body_of("/p", GenerateFields, images=images)["images"] == ["YQ==", "Yg=="]
    for wrong in ({"a"}, {"role": "user"}, Message("user", "Hi"), "Hi", b"Hi", 5):
        with pytest.raises(RequestError, match="messages must be a list"):
            arguments.messages(wrong)


def test_what_a_generator_raises_leaves_as_it_is() -> None:
    """And what it makes is checked, with its place."""

    def breaks() -> Iterator[Any]:
        yield USER
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        arguments.messages(breaks())
    with pytest.raises(RequestError, match=r"messages\[1\] must be"):
        arguments.messages(iter([USER, 5]))


# -- base64 ----------------------------------------------------------------------------------------

PREFIXES = ["", "data:image/png;base64,", "data:;base64,", "DATA:image/jpeg;charset=x;BASE64,"]


@given(
    st.binary(min_size=1, max_size=200),
    st.integers(min_value=1, max_value=80),
    st.sampled_from(["\n", "\r\n", " ", "\n\t", ""]),
    st.sampled_from(PREFIXES),
    st.booleans(),
)
def test_base64_is_taken_as_people_have_it(
    data: bytes, width: int, between: str, prefix: str, ends: bool
) -> None:
    """With line breaks anywhere, and behind what makes a URL of it; the server gets it plain."""
    plain = base64.b64encode(data).decode()
    wrapped = between.join(plain[at : at + width] for at in range(0, len(plain), width))
    given = prefix + wrapped + between * ends
    assert body_of("/p", GenerateFields, images=[given])["images"] == [plain]


def test_base64_in_a_url_may_be_escaped() -> None:
    """As it must be in some places."""
    given = "data:image/png;base64,%2B%2F%2b%2F%3D".replace("%3D", "") + "AA%3D%3D"
    assert body_of("/p", GenerateFields, images=[given])["images"] == ["+/+/AA=="]


@pytest.mark.parametrize(
    "wrong",
    ["data:image/png,abcd", "data:image/png;base64", "data:image/png;base64,", "data:", " \n"]
    + ["data:image/png;base64,photo.jpg", "photo.jpg", "aGk", "a\nGk", "data:text/plain;base64,!"],
)
def test_what_is_no_base64_is_refused(wrong: str) -> None:
    """With a text that says what it is."""
    with pytest.raises(RequestError, match=r"images\[0\] is (no base64|empty|a data URL)"):
        body_of("/p", GenerateFields, images=[wrong])


def test_the_official_librarys_image_is_taken() -> None:
    """What its objects hold is what is sent."""
    ollama = pytest.importorskip("ollama")
    assert body_of("/p", GenerateFields, images=[ollama.Image(value=b"a")])["images"] == ["YQ=="]


# -- headers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "1", "X-B": "2"},
        [("X-A", "1"), ("X-B", "2")],
        (["x-a", "1"], ["X-B", "2"]),
        {"X-A": "1", "X-B": "2"}.items(),
        httpx.Headers({"X-A": "1", "X-B": "2"}),
    ],
)
def test_headers_are_a_mapping_or_pairs(headers: Any) -> None:
    """Both are sent, whatever their spelling."""
    found = sent(AsyncClient("h", headers=headers))
    assert (found["x-a"], found["x-b"]) == ("1", "2")


def test_a_name_that_comes_twice_has_both_values() -> None:
    """Separated by a comma, which means the same; one of our own is replaced."""
    found = sent(AsyncClient("h", headers=[("X", "1"), ("x", "2"), ("User-Agent", "mine")]))
    assert found["x"] == "1, 2"
    assert found["user-agent"] == "mine"


@pytest.mark.parametrize("none", [{"Authorization": None}, [("authorization", None)]])
def test_none_is_as_if_a_header_were_not_given(none: Any) -> None:
    """The key goes with the requests then, and what we send ourselves stays."""
    assert "authorization" not in sent(AsyncClient("h", headers=none))
    found = sent(AsyncClient("h", headers=none, api_key="k"))
    assert found["authorization"] == "Bearer k"
    assert "user-agent" in sent(AsyncClient("h", headers={"User-Agent": None}))


@pytest.mark.parametrize(
    "wrong",
    [[("a",)], ["ab"], [("a", "b", "c")], 5, "a: b", iter([("a", "b")]), [("a", 5)], [(None, "b")]]
    + [{"Content-Length": None}, [("", "b")]],
)
def test_other_headers_are_refused(wrong: Any) -> None:
    """Also what could be read only once: in a forked process a client may be made again."""
    with pytest.raises(RequestError, match="headers"):
        AsyncClient("h", headers=wrong)


# -- timeouts and limits ---------------------------------------------------------------------------


def test_httpx_timeouts_are_taken() -> None:
    """What they say of connecting and of silences; there is no pool to wait for."""
    whole = httpx.Timeout(7)
    assert Timeouts.of(whole) == Timeouts.of(7)
    some = httpx.Timeout(connect=1, read=2, write=3, pool=4)
    assert Timeouts.of(some) == Timeouts(connect=1, first_chunk=2, idle=2)
    assert Timeouts.of(httpx.Timeout(None)) == Timeouts(connect=None)
    assert AsyncClient("h", timeout=some)._shared.timeouts.idle == 2
    with pytest.raises(RequestError, match="above zero"):
        AsyncClient("h", timeout=httpx.Timeout(-1))


def test_httpx_limits_are_refused_with_what_to_write() -> None:
    """A limit of connections would make requests wait where nobody sees it."""
    for make in (AsyncClient,):
        with pytest.raises(TypeError, match="'limits'.*max_in_flight"):
            make("h", limits=httpx.Limits())  # type: ignore[call-arg]


# -- positions -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_create_takes_its_model_by_position(fake: FakeOllama) -> None:
    """`create(model, from_)`, streamed and not; and `create_blob` its path."""
    async with AsyncClient(fake.url) as client:
        await client.create("mine", "llama3.2")
        async with await client.create("mine", "llama3.2", stream=True) as stream:
            async for _ in stream:
                pass
        await client.create("mine", from_="llama3.2")
        await client.create_blob(__file__)
    bodies = [each.json for each in fake.requests if each.path == "/api/create"]
    assert [body["from"] for body in bodies] == ["llama3.2"] * 3
