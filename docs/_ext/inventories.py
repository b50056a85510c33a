"""Where other projects document what this one's docstrings name, without asking them.

`inventories/NAME.txt` has the site's address in its first line, and then a line for each object:
its name, its role and its page. What Sphinx reads is made of that.
"""

import zlib
from pathlib import Path

HEAD = "# Sphinx inventory version 2\n# Project: {name}\n# Version: 0\n"
HEAD += "# The remainder of this file is compressed using zlib.\n"


def written(folder: Path, out: Path) -> dict[str, tuple[str, str]]:
    """Write the inventories of a folder as Sphinx has them; the value of `intersphinx_mapping`."""
    out.mkdir(exist_ok=True)
    mapping: dict[str, tuple[str, str]] = {}
    for path in sorted(folder.glob("*.txt")):
        address, *lines = path.read_text(encoding="utf-8").splitlines()
        objects = [line.split() for line in lines if line]
        body = "".join(f"{name} {role} 1 {page} -\n" for name, role, page in objects)
        inventory = out / f"{path.stem}.inv"
        head = HEAD.format(name=path.stem).encode()
        inventory.write_bytes(head + zlib.compress(body.encode()))
        mapping[path.stem] = (address, str(inventory))
    return mapping
