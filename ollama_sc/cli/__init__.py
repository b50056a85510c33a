"""The command `ollama-sc`.

It is built on the library: readers of rows (`_inputs`, `_lines`, `_parquet`), the jobs of
`embed_many`, and shards that are replaced atomically (`_shards`, `_folder`, `_manifest`), put
together in `_job`. What it prints goes through `_shown`. Nothing else in this library may import
it.
"""

import signal
import sys
import traceback
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from ollama_sc.cli._stderr import ignore_stderr_errors

_REQUIRED_PACKAGES = ["cyclopts", "rich", "numpy", "pyarrow", "stamina"]  # the extra `cli`
if sys.version_info < (3, 14):
    _REQUIRED_PACKAGES.append("backports.zstd")
_REFUSED, _STOPPED = 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status.

    Args:
        arguments: without the command's name; None takes those of the process.
    """
    with ignore_stderr_errors(), _without_pandas():
        return _main(sys.argv[1:] if arguments is None else arguments)


class _NoPandas:
    """Finds no pandas, for `import`: the command has no use for it.

    Where it is installed, pyarrow imports it to see whether a list is one of its frames. That takes
    a second or two, and comes when the first shard is written: maybe after Ctrl-C.
    """

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """See `importlib.abc.MetaPathFinder`."""
        del path, target
        if name == "pandas":
            raise ModuleNotFoundError("the command goes without pandas", name=name)


@contextmanager
def _without_pandas() -> Generator[None]:
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def _main(arguments: Sequence[str]) -> int:
    if sys.platform == "win32":
        return _refuse("it needs a system with POSIX file locks, such as Linux or macOS")
    try:
        for package in _REQUIRED_PACKAGES:
            if _is_missing(package):
                return _refuse(f"{package} is missing: pip install 'ollama-sc[cli]'")
        from ollama_sc.cli._app import run  # noqa: PLC0415 - its imports are an extra

        return run(arguments)
    except KeyboardInterrupt:  # before the job handles signals
        return 128 + signal.SIGINT
    except Exception:  # noqa: BLE001 - a bug of this program; Python's own status would be 1
        from ollama_sc.cli._shown import Secrets, print_error  # noqa: PLC0415 - see above

        print_error(traceback.format_exc().rstrip(), Secrets.of_arguments(arguments))
        return _STOPPED


def _is_missing(package: str) -> bool:
    try:
        return find_spec(package) is None
    except ModuleNotFoundError:  # not even the package that it is in
        return True


def _refuse(text: str) -> int:
    print(f"ollama-sc: {text}", file=sys.stderr)  # noqa: T201 - what a command does
    return _REFUSED
