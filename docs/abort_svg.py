"""Make docs/abort.svg: who sees an abort, and when.

python docs/abort_svg.py
"""

import time
from pathlib import Path

import anyio
import svg_style

from ollama_sc import AbortError, AsyncClient
from ollama_sc.testing import FakeOllama

STREAMS, RUNS = 6, 21
LEFT, RIGHT, TOP, LANE = 72, 424, 90, 28
TITLE = (
    "A time line: abort is called and returns; each reader gets its AbortError, and the server "
    "sees each connection closed."
)


async def measure(fake: FakeOllama) -> tuple[float, list[float], list[float], int]:
    """Milliseconds from the call of `abort` to its return, each reader's error, each closing."""
    heard: dict[int, float] = {}

    async def read(number: int, client: AsyncClient) -> None:
        try:
            async with await client.generate("llama3.2", f"{number}", stream=True) as stream:
                async for _ in stream:
                    heard.setdefault(number, 0.0)
        except AbortError:
            heard[number] = time.monotonic()

    async with AsyncClient(fake.url) as client:
        async with anyio.create_task_group() as tasks:
            for number in range(STREAMS):
                tasks.start_soon(read, number, client)
            while len(heard) < STREAMS:
                await anyio.sleep(0.01)
            start = time.monotonic()
            count = client.abort("enough")
            returned = time.monotonic()
        await fake.wait_all_closed()
    closed = {request.json["prompt"]: request.closed_at or start for request in fake.requests}
    fake.requests.clear()
    order = range(STREAMS)
    return (
        (returned - start) * 1000,
        [(heard[number] - start) * 1000 for number in order],
        [(closed[str(number)] - start) * 1000 for number in order],
        count,
    )


def drawn(returned: float, heard: list[float], closed: list[float], count: int) -> str:
    """The picture."""
    longest = max(*heard, *closed) * 1.1
    before = 0.2 * longest
    scale = (RIGHT - LEFT) / (longest + before)

    def x(moment: float) -> float:
        return round(LEFT + (moment + before) * scale, 1)

    bottom = TOP + LANE * STREAMS
    said = (
        f"milliseconds: abort returned after {returned:.2f}, the last",
        f"reader heard after {max(heard):.2f}, the server after {max(closed):.2f}",
    )
    parts = [
        f'<text class="title" x="12" y="24">client.abort("enough") ended {count} streams</text>',
        f'<text class="small" x="12" y="44">{said[0]}</text>',
        f'<text class="small" x="12" y="60">{said[1]}</text>',
        f'<line class="red-line" x1="{x(0)}" y1="{TOP - 14}" x2="{x(0)}" y2="{bottom}"/>',
        f'<text class="red" x="{x(0) + 6}" y="{TOP - 4}">abort()</text>',
    ]
    for number in range(STREAMS):
        y = TOP + LANE * number + LANE // 2
        ends = max(heard[number], closed[number])
        parts += [
            f'<text class="small" x="12" y="{y + 4}">stream {number + 1}</text>',
            f'<line class="blue-line" x1="{LEFT}" y1="{y}" x2="{x(0)}" y2="{y}" stroke-width="8"/>',
            f'<line class="blue-line" x1="{x(0)}" y1="{y}" x2="{x(ends)}" y2="{y}" '
            'stroke-width="2" stroke-dasharray="3 3"/>',
            f'<circle class="red" cx="{x(heard[number])}" cy="{y}" r="6"/>',
            f'<rect class="green-line" x="{x(closed[number]) - 6:.1f}" y="{y - 6}" '
            'width="12" height="12"/>',
        ]
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if longest / s < 8)
    parts += [
        f'<text class="small" x="{x(number * step)}" y="{bottom + 16}" text-anchor="middle">'
        f"{number * step:g}</text>"
        for number in range(int(longest / step) + 1)
    ]
    y = bottom + 42
    parts += [
        f'<line class="blue-line" x1="12" y1="{y}" x2="40" y2="{y}" stroke-width="8"/>',
        f'<text x="52" y="{y + 4}">parts arrive</text>',
        f'<circle class="red" cx="26" cy="{y + 22}" r="6"/>',
        f'<text x="52" y="{y + 26}">its reader gets AbortError; its connection is closed</text>',
        f'<rect class="green-line" x="20" y="{y + 38}" width="12" height="12"/>',
        f'<text x="52" y="{y + 48}">the server sees the connection closed</text>',
    ]
    return svg_style.picture(y + 64, TITLE, parts)


def main() -> None:
    """Measure it against the fake server, in a thread of its own, and draw the middle run."""
    with FakeOllama(token_rate=50, tokens=10_000, parallel=STREAMS) as fake:
        runs = [anyio.run(measure, fake) for _ in range(RUNS)]
    runs.sort(key=lambda run: max(*run[1], *run[2]))
    picture = drawn(*runs[RUNS // 2])
    Path(__file__).with_name("abort.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
