"""Keys and tokens in what is recorded become `x`, byte for byte: nothing else changes its place."""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, unquote

_NAME = (
    r"[\w.-]{0,64}(?:api[_-]?key|access[_-]?key|private[_-]?key|secret|passw(?:or)?d|passphrase|pwd|"
    r"credential|authorization|cookie|jwt|"
    r"(?:access|refresh|id|auth|session|csrf|bearer|api|security)[_-]?token)[\w.-]{0,64}"
)
# `token` and `key` are also words of the API: of a log probability, of a tool's arguments.
_VAGUE = r"tokens?|keys?|auth|signature|sig"
_LOOKS_SECRET = re.compile(r"[A-Za-z0-9_.~+/=-]{16,}")
_FIELD = re.compile(rf'"(?:({_NAME})|{_VAGUE})"\s*:\s*(?=["\[{{\d-])', re.IGNORECASE)
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)(?:"(\s*:)?|\\?\Z)', re.DOTALL)
_NUMBER = re.compile(r"-?\d[\d.eE+-]*")
# In addresses and forms; Go writes the ampersand as \u0026.
_PARAMETER = re.compile(rf"(?:[?&;]|\\u0026|^)(?:{_NAME}|{_VAGUE})=([^&;\"'\\\s]+)", re.IGNORECASE)
_BEARER = re.compile(r"\b(?:Bearer|Basic)\s+(?!\w+=\\?\")([A-Za-z0-9_.~+/-]{6,}=*)", re.IGNORECASE)
# In prose and in JSON within a text: `export API_KEY=...`, `X-Api-Key: ...`, `\"api_key\": \"...`.
# A word is a value of such a name where it looks like one: long, and with a digit.
_ASSIGNED = re.compile(
    rf"(?<![\w.-]){_NAME}(?:\\?[\"'])?\s*[:=]\s*(?:\\?[\"'])?"
    r"(?=[A-Za-z_.~+/-]*\d)([A-Za-z0-9_.~+/-]{12,}=*)",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"://([^/\s\"'@?#]+)@")
_HEADER = re.compile(r".*(key|token|secret|auth|passw|session|cookie|signature|credential)")
_SHOWN_HEADERS = {"www-authenticate", "proxy-authenticate"}
_SHORTEST = 4  # what is shorter is found everywhere


def mask(data: bytes, secrets: Iterable[bytes] = ()) -> bytes:
    """Some text with every key and token in it masked; as long as before."""
    masked = bytearray(data)
    for start, end in _places(data.decode("latin-1")):
        number = _NUMBER.fullmatch(data[start:end].decode("latin-1"))
        masked[start:end] = (b"1" if number else b"x") * (end - start)
    for secret in secrets:
        at = data.find(secret)
        while at >= 0:
            masked[at : at + len(secret)] = b"x" * len(secret)
            at = data.find(secret, at + 1)
    return bytes(masked)


def _places(text: str) -> Iterator[tuple[int, int]]:
    """Where the keys and tokens are that can be told by what stands before them."""
    for pattern in (_PARAMETER, _BEARER, _ASSIGNED, _USERINFO):
        for found in pattern.finditer(text):
            yield found.span(1)
    at = 0
    while (field := _FIELD.search(text, at)) is not None:
        at = field.end()
        if field[1] is None:  # only what looks like a secret is one, and it is a string
            value = _STRING.match(text, at)
            if value is not None and _LOOKS_SECRET.fullmatch(value[1]):
                yield value.span(1)
        else:
            end = _value_end(text, at)
            if text[at] in '["{':
                yield from (each.span(1) for each in _STRING.finditer(text, at, end) if not each[2])
            else:
                yield at, end
            at = max(at, end)  # each place once: a body can be made to be slow


def _value_end(text: str, at: int) -> int:
    """Where the JSON value at a place ends; the end of the line where it is cut off."""
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, at)[1]
    except (ValueError, RecursionError):
        end = text.find("\n", at)
        return len(text) if end < 0 else end


def is_secret_header(name: str) -> bool:
    """Whether a header's value is not for others, by its name in lower case."""
    if name in _SHOWN_HEADERS or name.startswith("access-control-"):
        return False
    return _HEADER.match(name) is not None


def secrets_of(headers: Mapping[str, str], target: str, body: bytes) -> list[bytes]:
    """The keys and tokens that a request carries, in all spellings that a reply may have."""
    texts: set[str] = set()
    for name, value in headers.items():
        if name == "cookie":
            texts |= {part.partition("=")[2].strip() for part in value.split(";")}
        elif is_secret_header(name):
            scheme, _, rest = value.strip().partition(" ")
            texts.add(rest.strip() or scheme)
            if scheme.lower() == "basic":
                texts |= _basic(rest.strip())
    for text in (target, body.decode("latin-1")):
        for start, end in _places(text):
            texts.add(text[start:end].encode("latin-1", "replace").decode("utf-8", "replace"))
    texts |= {unquote(text) for text in texts}
    spelled = {
        form for text in texts for form in (text, quote(text, safe=""), json.dumps(text)[1:-1])
    }
    found_all = {text.encode("utf-8", "replace") for text in spelled if len(text) >= _SHORTEST}
    return sorted(found_all, key=len, reverse=True)


def _basic(text: str) -> set[str]:
    try:
        plain = base64.b64decode(text, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return set()
    return {plain, plain.partition(":")[2]}


def mask_reply(raw: bytes, secrets: Iterable[bytes] = ()) -> bytes:
    """A whole response of HTTP, masked in its headers and its body, however that is chunked."""
    head, end, _ = raw.partition(b"\r\n\r\n")
    masked = bytearray(_mask_head(head, secrets) + raw[len(head) :])
    pieces = _pieces(raw, len(head) + len(end), chunked=_is_chunked(head))
    body = mask(b"".join(raw[start:stop] for start, stop in pieces), secrets)
    at = 0
    for start, stop in pieces:
        masked[start:stop] = body[at : at + stop - start]
        at += stop - start
    return bytes(masked)


def _mask_head(head: bytes, secrets: Iterable[bytes]) -> bytes:
    lines = mask(head, secrets).split(b"\r\n")
    for number, line in enumerate(lines):
        name, colon, value = line.partition(b":")
        if number and colon and is_secret_header(name.decode("latin-1").strip().lower()):
            rest = value.lstrip(b" \t")
            if not rest.isdigit():  # how many tokens are left
                lines[number] = line[: len(line) - len(rest)] + b"x" * len(rest)
    return b"\r\n".join(lines)


def _is_chunked(head: bytes) -> bool:
    return re.search(rb"(?im)^transfer-encoding:[^\r\n]*chunked", head) is not None


def _pieces(raw: bytes, start: int, *, chunked: bool) -> list[tuple[int, int]]:
    """Where the bytes of the body are, without what frames them."""
    if not chunked:
        return [(start, len(raw))]
    pieces: list[tuple[int, int]] = []
    while True:
        line_end = raw.find(b"\r\n", start)
        try:
            size = int(raw[start:line_end].partition(b";")[0], 16) if line_end >= 0 else 0
        except ValueError:
            size = 0
        if size <= 0:
            return pieces
        first = line_end + 2
        pieces.append((first, min(first + size, len(raw))))
        start = first + size + 2
