"""Whatever is shown, the credentials in it are not: one function masks them."""

from __future__ import annotations

import pickle
import time
import traceback
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc import AsyncClient, RequestError
from ollama_sc._http.credentials import masked


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ann:s3cret@h:1/x", "http://...@h:1/x"),
        ("no http://ann:s3cret@h, nor https://s3cret@i", "no http://...@h, nor https://...@i"),
        ("URL('http://ann:s3 cret@h')", "URL('http://...@h')"),
        ("//ann:s3cret@b@h", "//...@h"),
        ("http://ann:s3/cret@h", "http://...@h"),
        ("mail bob@example.com, see http://h/", "mail bob@example.com, see http://h/"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_urls_in_a_text_lose_their_credentials(text: str, shown: str) -> None:
    """What stands before the @ of a URL becomes three dots, and nothing else changes."""
    assert masked(text) == shown


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("ann:s3cret@h:1", "...@h:1"),
        ("s3cret@h", "...@h"),
        ("http://ann:s3 c/ret@h", "http://...@h"),
        ("HTTP://ann:s3://cret@h", "HTTP://...@h"),
        ("//ann:s3cret@h", "//...@h"),
        ("h:1", "h:1"),
    ],
)
def test_a_known_address_is_masked_without_slashes_too(address: str, shown: str) -> None:
    """What is known to be an address is masked wherever the text repeats it."""
    assert masked(address, address) == shown
    assert masked(f"--host={address} x", address) == f"--host={shown} x"


SECRET = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).map(
    lambda text: f"s3cret{text}"
)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(SECRET, st.sampled_from(["", "http://", "https://", "//", "socks5://"]), st.booleans())
def test_no_known_address_shows_its_password(secret: str, scheme: str, named: bool) -> None:
    """Whatever a password is made of, the address that has it is shown without."""
    address = f"{scheme}{'ann:' if named else ''}{secret}@box:1"
    shown = masked(f"before {address} behind", address)
    assert "s3cret" not in shown
    assert shown.startswith("before ")
    assert shown.endswith("@box:1 behind")


@settings(max_examples=300, derandomize=True, deadline=None)
@given(SECRET, st.sampled_from(["{}@h:1", "u:{}@h", "http://u:{}@h", "socks://{}@h:1", "//{}@h",
                                "http://u:{}@h:x", "http://{}@", "u:{}", "http:/u:{}@h"]))  # fmt: skip
def test_no_error_of_a_proxy_shows_its_password(secret: str, shape: str) -> None:
    """Not in its text, its pickle, its causes or its context."""
    given_proxy = shape.format(secret)
    try:
        AsyncClient("example.com", proxy=given_proxy)
    except RequestError as error:
        assert_hidden(error)


def assert_hidden(error: BaseException) -> None:
    shown = [str(error), repr(error), *traceback.format_exception(error)[-1:]]
    seen: BaseException | None = error
    while seen is not None:
        shown += [str(seen), repr(seen), repr(seen.args)]
        seen = seen.__cause__ or seen.__context__
    assert "s3cret" not in "".join(shown)
    assert b"s3cret" not in pickle.dumps(error)


@pytest.mark.parametrize(
    "options",
    [
        {"proxy": "user:s3cret@host:3128"},
        {"proxy": b"http://user:s3cret@host"},
        {"proxy": httpx.URL("ftp://user:s3cret@host")},
        {"proxy": "http://user:s3cret@host:port"},
        {"proxy": "user:s3cret"},
        {"auth": "s3cret"},
        {"mounts": {"http://u:s3cret@h:port": None}},
        {"mounts": {"s3cret@x": None}},
        {"headers": {"X-Key": "s3cr\u00e9t s3cret"}},
        {"api_key": "s3cret\n"},
    ],
)
def test_no_refused_setting_shows_a_secret(options: dict[str, Any]) -> None:
    """A setting that cannot be is refused without its secret, the error's causes included."""
    with pytest.raises(RequestError) as caught:
        AsyncClient("example.com", **options)
    assert_hidden(caught.value)


def test_a_proxy_without_a_scheme_is_told_what_to_write() -> None:
    """`host:3128` is shown, and so is what is right."""
    with pytest.raises(RequestError, match=r"such as http://host:3128.*'box:3128'"):
        AsyncClient("example.com", proxy="box:3128")


@pytest.mark.parametrize(
    "text", ["//" * 50_000, "//@" * 30_000, "/" * 100_000, "//a" * 30_000 + "@"]
)
def test_a_long_text_takes_no_longer_than_it_is(text: str) -> None:
    """A server can have sent it: time is linear."""
    before = time.perf_counter()
    masked(text)
    assert time.perf_counter() - before < 0.5
