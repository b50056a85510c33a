"""A folder of recorded responses: how it is written, and which of them a request gets.

Each response is a file of its raw bytes, `NAME.http`; `index.json` says which request drew it.
"""

import json
import os
import re
from collections import deque
from collections.abc import Iterable
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

from ollama_sc.testing._http.request import RecordedRequest
from ollama_sc.testing._masking import mask, mask_reply, secrets_of
from ollama_sc.testing._replies import Reply

_NO_REPLY = 501  # no status of Ollama's: no program takes it for an answer
_INDEX = "index.json"
_KNOWN_AGAIN = 8  # characters; what is shorter can be a word of any reply


class CassetteError(Exception):
    """A folder is no cassette, or cannot become one."""


# -- recording -----------------------------------------------------------------------------------


class CassetteWriter:
    """Writes a cassette; after each response it is complete on the disk.

    Args:
        folder: Made if there is none; must hold no cassette.
        server: What was recorded, for readers.
        secrets: What is masked besides the keys and tokens of the requests.

    Raises:
        CassetteError: There is a cassette already.

    """

    def __init__(
        self, folder: str | os.PathLike[str], server: str, secrets: Iterable[bytes] = ()
    ) -> None:
        self._folder = Path(folder)
        self._secrets = list(secrets)
        self._seen: set[bytes] = set()  # what was a secret once is none to be shown later
        self._index: dict[str, Any] = {"server": server, "responses": []}
        self._started = 0
        if (self._folder / _INDEX).exists():
            raise CassetteError(f"{self._folder} has a recording already: take another folder")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._write(_INDEX, self._index_bytes())

    def start(self) -> int:
        """The number of a request that begins, which places its response."""
        self._started += 1
        return self._started

    def add(self, number: int, request: RecordedRequest, raw: bytes) -> tuple[str, str]:
        """Keep a response; returns what was asked for, masked, and the response's name."""
        target = request.path + (f"?{request.query}" if request.query else "")
        secrets = self._secrets + secrets_of(request.headers, target, request.body)
        path = mask(target.encode(), secrets).decode()
        slug = re.sub(r"[^a-z0-9]+", "-", path.partition("?")[0].lower()).strip("-")[:40]
        name = f"{number:04d}-{request.method.lower()}-{slug}".rstrip("-")
        entry = {
            "name": name,
            "method": request.method,
            "path": path,
            "body": _body(request.body, secrets),
            "bytes": len(raw),
        }
        self._index["responses"].append(entry)
        self._index["responses"].sort(key=itemgetter("name"))
        self._seen.update(secret for secret in secrets if len(secret) >= _KNOWN_AGAIN)
        self._write(f"{name}.http", mask_reply(raw, [*secrets, *self._seen.difference(secrets)]))
        self._write(_INDEX, self._index_bytes())
        return path, name

    def _index_bytes(self) -> bytes:
        return json.dumps(self._index, indent=1, ensure_ascii=False).encode() + b"\n"

    def _write(self, name: str, data: bytes) -> None:
        """Write a file that is never seen half."""
        unfinished = self._folder / f".{name}.part"
        unfinished.write_bytes(data)
        unfinished.replace(self._folder / name)


def _body(data: bytes, secrets: list[bytes]) -> Any:
    """A body as the index has it: its JSON, or how long it is."""
    if not data:
        return None
    try:
        return json.loads(mask(data, secrets), parse_float=_number)
    except ValueError:
        return f"<{len(data)} bytes>"


def _number(text: str) -> float:
    """A number of JSON, in which `0.0` and `0` are the same."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


# -- replaying -----------------------------------------------------------------------------------


class Cassette:
    """The recorded responses by their requests.

    A request gets the response to the same method, path, query and JSON; of several to the same
    one after the other, and then the last one again.

    Args:
        folder: What was recorded.

    Raises:
        CassetteError: It holds no recording that can be read.

    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._replies: dict[tuple[str, str, str], deque[Reply]] = {}
        try:
            index = json.loads((self._folder / _INDEX).read_bytes(), parse_float=_number)
            for entry in index["responses"]:
                file = self._folder / f"{entry['name']}.http"
                if file.is_file():
                    path = _alike(entry["path"])
                    key = (entry["method"], path, _canonical(entry["body"]))
                    self._replies.setdefault(key, deque()).append(_reply(file.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CassetteError(f"{self._folder} is no recording ({error!r})") from error

    def __call__(self, request: RecordedRequest) -> Reply:
        """The reply to a request; an error that names the nearest one where there is none."""
        target = request.path + (f"?{request.query}" if request.query else "")
        secrets = secrets_of(request.headers, target, request.body)
        path = _alike(mask(target.encode(), secrets).decode())
        # Of an upload only the beginning is kept.
        size = max(request.body_size, len(request.body))
        body = _body(request.body, secrets) if size == len(request.body) else f"<{size} bytes>"
        replies = self._replies.get((request.method, path, _canonical(body)))
        if replies is None:
            return Reply.error(_NO_REPLY, self._why(request.method, path, body))
        return replies.popleft() if len(replies) > 1 else replies[0]

    def _why(self, method: str, path: str, body: Any) -> str:
        others = [key[2] for key in self._replies if key[:2] == (method, path)]
        what = f"the recording {self._folder.name} has no reply to {method} {path}"
        if not others:
            return what
        differences = [_differing(json.loads(other), body) for other in others]
        nearest = min(filter(None, differences), key=len, default=list[str]())
        return f"{what} with this body; the nearest one differs in {', '.join(nearest) or 'it'}"


def _reply(raw: bytes) -> Reply:
    """A response as it was, on a connection that lives on where that one did."""
    head = raw.partition(b"\r\n\r\n")[0].lower()
    framed = re.search(rb"(?m)^(content-length:|transfer-encoding:[^\r\n]*chunked)", head)
    bodiless = re.match(rb"http/1\.1 (204|304)\b", head)
    closes = re.search(rb"(?m)^connection:[^\r\n]*close", head) or head.startswith(b"http/1.0")
    whole = _is_whole(raw)
    return Reply.raw(raw).replace(keep_alive=bool((framed or bodiless) and not closes and whole))


def _is_whole(raw: bytes) -> bool:
    head, _, body = raw.partition(b"\r\n\r\n")
    if re.search(rb"(?im)^transfer-encoding:[^\r\n]*chunked", head):
        return body.endswith(b"0\r\n\r\n") or not body
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    return length is None or not body or len(body) >= int(length[1])


def _canonical(body: Any) -> str:
    """A body as a text that is the same for the same JSON, whatever its masked secrets were."""
    return _alike(json.dumps(body, sort_keys=True, ensure_ascii=False))


def _alike(masked: str) -> str:
    """The same for secrets of any length: a program that is tested has other keys."""
    return re.sub("x+", "x", masked)


def _differing(recorded: Any, sent: Any) -> list[str]:
    """The fields in which two bodies differ."""
    if not (isinstance(recorded, dict) and isinstance(sent, dict)):
        return []
    one, other = cast("dict[str, Any]", recorded), cast("dict[str, Any]", sent)
    names = {*one, *other}
    return sorted(n for n in names if _canonical(one.get(n)) != _canonical(other.get(n)))
