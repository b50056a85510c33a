"""What the command prints: nothing foreign in it steers a terminal, and no secret is shown."""

import base64
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self
from urllib.parse import quote, quote_plus, unquote

from ollama_sc._http.credentials import HIDDEN, masked
from ollama_sc.cli._reporter import Reporter

_LEAST_SECRET = 4  # characters; shorter ones are parts of everything
_LONG_SECRET = 16
_SECRET_NAMES = re.compile(r"(?i)auth|key|token|secret|cookie|pass|sign|cred|session")
_MAX_NAMES = 20
_MAX_NAME = 60  # characters


def printable(text: str) -> str:
    """The text with each character escaped that is none to be seen, but for ends of lines."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character == "\n" else ascii(character)[1:-1]
        for character in text
    )


def shown(value: object) -> str:
    """Something foreign inside a message, such as a name: on one line, and not without end."""
    text = printable(str(value)).replace("\n", "\\n")
    return text if len(text) <= _MAX_NAME else f"{text[: _MAX_NAME - 3]}..."


def on_one_line(error: Exception) -> str:
    """What an error of another library says, on one line."""
    return " ".join(str(error).split())


def shown_names(names: Sequence[str]) -> str:
    """Names of fields or columns, as many as anybody reads."""
    more = len(names) - _MAX_NAMES
    listed = ", ".join(map(shown, names[:_MAX_NAMES]))
    return f"{listed} and {more} more" if more > 0 else listed


def shown_path(path: Path | str) -> str:
    """A path on one line: all of it, with bytes that are no UTF-8 escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return printable(text).replace("\n", "\\n")


class Secrets:
    """Hides what must not be shown.

    Args:
        hosts: addresses, maybe with a user and a password.
        headers: as they were given, ``Name: value``; values that may be secrets are hidden.
        others: keys, for example.
        addresses: what may be one, and is masked where it is repeated as it is.
    """

    def __init__(
        self,
        hosts: Sequence[str] = (),
        headers: Sequence[str] = (),
        others: Iterable[str] = (),
        addresses: Sequence[str] = (),
    ) -> None:
        self._addresses = [*hosts, *addresses]
        values = {value for header in headers if (value := _secret_value(header))}
        # Of "Bearer x" also the x.
        parts = {part for value in values for part in (value, value.rpartition(" ")[2])}
        for host in hosts:
            userinfo = host.rpartition("@")[0].rpartition("//")[2]
            parts |= {userinfo, userinfo.partition(":")[2]} if userinfo else set()
        forms = {form for part in parts | set(others) for form in _forms(part)}
        self._forms = sorted((form for form in forms if len(form) >= _LEAST_SECRET), key=len)

    @classmethod
    def of_arguments(cls, arguments: Sequence[str]) -> Self:
        """What must not be shown of arguments that were not understood."""
        values = [argument.partition("=")[2] for argument in arguments]
        headers = [value for option, value in pairwise(arguments) if option == "--header"]
        headers += [given.partition("=")[2] for given in arguments if given.startswith("--header=")]
        others = [header.partition(":")[2].strip() for header in headers]
        return cls(headers=headers, others=others, addresses=[*arguments, *values])

    def hide(self, text: str) -> str:
        """The text with ``...`` for each secret."""
        text = masked(text, *self._addresses)
        for form in reversed(self._forms):
            text = text.replace(form, HIDDEN)
        return text


def _secret_value(header: str) -> str:
    """The value of a header, if it can be a secret, by its name or its length; or else nothing.

    A short word, such as the name of a team, is also part of file names and messages.
    """
    name, _, value = header.partition(":")
    value = value.strip()
    return value if len(value) >= _LONG_SECRET or _SECRET_NAMES.search(name) else ""


def _forms(secret: str) -> set[str]:
    """How a secret can be written: as it is, in addresses, in JSON, in Python, in base64."""
    plain = {secret, unquote(secret)}
    written: set[str] = set()
    for each in plain:
        data = each.encode("utf-8", "surrogateescape")
        written |= {
            each,
            quote(data),
            quote(data, safe=""),
            quote_plus(data),
            json.dumps(each)[1:-1],
            ascii(each)[1:-1],
            repr(each)[1:-1],
            base64.b64encode(data).decode(),
            base64.urlsafe_b64encode(data).decode().rstrip("="),
        }
    return written


class CleanReporter:
    """A `Reporter` that passes to another one what can be shown."""

    def __init__(self, reporter: Reporter, secrets: Secrets) -> None:
        self._reporter = reporter
        self._secrets = secrets
        self.start = reporter.start
        self.update = reporter.update
        self.end = reporter.end

    def say(self, text: str) -> None:
        """See `Reporter`."""
        self._reporter.say(printable(self._secrets.hide(text)))


def print_error(text: str, secrets: Secrets) -> None:
    """Print text on stderr."""
    print(printable(secrets.hide(text)), file=sys.stderr, flush=True)  # noqa: T201
