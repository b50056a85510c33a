"""JSON that arrives in pieces, as plain values of what is complete of it. No I/O.

Each piece is looked at once: parsing all of the text again for each costs the square of its length.
What is wrong with the text is not said here, there is just no more of it.
"""

from __future__ import annotations

import json
import re
from typing import Any

# A bracket, a quotation mark, or a number or literal, whatever separates it from what was before.
_TOKEN = re.compile(r'[\s,:]*(?:([{\[])|([}\]])|(")|([^\s,:{}\[\]"]+))')
# A string up to its closing quotation mark, or as far as it goes.
_STRING = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)


class _Open:
    """A container whose end has not come.

    Attributes:
        key: of the next value in it, where it has keys and that one has come.
        attached: whether it is part of the value: it is once something in it is complete.
    """

    __slots__ = ("attached", "container", "key")

    def __init__(self, container: dict[str, Any] | list[Any]) -> None:
        self.container = container
        self.key: str | None = None
        self.attached = False

    def put(self, value: Any) -> bool:
        """Add a value; false where its key is missing."""
        if isinstance(self.container, list):
            self.container.append(value)
            return True
        if self.key is None:
            return False
        self.container[self.key] = value
        return True


class Scanner:
    """Takes text piece by piece.

    Attributes:
        value: what is complete of it. It is a new object whenever there is more in it, and none
            that was given out is changed.
    """

    def __init__(self) -> None:
        self.value: Any = None
        self._open: list[_Open] = []
        self._given_out = False
        self._ended = False
        self._in_string = False
        self._pieces: list[str] = []  # not looked at yet
        self._string: list[str] = []  # of the string that has not ended: looked at

    def feed(self, text: str) -> bool:
        """Take a piece of the text; whether it completes anything."""
        if self._in_string and '"' not in text:
            self._pieces.append(text)
            return False
        if self._ended:
            return False
        self._pieces.append(text)
        text = "".join(self._pieces) if len(self._pieces) > 1 else text
        self._pieces.clear()
        return self._scan(text)

    def finish(self) -> bool:
        """The text has ended; whether that completes anything, as it does a number alone."""
        return not self._in_string and self.feed(" ")

    def _scan(self, text: str) -> bool:
        changed = False
        start = 0
        while not self._ended:
            if self._in_string:
                found = _STRING.match(text, start)
                assert found is not None
                self._string.append(found[0])
                end = found.end()
                if text[end : end + 1] != '"':
                    self._pieces.append(text[end:])  # nothing, or a backslash
                    break
                start = end + 1
                changed |= self._end_string()
                continue
            found = _TOKEN.match(text, start)
            if found is None:
                break
            start = found.end()
            if found[1] is not None:
                self._open.append(_Open({} if found[1] == "{" else []))
            elif found[2] is not None:
                changed |= self._close(found[2])
            elif found[3] is not None:
                self._in_string = True
            elif start == len(text):
                self._pieces.append(found[4])  # there may be more of it
                break
            else:
                changed |= self._end_literal(found[4])
        if changed:
            self._given_out = True
        return changed

    def _end_string(self) -> bool:
        self._in_string = False
        raw = "".join(self._string)
        self._string.clear()
        try:
            text: str = json.loads(f'"{raw}"', strict=False) if "\\" in raw else raw
        except ValueError:
            self._ended = True
            return False
        top = self._open[-1] if self._open else None
        if top is not None and top.key is None and not isinstance(top.container, list):
            top.key = text
            return False
        return self._add(text)

    def _end_literal(self, text: str) -> bool:
        try:
            return self._add(json.loads(text))
        except ValueError:
            self._ended = True
            return False

    def _close(self, bracket: str) -> bool:
        if not self._open or isinstance(self._open[-1].container, list) != (bracket == "]"):
            self._ended = True
            return False
        closed = self._open.pop()
        self._ended = not self._open
        if closed.attached:
            if self._open:
                self._open[-1].key = None
            return False
        return self._add(closed.container)

    def _add(self, value: Any) -> bool:
        """A value is complete: it becomes a part of what it is in, and that of all around it."""
        if not self._open:
            self.value = value
            self._ended = True
            return True
        if self._given_out:
            self._copy()
        for number in range(len(self._open) - 1, -1, -1):
            top = self._open[number]
            if not top.put(value):
                self._ended = True
                return False
            if number == len(self._open) - 1:
                top.key = None
            if top.attached:
                return True
            top.attached = True
            value = top.container
        self.value = value
        return True

    def _copy(self) -> None:
        """Make the containers that are open anew: those that were given out stay as they are."""
        self._given_out = False
        around: _Open | None = None
        for one in self._open:
            if not one.attached:
                break
            old, one.container = one.container, one.container.copy()
            if around is None:
                self.value = one.container
            elif isinstance(around.container, list):
                around.container[-1] = one.container
            else:
                around.container[_key_of(around.container, old)] = one.container
            around = one


def _key_of(container: dict[str, Any], value: object) -> str:
    """The key of a value, the last one where nothing came twice."""
    for key in reversed(container):
        if container[key] is value:
            return key
    raise AssertionError("an attached container is in the one around it")
