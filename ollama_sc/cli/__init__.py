"""The command `ollama-sc`.

It stands on the public library: a reader of rows (`_inputs`, `_lines`, `_parquet`), `embed_many`,
and shards that are written as a whole (`_shards`, `_folder`, `_manifest`), joined in `_job`.
Nothing else in this library may import it.
"""

import signal
import sys
import traceback
from collections.abc import Sequence
from importlib.util import find_spec

from ollama_sc.cli._stderr import unheard

_NEEDED = ("cyclopts", "rich", "numpy", "pyarrow", "stamina")  # the extra `cli`
_REFUSED, _STOPPED = 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status.

    Args:
        arguments: those behind the command's name; None takes those of the process.
    """
    with unheard():
        return _main(sys.argv[1:] if arguments is None else arguments)


def _main(arguments: Sequence[str]) -> int:
    if sys.platform == "win32":
        return _refuse("it needs a system with POSIX file locks, such as Linux or macOS")
    try:
        for package in _NEEDED:
            if find_spec(package) is None:
                return _refuse(f"{package} is missing: pip install 'ollama-sc[cli]'")
        from ollama_sc.cli._app import run  # noqa: PLC0415 - what it needs is an extra

        return run(arguments)
    except KeyboardInterrupt:  # before anything was open
        return 128 + signal.SIGINT
    except Exception:  # noqa: BLE001 - a mistake of this program; Python's own status is 1
        traceback.print_exc()
        return _STOPPED


def _refuse(text: str) -> int:
    print(f"ollama-sc: {text}", file=sys.stderr)  # noqa: T201 - what a command does
    return _REFUSED
