"""No key and no password is in an error or in a log."""

from __future__ import annotations

import pytest

from ollama_sc import AsyncClient, ModelNotFoundError, RequestError, ResponseError
from ollama_sc import _client as client_module
from ollama_sc.testing import FakeOllama
from tests.support import MESSAGES

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "host",
    ["//u:s3cret@h:5", "http:/u:s3cret@h", "https//u:s3cret@h", "http://http://u:s3cret@h",
     "http://u:s3cret%40h", "http://u:s3cret/h"],
)  # fmt: skip
def test_no_host_shows_its_password(host: str) -> None:
    """A host whose user-info stands in the wrong place is refused without being shown."""
    with pytest.raises(RequestError) as caught:
        AsyncClient(host)
    assert "s3cret" not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("host", ["bob:1234:s3cret", "us:er:s3cret", "http://us:er:s3cret"])
def test_no_address_shows_a_password(host: str) -> None:
    """What is no attempt at an address is not shown."""
    with pytest.raises(RequestError) as caught:
        AsyncClient(host)
    assert "s3cret" not in str(caught.value)


def test_a_wrong_auth_is_not_shown() -> None:
    """A key given as auth is refused without being shown."""
    with pytest.raises(RequestError) as caught:
        AsyncClient(auth="s3cret")
    assert "s3cret" not in str(caught.value)


async def test_a_query_is_not_shown(fake: FakeOllama) -> None:
    """The label of a request ends before the query, which can hold a key."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ResponseError) as caught:
            await client.request("POST", "/api/nothing?key=s3cret")
    assert "s3cret" not in str(caught.value) + str(caught.value.request)


async def test_no_key_in_a_log(
    fake: FakeOllama, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever httpx and this library log, at every level, no secret is in it."""
    caplog.set_level(1)
    monkeypatch.setenv("OLLAMA_API_KEY", "s3cret-env")
    monkeypatch.setattr(client_module, "HOSTED", fake.url)
    host = fake.url.replace("//", "//ann:s3cret-pw@")
    async with AsyncClient(host, headers={"X-Key": "s3cret-header"}) as client:
        await client.version()
        with pytest.raises(ModelNotFoundError):
            await client.chat("no-such-model", MESSAGES)
        await client.web_search("x")
    async with AsyncClient(fake.url, api_key="s3cret-key") as client:
        await client.version()
    assert "HTTP Request" in caplog.text
    assert "s3cret" not in caplog.text
