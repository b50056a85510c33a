"""All parts, one after the other, and how it ends."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager

import anyio
from rich.rule import Rule
from rich.text import Text

from ollama_sc import AsyncClient
from ollama_sc.demo._chats import show_chats
from ollama_sc.demo._keys import Keys
from ollama_sc.demo._options import PROGRAM, REFUSED, Options
from ollama_sc.demo._screen import Screen
from ollama_sc.demo._server import Refused, find_server
from ollama_sc.demo._signals import until_signal
from ollama_sc.demo._stage import Stage
from ollama_sc.demo._vectors import show_vectors

MAX_IN_FLIGHT = 8
_UNHEARD = 141  # as programs end that SIGPIPE ends


def run(options: Options) -> int:
    """Run the demo; returns its exit status."""
    screen = Screen()
    try:
        return anyio.run(_main, screen, options, backend=options.backend)
    except (BrokenPipeError, SystemExit):  # the latter is what rich makes of the former
        return _unheard()
    except BaseExceptionGroup as group:
        if group.split((BrokenPipeError, SystemExit))[1] is not None:
            raise
        return _unheard()


def _unheard() -> int:
    """Nobody reads what is printed, as in `... | head -3`."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - for its descriptor
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return _UNHEARD


async def _main(screen: Screen, options: Options) -> int:
    keys = _keys_of_stdin() if screen.is_live else Keys()  # else nothing says what they do
    refused: Refused | None = None

    @contextmanager
    def stopped() -> Generator[None]:
        with screen.left(), keys.as_before():
            yield

    async def work() -> None:
        nonlocal refused
        with keys.single():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(keys.listen)
                try:
                    await _show_all(screen, keys, options)
                except Refused as error:
                    refused = error
                tasks.cancel_scope.cancel()

    number = await until_signal(work, stopped)
    if refused is not None:
        print(f"{PROGRAM}: {refused}", file=sys.stderr)  # noqa: T201 - what a command does
        return REFUSED
    if number is not None:
        screen.show("\nStopped: every request has been ended.")
        return 128 + number
    if options.save_svg is not None:
        try:
            screen.save_svg(options.save_svg)
        except OSError as error:
            print(f"{PROGRAM}: {error}", file=sys.stderr)  # noqa: T201
            return 1
    return 0


async def _show_all(screen: Screen, keys: Keys, options: Options) -> None:
    title = Text(f"ollama-sc on {options.backend}", "bold")
    screen.show(Rule(title, characters="=", style="cyan"))
    async with find_server(screen, options) as server:
        async with AsyncClient(server.url, max_in_flight=MAX_IN_FLIGHT) as client:
            stage = Stage(screen, keys, server, client, options.seconds)
            await show_chats(stage)
            await show_vectors(stage, options.texts)
        end = client.statistics()
    screen.head("what you saw")
    left = f"requests in flight: {end.in_flight}, open connections: {end.open}"
    for good, text in [*stage.seen, (end.in_flight == end.open == 0, f"left behind: {left}")]:
        screen.conclude(text, good=good)


def _keys_of_stdin() -> Keys:
    """What reads the terminal that stdin is, if it is one."""
    try:
        number = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # closed, or replaced
        return Keys()
    if sys.platform == "win32" or not os.isatty(number):
        return Keys()
    from ollama_sc.demo._terminal import TerminalKeys  # noqa: PLC0415 - needs termios

    return TerminalKeys(number)
