"""docs/reliability.md and docs/contract.md name tests that there are, in the files that they name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import ROOT

PAGES = ("reliability", "contract")
NAMED = re.compile(r"`([\w/]*\.py)?(?:::(\w+))?(?:\[.*?\])?`")


def rows() -> Iterator[Any]:
    """Each row of the tables, with the file that the rows above it named last in their section."""
    for page in PAGES:
        file = ""
        for line in (ROOT / "docs" / f"{page}.md").read_text().splitlines():
            if line.startswith("#"):
                file = ""
            if not line.startswith("|") or line.startswith(
                ("| fault |", "| it holds that |", "|---")
            ):
                continue
            yield pytest.param(line, file, id=f"{page}-{line[2:40]}")
            files = [path for path, _ in NAMED.findall(line.rsplit("|", 2)[1]) if path]
            file = files[-1] if files else file


@pytest.mark.parametrize(("row", "file"), list(rows()))
def test_each_row_names_its_test(row: str, file: str) -> None:
    """Each fault has a test; one without a file is in the last file that was named."""
    named = NAMED.findall(row.rsplit("|", 2)[1])
    assert "the same" in row or any(path or function for path, function in named), row
    for path, function in named:
        file = path or file
        assert (ROOT / file).is_file(), row
        if function:
            assert f"def {function}(" in (ROOT / file).read_text(), (file, function)
