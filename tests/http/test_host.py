"""`OLLAMA_HOST` and ``host=`` into the URL that requests go to."""

import pickle
import traceback
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc import AsyncClient, RequestError
from ollama_sc._http.host import parse_host


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


LABEL = "a" * 63

URLS = {
    # nothing given
    None: "http://127.0.0.1:11434",
    "": "http://127.0.0.1:11434",
    "   ": "http://127.0.0.1:11434",
    '""': "http://127.0.0.1:11434",
    # addresses and names, with and without a port
    "1.2.3.4": "http://1.2.3.4:11434",
    "1.2.3.4:56": "http://1.2.3.4:56",
    "localhost": "http://localhost:11434",
    "localhost:": "http://localhost:11434",
    "localhost:11434/": "http://localhost:11434",
    "Box.LAN:8080": "http://box.lan:8080",
    "a_b-c": "http://a_b-c:11434",
    "h:1": "http://h:1",
    "h:65535": "http://h:65535",
    "h:00080": "http://h:80",
    f"{LABEL}.{LABEL}": f"http://{LABEL}.{LABEL}:11434",
    "example.com.": "http://example.com.:11434",
    "localhost.": "http://localhost:11434",
    "127.1:80": "http://127.0.0.1:80",
    "0x7f.1": "http://127.0.0.1:11434",
    "10.1.": "http://10.0.0.1:11434",
    "0": "http://127.0.0.1:11434",
    "[::ffff:127.0.0.1]": "http://127.0.0.1:11434",
    # the address of every interface, and no address at all, are the loopback
    ":1234": "http://127.0.0.1:1234",
    "0.0.0.0": "http://127.0.0.1:11434",
    "0.0.0.0:80": "http://127.0.0.1:80",
    "https://0.0.0.0/": "https://127.0.0.1:443",
    "http://:80": "http://127.0.0.1:80",
    "[::]": "http://[::1]:11434",
    "[::]:99": "http://[::1]:99",
    "::": "http://[::1]:11434",
    "[0:0:0:0:0:0:0:0]:1": "http://[::1]:1",
    # IPv6
    "::1": "http://[::1]:11434",
    "[::1]": "http://[::1]:11434",
    "[::1]:99": "http://[::1]:99",
    "https://[::1]": "https://[::1]:443",
    "2001:DB8::A": "http://[2001:db8::a]:11434",
    "[2001:0db8:0000::000a]:1": "http://[2001:db8::a]:1",
    "fe80::1%eth0": "http://[fe80::1%25eth0]:11434",
    "[fe80::1%eth0]:1": "http://[fe80::1%25eth0]:1",
    "[fe80::1%25eth0]:1": "http://[fe80::1%25eth0]:1",
    # schemes, in any case, and their ports
    "http://h": "http://h:80",
    "https://h": "https://h:443",
    "HTTP://H": "http://h:80",
    "HttpS://H": "https://h:443",
    "http://h:11434": "http://h:11434",
    "https://h:": "https://h:443",
    # the hosted service
    "ollama.com": "https://ollama.com:443",
    "OLLAMA.COM": "https://ollama.com:443",
    "Ollama.com:443": "https://ollama.com:443",
    "ollama.com/v1": "https://ollama.com:443/v1",
    "https://ollama.com": "https://ollama.com:443",
    "http://ollama.com": "http://ollama.com:80",
    "www.ollama.com": "http://www.ollama.com:11434",
    "notollama.com": "http://notollama.com:11434",
    # path prefixes
    "h/p": "http://h:11434/p",
    "https://h/p/x": "https://h:443/p/x",
    "https://h/P/x//": "https://h:443/P/x",
    "https://h//p//x": "https://h:443/p/x",
    "h:1/%20": "http://h:1/%20",
    "/p": "http://127.0.0.1:11434/p",
    # white space, quotes and slashes around it
    "  h:1\t\n": "http://h:1",
    '"http://h:1/"': "http://h:1",
    " '1.2.3.4' ": "http://1.2.3.4:11434",
    "' h '": "http://h:11434",
    "h///": "http://h:11434",
    # user and password go elsewhere
    "http://u:p@h:1/x": "http://h:1/x",
    "u@h": "http://h:11434",
    "u:p@[::1]:5": "http://[::1]:5",
    "u:p@ollama.com": "https://ollama.com:443",
    "u:p@": "http://127.0.0.1:11434",
}


@pytest.mark.parametrize(("value", "url"), URLS.items(), ids=repr)
def test_a_host_is_read_as_people_write_it(value: str | None, url: str) -> None:
    """Every way that people write a host gives the URL that they mean."""
    assert parse_host(value).url == url


def test_an_ipv6_host_may_have_an_empty_port_as_names_may() -> None:
    """`[::1]:` has the default port, as `localhost:` has."""
    assert parse_host("[::1]:").url == "http://[::1]:11434"
    assert parse_host("https://[::1]:").url == "https://[::1]:443"


@pytest.mark.parametrize(
    ("value", "userinfo"),
    [
        ("h", None),
        ("u:p@h", ("u", "p")),
        ("u@h", ("u", "")),
        ("u:p:q@h", ("u", "p:q")),
        ("u%40x:p%3a%2F%3f%23@h", ("u@x", "p:/?#")),
        ("u:%C3%A9@h", ("u", "é")),
        ("u:p@q@h", ("u", "p@q")),
        ("https://:key@h", ("", "key")),
    ],
)
def test_user_and_password_are_separated(value: str, userinfo: tuple[str, str] | None) -> None:
    """What stands before the last @ of the authority is user and password, decoded."""
    host = parse_host(value)
    assert host.userinfo == userinfo
    assert "@" not in host.url


REFUSED = {
    # a port that is none
    "host:99999": "65535",
    "host:65536": "65535",
    "host:0": "65535",
    "11434": "write :11434 for a port",
    "00.0.0.0": "127.0.0.1",
    "0.0.0.0000": "127.0.0.1",
    "host:-1": "65535",
    "host:+1": "65535",
    "host: 1": "65535",
    "host:1_0": "65535",
    "host:abc": "from 1 to 65535",
    "http://h:80/a@b": "http://user:password@host",
    "host:١٢": "65535",
    "host:²": "65535",
    "host:" + "9" * 5000: "65535",
    "[::1]:99999": "65535",
    "http:h": "65535",
    # schemes
    "tcp://1.2.3.4:5": "http or https, not 'tcp'",
    "ftp://h": "http or https, not 'ftp'",
    "unix:///var/run/x": "http or https",
    "://h": "http or https",
    "http ://h": "http or https",
    # IPv6 whose port could be a part of it
    "::1:8080": "write [::1]:8080, or [::1:8080]:11434",
    "fe80::1:1234": "[fe80::1]:1234",
    "http://::1:8080/x": "[::1]:8080",
    "h:80:80": "in brackets",
    # half brackets and what is in them
    "[::1": "[::1]:11434",
    "[::1]x": "[::1]:11434",
    "::1]": "in brackets",
    "[]": "in brackets",
    "[1.2.3.4]": "in brackets",
    "[h]:80": "in brackets",
    "[::1%]": "in brackets",
    # names that cannot be
    "a b": "http://host:11434",
    "a..b": "http://host:11434",
    ".a": "http://host:11434",
    "..": "http://host:11434",
    "a" * 64: "http://host:11434",
    "a." * 5000: "http://host:11434",
    "h\x00": "http://host:11434",
    "h\x7f": "http://host:11434",
    "h\x1b[2J": "http://host:11434",
    "a\nb": "http://host:11434",
    "h\\x": "http://host:11434",
    "<h>": "http://host:11434",
    "h%41": "http://host:11434",
    "\ud800": "http://host:11434",
    "\u200b": "http://host:11434",
    # what a host does not have
    "http://h?x=1": "no query",
    "h#x": "no fragment",
    "h/a b": "white space",
    "h/a\nb": "white space",
    "h/\x00": "white space",
}


@pytest.mark.parametrize(("value", "advice"), REFUSED.items(), ids=lambda text: ascii(text)[:40])
def test_what_cannot_be_a_host_is_refused_with_advice(value: str, advice: str) -> None:
    """A host that cannot be right is a RequestError, short, which says what would be."""
    with pytest.raises(RequestError) as caught:
        parse_host(value)
    text = str(caught.value)
    assert advice in text
    assert len(text) < 500
    assert text.isprintable()


@pytest.mark.parametrize("value", [1, 11434, 0, False, b"http://h", b"", ["h"], object()])
def test_a_host_that_is_no_text_is_refused(value: object) -> None:
    """A host of another type is a RequestError too, also one that counts as false."""
    with pytest.raises(RequestError):
        parse_host(value)  # type: ignore[arg-type]


# Each has the password "s3cret", somewhere in a host that is wrong.
SECRETS = [
    "http://user:s3cret@h:bad",
    "http://user:s3cret@h:99999",
    "user:s3cret@h:99999",
    "user:s3cret@::1:8080",
    "http://user:s3cret@[::1",
    "http://user:s3cret@[::1]x",
    "http://user:s3cret@a..b",
    "http://user:s3cret@a b",
    "http://user:s3cret@h?x",
    "http://user:s3cret@h/a b",
    "htp://user:s3cret@h",
    "user:s3cret?x@h",
    "user:s3cret#x@h",
    "user:x?s3cret@h",
]
# In these the password has a character that it must not have as it is.
SECRETS_ODD = [
    "user:s3cret://h",
    "user:s3cret://x@h",
    "user:s3cret@http://h",
    "user:s3cret/x@h",
    "http://user:s3cret/x@h",
    "http://user:a:s3cret/x@h",
]


@pytest.mark.parametrize("value", [*SECRETS, *SECRETS_ODD])
def test_no_error_shows_a_password(value: str) -> None:
    """Whatever is wrong with a host, its error shows nothing of its password."""
    with pytest.raises(RequestError) as caught:
        parse_host(value)
    error = caught.value
    assert "s3cret" not in "".join([str(error), repr(error), *traceback.format_exception(error)])
    assert b"s3cret" not in pickle.dumps(error)


def test_a_client_shows_no_password() -> None:
    """A client's repr says where it is, without user and password."""
    shown = repr(AsyncClient("http://user:s3cret@h:1/x"))
    assert "http://h:1/x" in shown
    assert "s3cret" not in shown
    assert "user" not in shown


@pytest.mark.parametrize(
    ("value", "hosted"),
    [
        ("ollama.com", True),
        ("OLLAMA.com", True),
        ("https://Ollama.Com/v1", True),
        ("u:p@ollama.com", True),
        ("http://ollama.com", False),
        ("http://ollama.com:443", False),
        ("ollama.com:11434", False),
        ("https://ollama.com.evil.example", False),
        ("https://evil.example/ollama.com", False),
        ("https://ollama.com@evil.example", False),
        ("https://evilollama.com", False),
        ("https://api.ollama.com", False),
        ("", False),
    ],
)
def test_only_the_hosted_service_over_tls_gets_the_key(value: str, hosted: bool) -> None:
    """A key from the environment is for https://ollama.com and for nothing that looks like it."""
    assert parse_host(value).is_ollama_com is hosted


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        ("é.de", b"xn--9ca.de"),
        ("ВЫСТАВКА.рф", b"xn--80aaeb4b0bh4e.xn--p1ai"),
        ("xn--9ca.de:1", b"xn--9ca.de"),
    ],
)
def test_international_names_reach_the_resolver_as_ascii(value: str, raw: bytes) -> None:
    """An international name is asked for in its ASCII form."""
    assert httpx.URL(parse_host(value).url).raw_host == raw


@pytest.mark.parametrize(
    "value",
    [
        # What os.environ gives for OLLAMA_HOST with a byte that is no UTF-8.
        "h/\udcff",
        "u:\udcff@h",
        "[fe80::1%\xe9]",
        "[::1%a\n]",
        "[::1% ]:80",
        "h/\x7f",
        "256.1.1.1",
        "00.0.0.0",
        "☃.example",
        "a\u200db.example",
    ],
    ids=ascii,
)
def test_a_client_refuses_a_host_that_no_request_could_go_to(value: str) -> None:
    """A host that httpx can make no request for is a RequestError of the client, not of a call."""
    with pytest.raises(RequestError):
        AsyncClient(value)


# Text made of what hosts are made of finds more than arbitrary text does.
PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            ["http://", "HTTPS://", "ollama.com", "::1", "[", "]", ":", "@", "/", "%25", "%", "."]
            + ["00", "0000", "127.1", "0x7f", "0.", "00.0.0.0", "::ffff:", "localhost.", "\u3002"]
            + ["80", "0.0.0.0", "host", "u:p@", " ", '"', "'", "?", "#", "\\", "fe80::1", "é", "::"]
        ),
        st.text(max_size=3),
        st.integers(-1, 100_000).map(str),
    ),
    max_size=8,
).map("".join)
ANY_TEXT = st.one_of(st.text(st.characters(), max_size=40), PIECES)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(ANY_TEXT)
def test_any_text_is_a_host_or_a_request_error(value: str) -> None:
    """Nothing but a RequestError comes out for any text; what is accepted is a whole URL."""
    try:
        host = parse_host(value)
    except RequestError as error:
        assert str(error)
        return
    assert host.url.startswith(("http://", "https://"))
    assert not host.url.endswith("/")
    assert host.name
    assert host.name == host.name.lower()
    assert not any(character.isspace() for character in host.name)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(ANY_TEXT)
def test_a_host_that_was_read_reads_the_same_again(value: str) -> None:
    """The URL of a host is itself a host, the same one."""
    try:
        host = parse_host(value)
    except RequestError:
        return
    assert parse_host(host.url) == host._replace(userinfo=None)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(ANY_TEXT)
def test_a_host_that_was_read_can_be_asked(value: str) -> None:
    """httpx accepts each URL that comes out, and sees the same host in it.

    Which international names there can be is httpx's to say: the client asks it.
    """
    try:
        host = parse_host(value)
    except RequestError:
        return
    try:
        url = httpx.URL(host.url + "/api/chat")
    except httpx.InvalidURL:
        assert not host.name.isascii()
        return
    assert url.path.endswith("/api/chat")
    assert not url.userinfo
    assert not url.query
    if host.name.isascii():
        assert url.host.replace("%25", "%") == host.name


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
def test_any_user_and_password_survive_when_quoted(user: str, password: str) -> None:
    """Percent-encoded, every user and password comes out as it was."""
    host = parse_host(f"http://{quote(user, safe='')}:{quote(password, safe='')}@h:1")
    assert host.userinfo == (user, password)
    assert host.url == "http://h:1"
