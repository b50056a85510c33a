"""The name of its column in each cell of a table, for screens that have no room for columns.

`site.css` shows it there, and nowhere else. A row's first cell is its heading and has none; tables
of numbers stay tables.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def name_columns(app: Sphinx, doctree: nodes.document) -> None:
    """Put the text of a column's heading before the text of each of its cells."""
    del app
    for table in doctree.findall(nodes.table):
        head = next(table.findall(nodes.thead), None)
        if head is None or any(
            "text-right" in cell["classes"] for cell in table.findall(nodes.entry)
        ):
            continue
        names = [cell.astext() for cell in head.findall(nodes.entry)]
        for row in next(table.findall(nodes.tbody)).findall(nodes.row):
            cells = zip(names, row.findall(nodes.entry), strict=True)
            for name, cell in list(cells)[1:]:
                if name and cell.astext():
                    cell[0].insert(0, nodes.inline("", f"{name} ", classes=["column"]))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", name_columns)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
