"""Installs what the tests in a browser need: Chromium by apt, Pyodide by npm, wheels by pip.

    python tests/browser/install.py FOLDER

It asks for nothing that is there already. What cannot be had makes it say so, and exit with 69
(EX_UNAVAILABLE): that is no failure of the tests. Standard library alone, but for pip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

UNAVAILABLE = 69
PYODIDE = "314.0.7"
# What that Pyodide loads: the tags of its wheels, newest first.
PLATFORM = "pyemscripten_2026_0_wasm32"
PYTHON = "3.14"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# What installs packages in the page itself, and what it needs.
INSTALLER = ["micropip", "packaging"]
ROOT = Path(__file__).parents[2]


def unavailable(what: str) -> SystemExit:
    print(f"the tests in a browser cannot run here: {what}", file=sys.stderr)
    return SystemExit(UNAVAILABLE)


def run(*command: str | Path, what: str, cwd: Path | None = None) -> None:
    """Run a command, whose output is shown if it fails."""
    done = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        print(done.stdout[-4000:], file=sys.stderr)
        raise unavailable(f"{what} failed")


def chromium() -> str | None:
    """Where Chromium is, if it is there."""
    return next((found for name in CHROMIUM if (found := shutil.which(name))), None)


def install_by_apt(package: str) -> None:
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise unavailable(f"there is no {package}, and no apt-get for us to install it with")
    print(f"==> apt-get install {package}", flush=True)
    environment = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"]
    run(*environment, "update", what="apt-get update")
    run(*environment, "install", "--no-install-recommends", package, what=f"installing {package}")


def requirements() -> list[str]:
    """What the package needs in a browser, by its own metadata, with retries for jobs."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["jobs"]]
    there = {
        "sys_platform": "emscripten",
        "platform_system": "Emscripten",
        "python_version": PYTHON,
        "python_full_version": f"{PYTHON}.0",
        "implementation_name": "cpython",
        "extra": "",
    }
    parsed = map(Requirement, wanted)
    names = [one for one in parsed if one.marker is None or one.marker.evaluate(there)]
    return [f"{one.name}{one.specifier}" for one in names]


def install(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    if chromium() is None:
        install_by_apt("chromium")
    if shutil.which("npm") is None:
        install_by_apt("npm")
    if not (folder / "node_modules" / "pyodide" / "pyodide.asm.wasm").exists():
        print(f"==> npm install pyodide@{PYODIDE}", flush=True)
        words = ["npm", "install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund"]
        run(*words, "--prefix", folder, f"pyodide@{PYODIDE}", what="npm install", cwd=folder)
    wheels = folder / "wheels"
    wanted = [*requirements(), *INSTALLER]
    listed = "\n".join(wanted)
    stamp = folder / "wheels.txt"
    if not stamp.exists() or stamp.read_text() != listed:
        print("==> pip download, of wheels for a browser", flush=True)
        shutil.rmtree(wheels, ignore_errors=True)
        run(
            sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet",
            "--platform", PLATFORM, "--python-version", PYTHON, "--abi", "cp314", "--abi", "none",
            "--only-binary", ":all:", "--dest", wheels, *wanted,
            what="pip download",
        )  # fmt: skip
        stamp.write_text(listed)


if __name__ == "__main__":
    install(Path(sys.argv[1]).resolve())
