"""Proxies, and what else the environment says of connections: it breaks nothing that it is not for."""

from __future__ import annotations

import os
import socket
import ssl
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollama_sc import AsyncClient, ConnectError, OllamaError, RequestError, RequestTimeout, Timeouts
from ollama_sc._http.host import parse_host
from ollama_sc._http.proxies import LazyTransport, ProxyTransport
from ollama_sc._http.transport import Transport
from ollama_sc.testing import FakeOllama, Reply

HERE = ["127.0.0.1", "127.1", "127.0.1", "0", "0x7f.1", "2130706433", "127.8.9.10", "localhost",
        "localhost.", "LOCALHOST.", "a.localhost", "a.localhost.", "[::1]", "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]", "0.0.0.0", "[::]", "[::ffff:0:0]", "127.0.0.1.", "127\u30020\uff0e0.1", ""]  # fmt: skip
BROKEN: dict[str, str] = {
    "ALL_PROXY": "socks://127.0.0.1:1080",
    "all_proxy": "nonsense",
    "HTTP_PROXY": "http://u:s3cret@h:port",
    "http_proxy": "user:s3cret://x",
    "HTTPS_PROXY": "ftp://127.0.0.1",
    "NO_PROXY": "[::1,a b,[x]:y",
    "no_proxy": "::1/x,http://[",
    "SSL_CERT_FILE": "/does/not/exist.pem",
    "SSLKEYLOGFILE": "/does/not/exist/keys",
}


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # a log of TLS keys is a file, whatever its name
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("SSL"):
            monkeypatch.delenv(name)


def transport_of(client: AsyncClient) -> object:
    sender = client._shared.sender
    return sender._client._transport_for_url(httpx.URL(sender.base))


@pytest.mark.parametrize("host", HERE)
def test_this_machine_in_every_spelling(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Whatever names this machine is asked directly, whatever the environment says."""
    for name, value in BROKEN.items():
        monkeypatch.setenv(name, value)
    assert parse_host(host).is_loopback
    assert isinstance(transport_of(AsyncClient(host)), Transport)


NUMBERS = st.integers(0, 2**24 - 1)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.sampled_from(["{}", "0x{:x}", "0{:o}"]), NUMBERS, st.integers(1, 3))
def test_any_spelling_of_a_loopback_address(form: str, rest: int, parts: int) -> None:
    """Decimal, hexadecimal or octal, in one, two or three parts."""
    numbers = {
        1: [127 << 24 | rest],
        2: [127, rest],
        3: [127, rest >> 16, rest & 0xFFFF],
    }[parts]
    host = parse_host(".".join(form.format(number) for number in numbers))
    assert host.is_loopback
    assert host.name == f"127.{rest >> 16}.{rest >> 8 & 255}.{rest & 255}"
    assert httpx.URL(host.url).host == host.name


@pytest.mark.parametrize("host", ["00.0.0.0", "0.0.0.0000", "0177.0.0.1", "127.0.0.256", "0.0.0.0000:1",
                                  "127.0.0.01.", "4294967296", "0x", "127.999999999"])  # fmt: skip
def test_an_address_that_can_be_read_in_two_ways_is_refused(host: str) -> None:
    """httpx can make no URL of it: it is an error that says what to write."""
    with pytest.raises(RequestError, match=r"127\.0\.0\.1:11434"):
        parse_host(host)


@pytest.mark.parametrize("host", ["128.1", "126.255.255.255", "localhost.example.com", "xlocalhost",
                                  "127.1.example", "[::2]", "[::ffff:128.0.0.1]"])  # fmt: skip
def test_other_hosts_are_not_this_machine(host: str) -> None:
    assert not parse_host(host).is_loopback


VALUES = st.one_of(st.sampled_from([*BROKEN.values(), "*", "http://h:1", "socks5://h", "h:1"]),
                   st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12))  # fmt: skip
ENVIRONMENTS = st.dictionaries(st.sampled_from([*BROKEN]), VALUES, max_size=4)


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(ENVIRONMENTS, st.sampled_from(HERE))
def test_no_environment_breaks_a_client_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], host: str
) -> None:
    """Whatever is in these variables, the client is made and goes directly."""
    with monkeypatch.context() as patched:
        for name, value in environment.items():
            patched.setenv(name, value)
        assert isinstance(transport_of(AsyncClient(host)), Transport)


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(ENVIRONMENTS, st.sampled_from(["http://box", "https://box", "http://[2001:db8::1]"]))
def test_what_breaks_another_host_is_named(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], host: str
) -> None:
    """Other hosts get a client, or an error that names a variable and shows no password."""
    with monkeypatch.context() as patched:
        for name, value in environment.items():
            patched.setenv(name, value)
        try:
            AsyncClient(host)
        except RequestError as error:
            assert any(name in str(error) for name in environment)
            assert "s3cret" not in str(error)


@pytest.mark.parametrize(
    ("environment", "host", "named"),
    [
        ({"ALL_PROXY": "socks://h:1"}, "box", "ALL_PROXY"),
        ({"all_proxy": "socks://h:1"}, "box", "all_proxy"),
        ({"HTTP_PROXY": "http://h:port"}, "box", "HTTP_PROXY"),
        ({"HTTP_PROXY": "http://h:1", "NO_PROXY": "[x]:y"}, "box", "NO_PROXY"),
        ({"SSL_CERT_FILE": "/does/not/exist"}, "https://box", "SSL_CERT_FILE"),
        ({"SSL_CERT_FILE": "/does/not/exist"}, "https://127.0.0.1", "SSL_CERT_FILE"),
        ({"SSL_CERT_FILE": "/x", "HTTPS_PROXY": "http://h:1"}, "https://box", "SSL_CERT_FILE"),
        # what is for others
        ({"HTTPS_PROXY": "socks://h:1"}, "http://box", ""),
        ({"HTTP_PROXY": "nonsense://h"}, "https://box", ""),
        ({"ALL_PROXY": "socks://h:1", "NO_PROXY": "box"}, "box", ""),
        ({"ALL_PROXY": "socks://h:1", "NO_PROXY": "*"}, "box", ""),
        ({"ALL_PROXY": "socks://h:1", "NO_PROXY": "x,[2001:db8::1]"}, "[2001:db8::1]", ""),
        ({"NO_PROXY": "[x]:y"}, "box", ""),
        ({"SSL_CERT_FILE": "/does/not/exist"}, "http://box", ""),
        ({"SSL_CERT_FILE": "/does/not/exist", "HTTP_PROXY": "http://h:1"}, "http://box", ""),
        ({"OLLAMA_HOST": "h:99999", "OLLAMA_API_KEY": "k\u00e9y"}, "http://box", ""),
        ({"OLLAMA_HOST": "h:99999"}, None, "OLLAMA_HOST"),
        ({"OLLAMA_API_KEY": "k\u00e9y"}, "ollama.com", "OLLAMA_API_KEY"),
    ],
)
def test_a_variable_matters_where_it_is_used(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], host: str | None, named: str
) -> None:
    """An error names the variable; what is not for the host is not read."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if not named:
        AsyncClient(host)
        return
    with pytest.raises(RequestError, match=named):
        AsyncClient(host)


def test_the_environments_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As before: for its scheme, and not for what NO_PROXY lists."""
    monkeypatch.setenv("HTTP_PROXY", "box:3128")
    monkeypatch.setenv("NO_PROXY", "example.com,10.0.0.1")
    assert isinstance(transport_of(AsyncClient("http://other")), ProxyTransport)
    for host in ("example.com", "a.example.com", "10.0.0.1", "https://other"):
        assert isinstance(transport_of(AsyncClient(host)), Transport)
    assert isinstance(transport_of(AsyncClient("http://other", trust_env=False)), Transport)
    assert isinstance(transport_of(AsyncClient("http://other", proxy=None)), ProxyTransport)
    own = httpx.MockTransport(lambda _: httpx.Response(200))
    assert transport_of(AsyncClient("http://other", mounts={"all://other": own})) is own
    assert transport_of(AsyncClient("http://other", transport=own)) is own


@pytest.mark.parametrize(
    ("excepted", "host", "directly"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.1.2.3/8", "10.200.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "10.example.com", False),
        ("10.0.0.7", "10.0.0.8", False),
        ("fd00::/8", "[fd12::1]", True),
        ("[fd00::]/8", "[fd12::1]", True),
        ("fd00::/8", "10.0.0.1", False),
        ("0.0.0.0/0", "[fd12::1]", False),
        ("[2001:db8::1%eth0]", "[2001:db8::1]", True),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "badexample.com", False),
        ("one two\tthree", "two", True),
        ("one, *", "two", True),
        (" ,, ", "two", False),
    ],
)
def test_what_no_proxy_means(
    monkeypatch: pytest.MonkeyPatch, excepted: str, host: str, directly: bool
) -> None:
    """Networks, stars and white space too, as Go and curl read them."""
    monkeypatch.setenv("HTTP_PROXY", "http://box:3128")
    monkeypatch.setenv("NO_PROXY", excepted)
    cls = Transport if directly else ProxyTransport
    assert isinstance(transport_of(AsyncClient(f"http://{host}")), cls)


@pytest.mark.parametrize(
    "proxy",
    ["http://h:99999", "http://h:0", f"http://{'a' * 64}:1", "http://a..b:1", "http://1.2.3.400:1"],
)
def test_a_proxy_that_nothing_can_connect_to(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """It is refused as what it is, rather than by whatever lies below."""
    with pytest.raises(RequestError, match="proxy must be such as"):
        AsyncClient("http://box", proxy=proxy)
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(RequestError, match="HTTP_PROXY must be such as"):
        AsyncClient("http://box")


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["127.1", "localhost.", "0", "[::ffff:127.0.0.1]"])
async def test_calls_of_this_machine_arrive(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """They go directly, and the server sees a host that it accepts."""
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with AsyncClient(f"{host}:{fake.port}", api_key="k") as client:
        await client.version()
    assert fake.requests[0].headers["host"].rpartition(":")[0] in ("127.0.0.1", "localhost")


@pytest.mark.anyio
async def test_an_error_on_the_way_names_the_proxy(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it cannot be reached, and where its page comes in place of a reply; without a password."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("HTTP_PROXY", f"http://u:s3cret@127.0.0.1:{port}")
    async with AsyncClient("http://box.example") as client:
        with pytest.raises(ConnectError) as caught:
            await client.version()
    assert f"through the proxy http://127.0.0.1:{port} (HTTP_PROXY)" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    async with AsyncClient("http://box.example", proxy=fake.url) as client:
        with pytest.raises(OllamaError) as told:
            await client.request("GET", "/nothing")
    assert f"through the proxy {fake.url}" in str(told.value)


@pytest.mark.anyio
async def test_a_timeout_on_the_way_names_the_proxy(anyio_backend: Any) -> None:
    """A proxy that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        timeout = Timeouts(first_chunk=0.05)
        async with AsyncClient("http://box.example", proxy=proxy, timeout=timeout) as client:
            with pytest.raises(RequestTimeout, match=f"through the proxy {proxy}"):
                await client.version()


@pytest.mark.anyio
async def test_a_broken_proxy_elsewhere_is_met_only_there(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirect that httpx follows to what a broken proxy is for says so."""
    monkeypatch.setenv("HTTPS_PROXY", "socks://h:1")

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(307, headers={"location": "https://elsewhere/"})

    options: dict[str, Any] = {"mounts": {"all://box": httpx.MockTransport(answer)}}
    async with AsyncClient("http://box", follow_redirects=True, **options) as client:
        with pytest.raises(ConnectError, match="HTTPS_PROXY"):
            await client.version()


HTTPX = [{"http2": True}, {"http2": True, "http1": False}, {"http1": False, "http2": False}]


@pytest.mark.anyio
@pytest.mark.parametrize("options", HTTPX, ids=lambda options: "-".join(options))
@pytest.mark.parametrize(
    ("name", "content"),
    [("SSL_CERT_FILE", None), ("SSL_CERT_FILE", "no certificate"), ("SSLKEYLOGFILE", None)],
)
async def test_httpx_transports_read_tls_files_where_they_need_them(
    fake: FakeOllama,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: dict[str, bool],
    name: str,
    content: str | None,
) -> None:
    """Plain http works with httpx's own transports too; https names the variable."""
    monkeypatch.setitem(sys.modules, "h2", ModuleType("h2"))  # httpx looks for it, and no more
    file = tmp_path / "missing" / "file"
    if content is not None:
        file.parent.mkdir()
        file.write_text(content)
    monkeypatch.setenv(name, str(file))
    with pytest.raises(RequestError, match=name):
        AsyncClient("https://box", **options)
    async with AsyncClient(fake.url, follow_redirects=True, **options) as client:
        transport: Any = transport_of(client)
        assert isinstance(transport, LazyTransport)
        assert client.statistics().open == 0
        if options == {"http2": True, "http1": False}:  # which needs the package
            return
        await client.version()
        assert client.statistics().open == 1
        fake.script("/api/version", Reply.empty(307).replace(headers={"Location": "https://[::1]"}))
        with pytest.raises(ConnectError):
            await client.version()
        await client.version()
    assert fake.in_flight == 0


def test_certificates_of_the_environment_are_still_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SSL_CERT_FILE counts for https, directly and through a proxy."""
    import certifi  # noqa: PLC0415

    copied = tmp_path / "ca.pem"
    copied.write_text(Path(certifi.where()).read_text())
    monkeypatch.setenv("SSL_CERT_FILE", str(copied))
    monkeypatch.setenv("HTTPS_PROXY", "http://h:1")
    transport: Any = transport_of(AsyncClient("https://box"))
    assert transport._pool._ssl_context.verify_mode == ssl.CERT_REQUIRED
    assert transport._pool._ssl_context.get_ca_certs()
