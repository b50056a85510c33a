"""Several chats at once, each a task, and the end of all of them."""

from collections.abc import Callable, Sequence

import anyio
from rich.console import Group, RenderableType
from rich.text import Text

from ollama_sc import AbortError, AsyncClient, OllamaError
from ollama_sc.demo._panels import Chat, render
from ollama_sc.demo._stage import LOAD_SECONDS, Stage, tick
from ollama_sc.testing import FakeOllama

SUBJECTS = ("a lighthouse", "a lost key", "two rivers", "the last train", "a glass bee", "the moon")
SLOW_LOAD = 1.0  # seconds without a first part, after which the screen says why


async def show_chats(stage: Stage) -> None:
    """Stream several chats side by side, then abort all of them at once."""
    screen, client = stage.screen, stage.client
    screen.head(f"{len(SUBJECTS)} chats at once, each a task")
    chats = [Chat(subject) for subject in SUBJECTS]
    watch = _Watch(stage, chats)
    reason, count = "", 0
    before = consumers = 0.0
    with screen.live(watch.render) as draw:
        async with anyio.create_task_group() as tasks:
            for chat in chats:
                tasks.start_soon(_follow, chat, client, stage.server.chat_model)
            reason = await watch.until_over(draw)
            before = anyio.current_time()
            count = client.abort(reason)
        consumers = anyio.current_time() - before
    failed = [chat for chat in chats if chat.state == "failed"]
    for chat in failed:
        screen.show(f"The chat about {chat.subject} failed: {chat.text}", "red")
    if failed:
        stage.seen.append((False, f"{len(failed)} of {len(chats)} chats failed: see above"))
    _tell_how_many(stage, chats)
    if not count:
        screen.show("All chats had ended: there was nothing left to abort.")
        return
    many = "1 request" if count == 1 else f"{count} requests"
    screen.show(Text.assemble((f'client.abort("{reason}")', "bold"), f" ended {many}:"))
    if stage.server.fake is None:
        left = client.statistics()
        screen.item(
            f"after {_ms(consumers)} every consumer had its AbortError, and "
            f"{left.open - left.idle} connections were in use"
        )
        screen.item("(measured on this side: when the server sees it is not visible from here)")
        stage.seen.append((True, f"one call ended {many} in {_ms(consumers)}"))
        return
    server_saw = await _seconds_until_closed(stage.server.fake, before)
    screen.item(f"the server saw the last connection close after {server_saw}")
    screen.item(f"the last of the consumers had its AbortError after {_ms(consumers)}")
    stage.seen.append((True, f"one call ended {many}; the server saw it after {server_saw}"))


async def _follow(chat: Chat, client: AsyncClient, model: str) -> None:
    """Have a chat until it ends."""
    content = f"Write a very long story about {chat.subject}."
    try:
        async with await client.chat(
            model, [{"role": "user", "content": content}], stream=True
        ) as stream:
            chat.state = "streaming"
            async for part in stream:
                chat.text += part.message.thinking or part.message.content
                chat.parts += 1
        chat.state = "done"
    except AbortError:
        chat.state = "aborted"
    except OllamaError as error:
        chat.state = "failed"
        chat.text = str(error)
    finally:
        if chat.state in ("waiting", "streaming"):  # Ctrl-C
            chat.state = "cancelled"


class _Watch:
    """The chats on the screen, until it is time to abort them."""

    def __init__(self, stage: Stage, chats: Sequence[Chat]) -> None:
        self._stage = stage
        self._chats = chats
        self._start = anyio.current_time()
        self._began: float | None = None  # when the first part came
        self._queue_told = False

    @property
    def _end(self) -> float:
        if self._began is None:
            return self._start + LOAD_SECONDS
        return self._began + self._stage.seconds

    async def until_over(self, draw: Callable[[], None]) -> str:
        """Draw the chats until they have had their time, or a key ends them; returns the reason."""
        pressed = self._stage.keys.next_press()
        told = 0.0
        while (now := anyio.current_time()) < self._end:
            if self._began is None and any(chat.parts for chat in self._chats):
                self._began = now
            if not any(chat.state in ("waiting", "streaming") for chat in self._chats):
                break
            self._look_for_queue(now)
            # Silence is worth fewer lines than what happens.
            if now - self._start >= told + (1 if self._began is not None else 5):
                told = now - self._start
                counts = ", ".join(str(chat.parts) for chat in self._chats)
                self._stage.screen.note(f"after {told:.0f} s, parts of each chat: {counts}")
            draw()
            await tick(pressed)
            if pressed.is_set():
                break
        if pressed.is_set():
            return "a was pressed"
        return "enough" if self._began is not None else "no answer"

    def _look_for_queue(self, now: float) -> None:
        """Notice what waits although others are answered for a while."""
        if self._began is None or now < self._began + min(1.0, self._stage.seconds / 2):
            return
        for chat in self._chats:
            chat.queued = chat.state == "waiting"
        if not self._queue_told and (why := self._why_they_wait()):
            self._queue_told = True
            self._stage.screen.note(why)

    def _why_they_wait(self) -> str:
        """What it means that some wait; empty where none does."""
        waiting = sum(chat.queued for chat in self._chats)
        if not waiting:
            return ""
        answered = max(1, sum(chat.state == "streaming" for chat in self._chats))
        return (
            f"{waiting} of {len(self._chats)} wait in the server's queue: it answers {answered} "
            f"at a time. OLLAMA_NUM_PARALLEL={len(self._chats)}, set where it runs, lets it answer "
            "all."
        )

    def render(self) -> RenderableType:
        """Draw them."""
        now = self._stage.client.statistics()
        rows: list[RenderableType] = [
            render(self._chats, self._stage.screen.console),
            f"requests in flight: {now.in_flight}, open connections: {now.open}",
        ]
        if not any(chat.state in ("waiting", "streaming") for chat in self._chats):
            return Group(*rows)
        time = anyio.current_time()
        if self._began is None and time > self._start + SLOW_LOAD:
            rows.append(
                Text(
                    f"no first part for {time - self._start:.0f} s: "
                    f"the server may be loading {self._stage.server.chat_model}",
                    "yellow",
                )
            )
        elif why := self._why_they_wait():
            rows.append(Text(why, "yellow"))
        left = f"in {max(0, self._end - time):.0f} s"
        hint = self._stage.hint(f"abort all of them now (by itself {left})")
        return Group(*rows, Text(hint or f"client.abort() {left}", "bold"))


def _tell_how_many(stage: Stage, chats: Sequence[Chat]) -> None:
    """Keep for the end what the chats were."""
    streamed = sum(chat.parts > 0 for chat in chats)
    if queued := sum(chat.queued for chat in chats):
        why = f"for want of OLLAMA_NUM_PARALLEL={len(chats)}"
        text = f"{len(chats)} chats, each a task; {queued} waited in the server's queue, {why}"
    elif streamed > 1:
        text = f"{streamed} chats streamed side by side, each a task"
    else:
        text = f"{streamed} of {len(chats)} chats streamed"
    stage.seen.append((streamed > 0, text))


async def _seconds_until_closed(fake: FakeOllama, before: float) -> str:
    """Say how long after `before` the fake server saw the last chat's connection close."""
    chats = [request for request in fake.requests if request.path == "/api/chat"]
    with anyio.move_on_after(2):
        for request in chats:
            await request.wait_closed()
    times = [request.closed_at for request in chats if request.closed_at is not None]
    return _ms(max(times) - before) if len(times) == len(chats) else "more than 2 s"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
