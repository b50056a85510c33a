"""What users configure on httpx.

There is no ``from __future__ import annotations`` here, see `ollama_sc._fields`.
"""

import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import httpx

HeadersLike = Mapping[str, str | None] | Mapping[str, str] | Sequence[tuple[str, str | None]]


class HttpxOptions(TypedDict, total=False):
    """What `AsyncClient` passes on to httpx as it is; see httpx's documentation."""

    auth: Any
    cert: Any
    cookies: Any
    default_encoding: Any
    event_hooks: Mapping[str, list[Callable[..., Any]]]
    follow_redirects: bool
    http1: bool
    http2: bool
    max_redirects: int
    mounts: Mapping[str, httpx.AsyncBaseTransport | None]
    params: Any
    proxy: Any
    transport: httpx.AsyncBaseTransport
    trust_env: bool
    verify: ssl.SSLContext | str | bool
