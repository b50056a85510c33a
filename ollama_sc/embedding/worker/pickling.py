"""The embedders of a process: one copy of each that was pickled.

An engine may send an embedder with each of its tasks, and drop it after each. So a process keeps
references to the last ones that it unpickled: their event loops and connections stay open.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from hashlib import sha256
from typing import Any, Protocol
from weakref import WeakValueDictionary

_MAX_UNPICKLED = 8  # embedders to keep


class RegisteredEmbedder(Protocol):
    """The part of an `Embedder` that is used here."""

    _key: str | None
    _closed: bool


_by_key: WeakValueDictionary[str, RegisteredEmbedder] = WeakValueDictionary()  # those pickled
_unpickled: OrderedDict[str, RegisteredEmbedder] = OrderedDict()  # the last, by key


def forget(embedder: RegisteredEmbedder) -> None:
    """Drop the reference to an embedder that was closed."""
    key = embedder._key
    if key is not None and _unpickled.get(key) is embedder:
        del _unpickled[key]


def key_of(embedder: RegisteredEmbedder, arguments: dict[str, Any]) -> str:
    """The key of an embedder that is pickled: the same for the same arguments, in any process.

    Raises:
        Exception: what pickling the arguments raises.
    """
    key = sha256(pickle.dumps(arguments, protocol=4)).hexdigest()
    _by_key[key] = embedder
    return key


def unpickle(kind: type[Any], key: str, arguments: dict[str, Any]) -> RegisteredEmbedder:
    """The embedder of a key: the copy that this process has, unless it is closed, or a new one."""
    embedder = _by_key.get(key)
    if embedder is None or embedder._closed:
        new: RegisteredEmbedder = kind(**arguments)
        new._key = key
        embedder = _unpickled.setdefault(key, new)  # another thread may have been faster
        if embedder._closed:  # it was closed just after that
            embedder = new
        _by_key[key] = embedder
    _unpickled[key] = embedder
    _unpickled.move_to_end(key)
    while len(_unpickled) > _MAX_UNPICKLED:
        _unpickled.popitem(last=False)
    return embedder
