"""Where Python runs: what is otherwise in a browser. It knows nothing of the others."""

from __future__ import annotations

import sys

# Browsers open so many connections to one server of HTTP/1.1, and hold further requests back.
BROWSER_CONNECTIONS = 6


def in_browser() -> bool:
    """Whether this is Pyodide: no sockets, no threads, and `fetch` instead.

    Asked when something is made or started, never while importing.
    """
    return sys.platform == "emscripten"
