"""Shielded waits: for what has to be over before its caller's cancellation goes on.

This module knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from .primitives import Scope

# The longest shielded wait for a cancelled call. Closing a connection takes microseconds; the limit
# is for what nobody foresaw.
CLEANUP_SECONDS = 5.0


def _shield(seconds: float) -> Scope:
    return anyio.move_on_after(seconds, shield=True)


async def wait_shielded(
    wait: Callable[[], Awaitable[object]],
    seconds: float,
    shield: Callable[[float], Scope] = _shield,
) -> None:
    """Wait under a shield, at most so many seconds.

    asyncio's own cancellation goes through every shield: it is held back, and raised in the end.
    `shield` makes the scope; one of a `Runtime` costs the least.
    """
    held_back: BaseException | None = None
    scope = shield(seconds)
    with scope:
        while True:
            try:
                await wait()
            except anyio.get_cancelled_exc_class() as error:
                if scope.cancel_called:
                    raise
                held_back = error
            else:
                break
    if held_back is not None:
        try:
            raise held_back
        finally:
            del held_back


async def aclose_on_exit(close: Callable[[], Awaitable[object]], exc: BaseException | None) -> None:
    """Close in an ``__aexit__``, to which the body's exception came.

    A native cancellation of asyncio that arrives meanwhile does not replace that exception.
    """
    try:
        await close()
    except anyio.get_cancelled_exc_class():
        if exc is None:
            raise
