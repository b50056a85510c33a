"""What the first bytes of a file tell about it, and lines out of blocks. No I/O."""

from ollama_sc.cli._compression import HEAD_BYTES, BadStreamError, Unpacker, compression_of
from ollama_sc.cli._errors import Refused

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PARQUET = b"PAR1"  # the first bytes, and the last ones
_SPACE = b" \t\r\n"
_UTF16 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")  # the last one is of UTF-32
TOLD_BYTES = 4  # as many as tell an encoding
_SAMPLE_BYTES = 256


def unpacked(head: bytes) -> bytes:
    """The start of a file's content, given the start of the file."""
    name = compression_of(head[:HEAD_BYTES])
    if name is None:
        return head
    unpacker = Unpacker(name)
    unpacker.feed(head)
    try:
        return unpacker.next_piece()
    except BadStreamError:  # said where it is read
        return b""


def check_encoding(content: bytes, name: str) -> None:
    """Check that text begins like UTF-8.

    Raises:
        Refused: it is UTF-16 or UTF-32.
    """
    if content.startswith(_UTF16) or _has_zeros(content[:_SAMPLE_BYTES]):
        raise Refused(
            f"{name} is UTF-16 or UTF-32, not UTF-8: convert it, such as by "
            "iconv -f UTF-16 -t UTF-8"
        )


def _has_zeros(sample: bytes) -> bool:
    """Whether most of every second byte is zero, as where UTF-16 has ASCII, and others are not."""
    counts = [sample[start::2].count(0) for start in (0, 1)]
    most, least = max(counts), min(counts)
    return len(sample) >= TOLD_BYTES and 3 * most > len(sample) and least <= most // 2


def is_array(content: bytes) -> bool | None:
    """Whether content begins like an array of JSON; None where there is nothing but space."""
    rest = content.removeprefix(BYTE_ORDER_MARK).lstrip(_SPACE)
    return rest.startswith(b"[") if rest else None


class LineScanner:
    r"""The lines of content that comes in blocks, without their `\n`, which the last may lack.

    Attributes:
        pending: how many bytes of a line are held whose end was not seen yet.
    """

    def __init__(self) -> None:
        self._partial: list[bytes] = []
        self.pending = 0

    def feed(self, block: bytes) -> list[bytes]:
        """Take a block; the lines that it completes."""
        lines = block.split(b"\n")
        self._partial.append(lines[0])
        self.pending += len(lines[0])
        if len(lines) == 1:
            return []
        lines[0] = b"".join(self._partial)
        last = lines.pop()
        self._partial = [last] if last else []
        self.pending = len(last)
        return lines

    def finish(self) -> list[bytes]:
        """The last line, where it has no end."""
        line, self._partial = b"".join(self._partial), []
        return [line] if line else []
