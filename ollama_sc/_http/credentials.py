"""Keeps user names, passwords and keys out of what is shown. It knows nothing of the others."""

from __future__ import annotations

import re

HIDDEN = "..."
_SCHEME = r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//"
# A password can hold spaces, or slashes. Time is linear in the text: a server can have sent it.
_WITH_SPACES = r"//[^/\n]*@"


def masked(text: str, *addresses: str) -> str:
    """The text, with ``...`` for the user and password of every address in it.

    Args:
        text: what is to be shown.
        addresses: known to be addresses, and so masked also where they have no ``//``, wherever
            the text repeats them.
    """
    for address in addresses:
        userinfo, at, _ = address.rpartition("@")
        if at:
            scheme = re.match(_SCHEME, userinfo)
            kept = scheme.group() if scheme else ""
            text = text.replace(f"{userinfo}@", f"{kept}{HIDDEN}@")
    if "@" not in text:
        return text
    return re.sub(r"\S+", _masked_word, re.sub(_WITH_SPACES, f"//{HIDDEN}@", text))


def _masked_word(found: re.Match[str]) -> str:
    word = found.group()
    before, slashes, address = word.partition("//")
    _, at, host = address.rpartition("@")
    return f"{before}{slashes}{HIDDEN}@{host}" if at else word
