"""Finds where values of JSON begin and end, without a look at what they are. No I/O.

What a decoder refuses as a whole can still have the text and the key: a number that is too large, a
NaN, thousands of brackets in other fields. And an array that no memory could hold has elements.
"""

import re
from collections.abc import Iterator

import msgspec

_OUTSIDE = re.compile(rb'["{}\[\],]')
_NESTED = re.compile(rb'["{}\[\]]')
_INSIDE = re.compile(rb'["\\]')
_STRING = re.compile(rb'\s*("(?:[^"\\]++|\\.)*+")\s*:', re.DOTALL)
_SPACE = b" \t\r\n"
_text_decoder = msgspec.json.Decoder(str)


class ScanError(Exception):
    """The brackets, quotes and commas are not those of JSON."""


class ArrayScanner:
    """The elements of an array, whose bytes come in blocks.

    Attributes:
        pending: how many bytes of an element are held whose end was not seen yet.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._position = 0  # up to where it was looked at
        self._depth = 0
        self._in_string = False
        self._ended = False

    @property
    def pending(self) -> int:
        return len(self._data)

    def feed(self, block: bytes) -> list[bytes]:
        """Take a block; the elements that it completes.

        Raises:
            ScanError: it is no array, or there is more behind its end.
        """
        self._data += block
        elements: list[bytes] = []
        start = 0
        for place, character in self._tokens():
            if self._depth == 0:
                if self._ended:
                    raise ScanError("there is more behind the end of its array")
                if character != b"[" or self._data[:place].strip(_SPACE):
                    raise ScanError("it is no array of JSON")
                self._depth = 1
                start = place + 1
            elif character in b"{[":
                self._depth += 1
            elif character == b"," or self._depth == 1:
                element = bytes(self._data[start:place]).strip(_SPACE)
                start = place + 1
                if character != b",":
                    self._depth = 0
                    self._ended = True
                # Behind the last comma there may be nothing.
                if element or not self._ended:
                    elements.append(element)
            else:
                self._depth -= 1
        del self._data[:start]
        self._position -= start
        if self._ended and self._data.strip(_SPACE):
            raise ScanError("there is more behind the end of its array")
        return elements

    def finish(self) -> list[bytes]:
        """Check that the end of the bytes is behind the end of the array; no element is left.

        Raises:
            ScanError: it is not.
        """
        if not self._ended:
            raise ScanError("it ends inside of its array")
        return []

    def _tokens(self) -> Iterator[tuple[int, bytes]]:
        """Where brackets stand, and commas between elements. The depth changes meanwhile."""
        data = self._data
        while True:
            if self._in_string:
                found = _INSIDE.search(data, self._position)
                if found is None:
                    self._position = len(data)
                    return
                if found[0] == b"\\":
                    if found.end() == len(data):
                        self._position = found.start()
                        return
                    self._position = found.end() + 1
                    continue
                self._in_string = False
                self._position = found.end()
                continue
            found = (_OUTSIDE if self._depth == 1 else _NESTED).search(data, self._position)
            if found is None:
                self._position = len(data)
                return
            self._position = found.end()
            if found[0] == b'"':
                self._in_string = True
            else:
                yield found.start(), found[0]


def top_level(data: bytes) -> dict[str, bytes]:
    """The fields of an object, each with its value as it stands there. The last of a name counts.

    Raises:
        ScanError: it is no object.
    """
    data = data.strip(_SPACE)
    if not data.startswith(b"{") or not data.endswith(b"}"):
        raise ScanError("it is no object")
    scanner = ArrayScanner()
    # The members of an object are separated as the elements of an array are.
    members = scanner.feed(b"[" + data[1:-1] + b"]")
    scanner.finish()
    fields: dict[str, bytes] = {}
    for member in members:
        name = _STRING.match(member)
        if name is None:
            raise ScanError("it is no object")
        try:
            fields[_text_decoder.decode(name[1])] = member[name.end() :].strip(_SPACE)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # a name that nobody can ask for
    return fields
