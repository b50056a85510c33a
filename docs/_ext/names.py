"""What docstrings and annotations call things by, and where that leads.

A docstring says `Stream` or `abort` in single backticks, as one does who speaks of the module. A
class, and what has a dot in it, must be found: in the reference or in another project's. All else,
such as an argument, leads to its page where there is one, and is code otherwise.

Annotations have the short names of the source. Private names and type variables in them are text.
"""

import collections.abc
import importlib
import re
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxRole
from sphinx.util.nodes import make_refnode

from ollama_sc._api.field_texts import texts_of

PACKAGES = ("ollama_sc", "ollama_sc.types", "ollama_sc.blocking", "ollama_sc.embedding")
PACKAGES += ("ollama_sc.testing", "ollama_sc.starlette", "ollama_sc.telemetry")
ELSEWHERE = {
    "AbstractContextManager": "contextlib.AbstractContextManager",
    "AbstractAsyncContextManager": "contextlib.AbstractAsyncContextManager",
    "BusyResourceError": "anyio.BusyResourceError",
    "MockClock": "trio.testing.MockClock",
    "Path": "pathlib.Path",
    "PathLike": "os.PathLike",
    "SSLContext": "ssl.SSLContext",
    "Timeout": "httpx.Timeout",
    "TracebackType": "types.TracebackType",
    "array": "array.array",
    "datetime": "datetime.datetime",
    "timedelta": "datetime.timedelta",
    **{name: f"collections.abc.{name}" for name in collections.abc.__all__},
    **{name: f"typing.{name}" for name in ("Any", "Literal", "NamedTuple", "Self", "TypedDict")},
}
# What annotations hold of packages whose sites have no page for it here, and of the library's own
# that nobody has to name: type variables, aliases, rooms.
PLAIN = re.compile(
    r"(?:ollama_sc\.\w+\.)?[A-Z]\w?|ollama_sc(?:\.\w+)*\._\w[\w.]*|HTTPException|Required"
    r"|(?:numpy|np|npt|httpx|starlette|opentelemetry|trace|metrics|pandas|pyarrow)\b.*"
)
ALIASES = {"Approve", "ArrowTable", "AsyncBatches", "BaseClient", "Bridge", "Column", "Format"}
ALIASES |= {"Frame", "HeadersLike", "HttpxOptions", "JSONSchema", "Output", "PolarsFrame"}
ALIASES |= {"ProgressCallback", "RunCall", "StreamCall", "Texts", "ThinkLevel", "Trim", "TypeForm"}
ALIASES |= {"Unpack", "UploadSource", "Vectors", "Verdict", "Worker"}


@cache
def public() -> dict[str, str]:
    """Short names to the names that they are documented by; the first package wins."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        for name in importlib.import_module(package).__all__:
            found.setdefault(name, f"{package}.{name}")
    return found


class NameRole(SphinxRole):
    """`name`, in a docstring."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        target = self.text.removesuffix("()")
        literal = nodes.literal(self.rawtext, self.text)
        if not re.fullmatch(r"[\w.]+", target):
            return [literal], []
        reference = addnodes.pending_xref(
            self.rawtext,
            literal,
            refdomain="",
            reftype="name",
            reftarget=target,
            refwarn=True,
            refdoc=self.env.docname,
        )
        for key in ("py:module", "py:class"):
            reference[key] = self.env.ref_context.get(key)
        self.set_source_info(reference)
        return [reference], []


def take_over(app: Sphinx, doctree: nodes.document) -> None:
    """Have annotations found by the same rules as names in docstrings."""
    del app
    for node in doctree.findall(addnodes.pending_xref):
        if node.get("refdomain") == "py":
            node["refdomain"] = ""


def call_attributes_so(app: Sphinx, doctree: nodes.document) -> None:
    """What Sphinx heads "Variables" are attributes, or the fields of a dictionary."""
    del app
    for name in doctree.findall(nodes.field_name):
        if name.astext() == "Variables":
            name.children = [nodes.Text("Attributes")]


def candidates(node: addnodes.pending_xref) -> Iterator[str]:
    """The full names that a name may stand for, the nearest first."""
    target = node["reftarget"]
    module, cls = node.get("py:module") or "", node.get("py:class") or ""
    if cls:
        yield f"{module}.{cls}.{target}"
    if module:
        yield f"{module}.{target}"
    yield target
    head, dot, rest = target.partition(".")
    if head in public():
        yield f"{public()[head]}{dot}{rest}"
    last = target.rpartition(".")[2]
    if (
        target.startswith(("ollama_sc.", "typing.", "collections.", "pathlib."))
        and last in public()
    ):
        yield public()[last]
    blocking = module == "ollama_sc.blocking" or cls == "Client" or (module and not cls)
    yield f"ollama_sc.{'Client' if blocking else 'AsyncClient'}.{target}"
    yield f"ollama_sc.AsyncClient.{target}"
    yield ELSEWHERE.get(last, target)


def resolve(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Where a name leads."""
    if node.get("refdomain"):
        return None
    objects = env.domains["py"].objects  # type: ignore[attr-defined]
    for name in candidates(node):
        owner, _, attribute = name.rpartition(".")
        place = name if name in objects else owner if has_field(owner, attribute) else ""
        if place in objects:
            found = objects[place]
            here = node["refdoc"]
            return make_refnode(app.builder, here, found.docname, found.node_id, content, place)
        elsewhere = in_inventories(env, name, content)
        if elsewhere is not None:
            return elsewhere
    target = node["reftarget"].removeprefix("~")
    if node["reftype"] == "name":
        must_be = "." in target or re.match(r"[A-Z]\w*[a-z]", target)
        return None if must_be else content
    if " " in target or "[" in target:  # a whole annotation that Sphinx has not taken apart
        return content
    if PLAIN.fullmatch(target) or target.rpartition(".")[2] in ALIASES:
        return content
    return None


@cache
def has_field(owner: str, attribute: str) -> bool:
    """Whether a public class has a field that its own text tells of."""
    package, _, name = owner.rpartition(".")
    if package not in PACKAGES or not attribute.isidentifier():
        return False
    cls = getattr(importlib.import_module(package), name, None)
    if not isinstance(cls, type):
        return False
    fields = {field for base in cls.__mro__ for field in vars(base).get("__annotations__", {})}
    told = re.search(rf"^\s+(\w+, )*{attribute}(, \w+)*:", cls.__doc__ or "", re.MULTILINE)
    return attribute in fields or hasattr(cls, attribute) or told is not None


def in_inventories(
    env: BuildEnvironment, name: str, content: nodes.TextElement
) -> nodes.Node | None:
    inventories: Any = env.intersphinx_inventory  # type: ignore[attr-defined]
    for role in ("py:class", "py:data", "py:exception", "py:function"):
        item = inventories.get(role, {}).get(name)
        if item is not None:
            return nodes.reference("", "", content, internal=False, refuri=item.uri)
    return None


def each_by_itself(lines: list[str]) -> Iterator[str]:
    """The lines of a docstring, in which "a, b: text" is an entry for each of the names."""
    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        entry = re.fullmatch(r"(\s+)(\w+(?:, \w+)+)(: .+)", line)
        if entry is None:
            yield line
            continue
        more: list[str] = []
        while position < len(lines) and lines[position].startswith(f"{entry[1]} "):
            more.append(lines[position])
            position += 1
        for name in entry[2].split(", "):
            yield from (f"{entry[1]}{name}{entry[3]}", *more)


def without_factories(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returned: str
) -> tuple[str | None, str]:
    """A default that is made anew for each object is three dots, as in a stub."""
    del app, what, name, obj, options
    return (signature.replace("<factory>", "...") if signature else signature), returned


def prepare(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """A dictionary of fields shows all of them; a colon in a property's text ends no type."""
    del app, name, options
    lines[:] = each_by_itself(lines)
    if what in {"property", "attribute", "data"}:
        lines[:0] = ["..", ""]  # an empty comment, which is read in place of "type: text"
    elif typing.is_typeddict(obj):
        first = re.sub(r"; see .*|\s*See `\w+`\.$", ".", lines[0]).replace("..", ".")
        texts = [f"    {key}: {text}" for key, text in texts_of(obj).items()]
        body = "\n".join(["Attributes:", *[text.replace("\n", "\n    ") for text in texts]])
        kept = "\n".join(lines[1:]).partition("Attributes:")[0].rstrip().split("\n")
        lines[:] = [first, *kept, "", *body.split("\n"), ""]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_role("name", NameRole())
    app.connect("autodoc-process-docstring", prepare, priority=400)
    app.connect("autodoc-process-signature", without_factories)
    app.connect("doctree-read", take_over)
    app.connect("doctree-read", call_attributes_so)
    app.connect("missing-reference", resolve, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
