"""`docs/compatibility.md`: every name of the official libraries, and what it is here.

It is made from the installed packages, and fails where one of them has a name that nobody has said
anything about: ``WRITE_COMPATIBILITY=1 pytest tests/docs/test_compatibility.py`` writes it.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import cache
from importlib.metadata import version

import ollama
import pytest

from tests.docs.compatibility import peers, verdicts
from tests.docs.compatibility.peers import Entry
from tests.docs.compatibility.verdicts import Verdict
from tests.support import ROOT

WRITTEN = ROOT / "docs" / "compatibility.md"
HEAD = """# Every name of the official libraries

Made by a test from the packages themselves: ollama-python {python}, and the declarations of ollama-js.
Each public name, method, parameter and field is one of these:

- *same*: a program that has it need not change it. Defaults of `None`, `''` and `False` are the same
  where they mean that nothing is sent.
- *differs*: it is there under its name; the row says what is not the same.
- *renamed*: it has another name here.
- *absent*: it is not there; the row says what to write.

{counts}. [Coming from them](migration.md) has the edits for whole
programs.
`AsyncClient` has the calls of `Client`, in both libraries.
"""
SECTIONS = {
    "ollama": "The module",
    "Clients": "The arguments of a client",
    "Calls": "Calls",
    "Objects": "Objects and errors",
    "ollama-js": "ollama-js",
}


@cache
def rows() -> list[tuple[Entry, Verdict | None]]:
    entries = [*peers.ollama_python(), *peers.ollama_js()]
    return [(entry, verdicts.of(entry)) for entry in entries]


def document() -> str:
    counted = Counter(verdict.word for _, verdict in rows() if verdict is not None)
    counts = ", ".join(f"{number} {word}" for word, number in counted.most_common())
    parts = [HEAD.format(python=version("ollama"), counts=f"{len(rows())} names: {counts}")]
    for section, title in SECTIONS.items():
        lines = [f"## {title}", "", "| there | here | |", "| --- | --- | --- |"]
        for entry, verdict in rows():
            if entry.section == section and verdict is not None:
                default = f" = {entry.default}" if entry.default else ""
                shown = entry.name.removeprefix("JS: ") + default
                lines.append(f"| `{shown}` | {verdict.word} | {verdict.text} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def test_every_name_has_a_verdict() -> None:
    """A name that is new in one of them is the same here, or a rule says what it is and why."""
    assert [entry.name for entry, verdict in rows() if verdict is None] == []


def test_each_rule_is_about_something() -> None:
    """None is left from a name that is gone, or is the same by now; each has a reason."""
    used = {verdict.rule for _, verdict in rows() if verdict is not None}
    assert [rule.names for rule in verdicts.RULES if rule not in used] == []
    assert all(len(rule.text) > 5 for rule in verdicts.RULES)


def test_the_table_is_written_down() -> None:
    """`docs/compatibility.md` is what the packages and the rules give now."""
    text = document()
    if os.environ.get("WRITE_COMPATIBILITY"):
        WRITTEN.write_text(text)
    assert WRITTEN.read_text() == text, (
        "WRITE_COMPATIBILITY=1 pytest tests/docs/test_compatibility.py"
    )


def test_the_recorded_declarations_are_those_of_the_package() -> None:
    """Where ollama-js is installed (`make bench` does that), what is recorded of it is all of it."""
    if not peers.INSTALLED.is_dir():
        assert len(peers.RECORDED.read_text()) > 1000  # what counts where there is no Node
        return
    assert peers.declared() == __import__("json").loads(peers.RECORDED.read_text())


def test_these_tests_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new function, parameter, field or other default is noticed."""
    new = [
        Entry("ollama", "ollama.new_function"),
        Entry("Clients", "Client(new_argument)", "None"),
        Entry("Objects", "ChatResponse.new_field", "None"),
        Entry("Objects", "Message.role2"),
        Entry("ollama-js", "JS: Message.new_field"),
        Entry("ollama-js", "JS: NewThing"),
        Entry("Calls", "Client.new_call()"),
        Entry("Calls", "Client.new_call(model)", "''", 0),
        Entry("Calls", "Client.chat(new)", "None", 9),
        Entry("Calls", "Client.chat(new)", "None"),
        Entry("Calls", "AsyncClient.create(new)", "None"),
        Entry("Calls", "Client.new_call(max_results)", "3"),
        Entry("Objects", "Options.new_field", "None"),
        Entry("Objects", "EmbedResponse.new_field", "None"),
        Entry("Objects", "ListResponse.status", "None"),
        Entry("Objects", "ChatResponse.new_method()"),
        Entry("ollama-js", "JS: Options.new_field"),
        Entry("ollama-js", "JS: NewRequest"),
        Entry("ollama-js", "JS: Config.new_field"),
    ]
    assert [verdicts.of(entry) for entry in new] == [None] * len(new)
    monkeypatch.setattr(ollama.Client, "new_property", property(len), raising=False)
    monkeypatch.setattr(ollama.ChatResponse, "new_method", lambda self: None, raising=False)
    monkeypatch.setattr(ollama.Message, "new_property", property(len), raising=False)
    monkeypatch.setattr(ollama.ResponseError, "new_property", property(len), raising=False)
    assert {entry.name for entry in peers.ollama_python() if verdicts.of(entry) is None} == {
        "Client.new_property()",
        "ChatResponse.new_method()",
        "Message.new_property()",
        "ResponseError.new_property()",
    }
    call = Entry("Calls", "Client.show()")
    assert verdicts.of(call) == Verdict("same")
    assert verdicts.same(Entry("Calls", "Client.generate(prompt)", "None", 1))
    assert not verdicts.same(Entry("Calls", "Client.generate(prompt)", "'a default'", 1))
    assert not verdicts.same(Entry("Calls", "Client.generate(new)", "None"))
