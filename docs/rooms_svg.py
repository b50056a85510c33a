"""Make docs/architecture.svg: the rooms, the way of a streamed chat through them, and of an abort.

python docs/rooms_svg.py
"""

from pathlib import Path
from typing import NamedTuple

import svg_style

TITLE = (
    "The rooms of the library from top to bottom, with the way of a streamed chat down through "
    "them to the server and back up to the consumer, and the way of an abort."
)
FULL = 360


class Room(NamedTuple):
    """A box: names, their subject, and what happens there; letters are the steps of an abort."""

    names: list[str]
    subject: str = ""
    steps: tuple[str, ...] = ()
    width: int = FULL


# From the top; what stands in one row knows nothing of its neighbours.
ROWS = [
    [
        Room(
            ["embedding/ · blocking/ · starlette", "telemetry/ · cli/ · demo/"],
            "other doors to the same calls",
        )
    ],
    [
        Room(
            ["_client.py"],
            "AsyncClient, Group: opening and closing",
            ("1  chat(..., stream=True)", "A  abort()"),
        )
    ],
    [Room(["_jobs/ · _tools/"], "many texts into vectors; functions that models call")],
    [
        Room(
            ["_api/"],
            "methods, fields, checks, Stream",
            ("2  checks the fields, encodes the body", "8  the Stream hands out part by part"),
        )
    ],
    [
        Room(
            ["_http/"],
            "the wire",
            (
                "4  takes a connection, sends, reads the head",
                "6  one read of the socket is one block",
            ),
        )
    ],
    [
        Room(["_replies/"], "into objects", ("7  parts of it",), width=108),
        Room(["_worker/"], "threads", width=92),
        Room(["_calls/"], "scope, outcome", ("3  starts a task", "B  ends its scope"), width=144),
    ],
    [Room(["_loop/ · types/ · _schemas/", "_errors · _timeouts · _platform"])],
]
SERVER = Room(
    ["the server"],
    "HTTP/1.1",
    ("5  runs the model, token by token", "C  its connection closes: it stops"),
)
LEFT, LINE, GAP, EDGE = 40, 17, 8, 8


def height_of(row: list[Room]) -> int:
    return 12 + LINE * max(len(room.names) + bool(room.subject) + len(room.steps) for room in row)


def box(room: Room, x: int, y: int, height: int, kind: str = "box") -> list[str]:
    """A room as a box, with a line of text for each thing."""
    lines = [("code", name) for name in room.names]
    lines += [("small", room.subject)] if room.subject else []
    lines += [("red" if step[0].isalpha() else "green", step) for step in room.steps]
    parts = [
        f'<rect class="{kind}" x="{x}" y="{y}" width="{room.width}" height="{height}" rx="8"/>'
    ]
    for number, (style, text) in enumerate(lines):
        down = y + 19 + LINE * number
        parts.append(
            f'<text class="{style}" xml:space="preserve" x="{x + 10}" y="{down}">{text}</text>'
        )
    return parts


def arrow(points: list[tuple[int, int]], style: str) -> str:
    """A line along some points, with a head where it ends, which is level."""
    (x, y), before = points[-1], points[-2]
    back = 6 if x < before[0] else -6
    way = " L".join(f"{a} {b}" for a, b in points)
    head_style = style.partition(" ")[0]
    head = f"M{x + back} {y - 4} L{x} {y} L{x + back} {y + 4}"
    return f'<path class="{style}" d="M{way}"/><path class="{head_style}" d="{head}"/>'


def drawn() -> str:
    """The picture."""
    body: list[str] = []
    tops: list[int] = []
    y = EDGE
    for row in ROWS:
        tops.append(y)
        x = LEFT
        for room in row:
            body += box(room, x, y, height_of(row))
            x += room.width + GAP
        y += height_of(row) + GAP
    server = y + 20
    height = height_of([SERVER])
    body += box(SERVER, LEFT, server, height, "server")
    right = LEFT + FULL
    client, api, replies = tops[1] + 30, tops[3] + 40, tops[5] + 30
    body += [
        arrow([(LEFT, client), (12, client), (12, server + 50), (LEFT, server + 50)], "green-line"),
        arrow(
            [(LEFT, server + 30), (26, server + 30), (26, api), (LEFT, api)], "green-line dashed"
        ),
        arrow([(26, replies), (LEFT, replies)], "green-line"),
        arrow([(right, client), (428, client), (428, replies), (right, replies)], "red-line"),
        arrow([(428, replies), (428, server + 50), (right, server + 50)], "red-line"),
    ]
    return svg_style.picture(server + height + EDGE, TITLE, body)


def main() -> None:
    """Write it."""
    Path(__file__).with_name("architecture.svg").write_text(drawn(), encoding="utf-8")


if __name__ == "__main__":
    main()
