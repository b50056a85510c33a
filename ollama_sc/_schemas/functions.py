"""A function as a model sees it: its name, what it is for, and a schema of its parameters."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any, ForwardRef, NamedTuple, cast, get_type_hints
from weakref import WeakKeyDictionary

from . import descriptions, models
from .forms import Misfit, convert, name_of, schema_of, schemas_of, to_json
from .narrow import for_tool

_EMPTY = inspect.Parameter.empty
_SHOWN = 200  # characters of a function in an error


class Parameter(NamedTuple):
    """A parameter that a model can give."""

    type: Any
    required: bool
    positional: bool
    default: Any  # given where it is left out; empty where the function's own will do


class Signature(NamedTuple):
    """What a model is told of a function, and how its arguments are read.

    Attributes:
        description: of the function.
        schema: a JSON schema of its parameters, as far as the server keeps it.
        parameters: those that a model can give.
    """

    description: str
    schema: dict[str, Any]
    parameters: dict[str, Parameter]

    def bind(self, given: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments that a model has given, converted to the annotated types.

        Raises:
            Misfit: they do not fit.
        """
        unknown = [name for name in given if name not in self.parameters]
        if unknown:
            names = ", ".join(map(repr, self.parameters)) or "none"
            raise Misfit(f"$.{unknown[0]}", f"there is no such argument: there are {names}")
        positional: list[Any] = []
        by_name: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            try:
                value = self._value(name, parameter, given)
            except Misfit as misfit:
                raise Misfit(f"$.{name}{misfit.path[1:]}", misfit.problem) from misfit
            if value is _EMPTY:
                if parameter.default is _EMPTY:
                    continue
                value = copy(parameter.default)  # a list may be changed
            if parameter.positional:
                positional.append(value)
            else:
                by_name[name] = value
        return positional, by_name

    def _value(self, name: str, parameter: Parameter, given: Mapping[str, Any]) -> Any:
        if name not in given:
            if parameter.required:
                raise Misfit("$", "the argument is missing")
            return _EMPTY
        try:
            return convert(given[name], parameter.type)
        except Misfit:
            if given[name] is None and not parameter.required:
                return _EMPTY  # models say null of what they leave out
            raise


def name_of_function(function: Any) -> str:
    """What a function is called; of an object that can be called, its class."""
    while isinstance(function, partial):
        function = cast("Any", function).func
    name: str = getattr(function, "__name__", None) or type(function).__name__
    return name


def is_async(function: Any) -> bool:
    """Whether calling it gives a coroutine, as far as it can be told without calling it."""
    while isinstance(function, partial):
        function = cast("Any", function).func
    if inspect.iscoroutinefunction(function):
        return True
    return not inspect.isclass(function) and inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - its own, to be looked at
    )


# A signature is made once for each function; methods share that of their function.
_signatures: WeakKeyDictionary[Any, dict[bool, Signature]] = WeakKeyDictionary()


def signature_of(function: Any) -> Signature:
    """What a model is told of a function.

    Raises:
        TypeError: it cannot be a tool, such as for a parameter whose type has no form in JSON.
    """
    bound = inspect.ismethod(function)
    key = function.__func__ if bound else function
    try:
        found = _signatures.get(key, {}).get(bound)
    except TypeError:  # it has no hash, or no weak references
        return _signature_of(function)
    if found is None:
        found = _signature_of(function)
        _signatures.setdefault(key, {})[bound] = found
    return found


def _signature_of(function: Any) -> Signature:
    try:
        given = _inspected(function)
    except (TypeError, ValueError) as error:
        raise TypeError(f"the signature of {_shown(function)} is unknown") from error
    _check(function, given)
    fixed = _keywords_of(function)
    shown = {name: one for name, one in given.parameters.items() if name not in fixed}
    hints = _hints(function, shown)
    text, about = _documented(function)
    if hasattr(function, "__callers_fields__"):
        text = text.partition("\n\n")[0]  # the rest is for who writes programs
    types = {name: _type_of(one, hints) for name, one in shown.items()}
    parameters = {name: _parameter(one, types[name]) for name, one in shown.items()}
    schemas = _schemas({name: one.type for name, one in parameters.items()})
    properties: dict[str, Any] = {}
    for name, one in shown.items():
        said = descriptions.of_annotation(types[name], one.default) or about.get(name, "")
        properties[name] = for_tool(schemas[name], said, _default_text(one))
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required := [name for name, one in parameters.items() if one.required]:
        schema["required"] = required
    return Signature(text, schema, parameters)


def _inspected(function: Any) -> inspect.Signature:
    options: dict[str, Any] = {}
    if sys.version_info >= (3, 14):  # where it evaluates annotations, which `_hints` does below
        from annotationlib import Format  # noqa: PLC0415

        options["annotation_format"] = Format.FORWARDREF
    return inspect.signature(function, **options)


def _keywords_of(function: Any) -> set[str]:
    """The names that are no affair of a model's: those that a `partial` has given already.

    A client's own calls, such as `web_search`, have more of them: how long a caller would wait.
    """
    found: set[str] = set()
    while isinstance(function, partial):
        found |= set(cast("partial[Any]", function).keywords)
        function = cast("partial[Any]", function).func
    return found.union(getattr(function, "__callers_fields__", ()))


def _type_of(one: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    """What a parameter is annotated with, and what a default that is a field of pydantic's says.

    A signature can say more than the function's own annotations: a decorator has put it there.
    """
    own: Any = one.annotation
    found = hints.get(one.name, Any if own is _EMPTY or isinstance(own, str | ForwardRef) else own)
    return Annotated[found, one.default] if models.has_checks(one.default) else found


def _parameter(one: inspect.Parameter, type_: Any) -> Parameter:
    if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
        stars = "*" if one.kind is one.VAR_POSITIONAL else "**"
        raise TypeError(f"a tool has no parameter like {stars}{one.name}: a model cannot name it")
    default = _default_of(one)
    positional = one.kind is one.POSITIONAL_ONLY
    given = default if positional or default is not one.default else _EMPTY
    return Parameter(type_, default is _EMPTY, positional, given)


def _schemas(types: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    try:
        return dict(zip(types, schemas_of([*types.values()]), strict=True))
    except TypeError:
        return {name: _schema(name, type_) for name, type_ in types.items()}  # which one is it?


def _check(function: Any, given: inspect.Signature) -> None:
    """Refuse what cannot be called, or gives no result."""
    while isinstance(function, partial):
        function = cast("Any", function).func
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{_shown(function)} is a generator, which gives no result")
    first = next(iter(given.parameters), None)
    if first == "self" and inspect.isfunction(function) and "." in function.__qualname__:
        raise TypeError(
            f"{function.__qualname__} is a method without its object: give that of an object"
        )


def _schema(name: str, type_: Any) -> dict[str, Any]:
    try:
        return schema_of(type_)
    except TypeError as error:
        raise TypeError(f"the parameter {name!r} cannot be {name_of(type_)}: {error}") from error


def _default_of(parameter: inspect.Parameter) -> object:
    """Its default; a field of pydantic's has it inside."""
    default = parameter.default
    if type(default).__name__ != "FieldInfo":
        return default
    return _EMPTY if default.is_required() else default.get_default(call_default_factory=True)


def _default_text(parameter: inspect.Parameter) -> str:
    default = _default_of(parameter)
    if default is _EMPTY:
        return ""
    try:
        text = to_json(default, order="deterministic")  # in each process, of a set too
    except TypeError:
        return ""
    return text if text != "null" or default is None else ""  # JSON has no infinity


def _documented(function: Any) -> tuple[str, dict[str, str]]:
    """What is written of a function, and of its parameters by name."""
    while isinstance(function, partial):
        function = cast("Any", function).func
    if inspect.isroutine(function):
        return descriptions.of_text(inspect.getdoc(function))
    # A class, or an object that can be called: its class says what it is, or else the method does.
    called = not inspect.isclass(function)
    class_ = cast("type[Any]", type(function) if called else function)
    text, about = descriptions.of_text(descriptions.own_text(class_))
    method = descriptions.text_of_method(class_, "__call__" if called else "__init__")
    of_method, more = descriptions.of_text(method)
    return text or (of_method if called else ""), about | more


def _hints(function: Any, names: Iterable[str]) -> dict[str, Any]:
    """The annotations of some parameters as types, those that are text included."""
    while isinstance(function, partial):
        function = cast("Any", function).func
    if inspect.isclass(function):
        if models.mentions_model(function) or not inspect.isfunction(function.__init__):
            return _fields(function)
        function = function.__init__
    elif not inspect.isroutine(function):
        function = type(function).__call__
    function = inspect.unwrap(function)
    annotations = getattr(function, "__annotations__", None)
    if not annotations:
        return {}
    # Of what no model is told, nothing is read: a result's type may be one for type checkers alone.
    read = SimpleNamespace(
        __annotations__={name: annotations[name] for name in names if name in annotations},
        __type_params__=getattr(function, "__type_params__", ()),
    )
    there: dict[str, Any] = getattr(function, "__globals__", {})
    try:
        return get_type_hints(read, there, include_extras=True)
    except Exception:  # noqa: BLE001, S110 - whatever reading somebody's text raises; see below
        pass
    around = _names_around(function)  # a type may be local to what is running, as in tests
    found: dict[str, Any] = {}
    for name, annotation in read.__annotations__.items():
        one = SimpleNamespace(
            __annotations__={name: annotation}, __type_params__=read.__type_params__
        )
        try:
            found |= get_type_hints(one, there, around, include_extras=True)
        except Exception as error:
            what = f"the annotation of the parameter {name!r} of {_shown(function)}"
            raise TypeError(f"{what} cannot be read: {error}") from error
    return found


def _fields(class_: type) -> dict[str, Any]:
    """The annotations of a class that is made from its fields."""
    try:
        return get_type_hints(class_, include_extras=True)
    except Exception as error:
        what = f"the annotations of {_shown(class_)}"
        raise TypeError(f"{what} cannot be read: {error}") from error


def _names_around(function: Any) -> dict[str, Any]:
    """The local names of the functions that are running, the innermost first of one name.

    Those that the function's own module has mean that.
    """
    frames: list[Mapping[str, Any]] = []
    frame = sys._getframe(1)
    while frame is not None:
        if not str(frame.f_globals.get("__name__")).startswith("ollama_sc."):
            frames.append(frame.f_locals)
        frame = cast("Any", frame.f_back)
    found: dict[str, Any] = {}
    for one in reversed(frames):
        found.update(one)
    found |= inspect.getclosurevars(function).nonlocals
    return {name: value for name, value in found.items() if name not in function.__globals__}


def _shown(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__qualname__', None) or repr(function)[:_SHOWN]}"


def checked_name(function: object, name: str | None) -> str:
    """The name of a tool: the one that is given, or the function's own.

    Raises:
        TypeError: a model could not call it by that.
    """
    found = name_of_function(function) if name is None else name
    if not isinstance(found, str) or not re.fullmatch(r"[\w.:/-]+", found):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{found!r:.80} is no name that a model could call: give it another, name=")
    return found
