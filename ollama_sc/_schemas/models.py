"""Types that bring their own schema and validation, as pydantic's do; it is never imported here."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, get_args

_CORE = "__get_pydantic_core_schema__"


def is_model(type_: Any) -> bool:
    """Whether pydantic knows how to read this type."""
    return isinstance(type_, type) and hasattr(type_, _CORE)


def mentions_model(type_: Any) -> bool:
    """Whether there is such a type in it: a class, or what an alias or union is made of."""
    return (
        is_model(type_)
        or hasattr(type_, "__pydantic_fields__")
        or any(map(mentions_model, get_args(type_)))
    )


def mentions_checks(type_: Any) -> bool:
    """Whether something in it is checked by pydantic alone: msgspec would read it without that.

    Those are dataclasses of pydantic's, and what `Annotated` says in its terms, such as
    ``Field(ge=1)``, a validator, or a bound of ``annotated_types``.
    """
    own = hasattr(type_, "__pydantic_fields__") and not hasattr(type_, "model_fields")
    return own or has_checks(type_) or any(map(mentions_checks, get_args(type_)))


def has_checks(said: object) -> bool:
    """Whether what stands in an `Annotated`, or is a default, says what pydantic would check."""
    library = type(said).__module__.partition(".")[0]
    if library == "annotated_types":  # it comes with pydantic, and can be there without
        return find_spec("pydantic") is not None
    if library != "pydantic" or isinstance(said, type):
        return False
    return type(said).__name__ != "FieldInfo" or bool(getattr(said, "metadata", None))


def adapter(type_: Any) -> Any:
    """Pydantic's own reader and writer of a type."""
    from pydantic import TypeAdapter  # noqa: PLC0415 - whoever has such a type has imported it

    return TypeAdapter(type_)


def schema_of_model(type_: Any) -> dict[str, Any]:
    """The JSON schema of such a type; the hook of msgspec's schemas.

    Raises:
        NotImplementedError: it is no such type.
    """
    if not is_model(type_):
        raise NotImplementedError
    return json_schema(type_)


def json_schema(type_: Any) -> dict[str, Any]:
    """The JSON schema of what pydantic can read.

    Raises:
        TypeError: it cannot, such as a union of a model and a Struct of msgspec's.
    """
    from pydantic.errors import PydanticUserError  # noqa: PLC0415 - as above

    try:
        found: dict[str, Any] = adapter(type_).json_schema()
    except PydanticUserError as error:
        raise TypeError(str(error).partition("\n")[0]) from error
    return found


def read_model(type_: Any, value: object) -> object:
    """A value of such a type; the hook of msgspec's decoders.

    Raises:
        NotImplementedError: it is no such type.
        ValueError: the value does not fit.
    """
    if not is_model(type_):
        raise NotImplementedError(f"nothing can be read as {type_!r}")
    validate = getattr(type_, "model_validate", None) or adapter(type_).validate_python
    found: object = validate(value)
    return found


def write_model(value: object) -> object:
    """What such a value is made of; the hook of msgspec's encoders.

    Raises:
        NotImplementedError: it is no such value.
    """
    dump = getattr(value, "model_dump", None)
    if dump is not None and not isinstance(value, type):
        found: object = dump(mode="json", by_alias=True)
        return found
    if not is_model(type(value)):
        raise NotImplementedError(f"{type(value).__name__} has no form in JSON")
    written: object = adapter(type(value)).dump_python(value, mode="json")
    return written


def first_error(error: BaseException | None, value: object) -> tuple[str, str] | None:
    """Where in a value pydantic found the first misfit and what it is, as msgspec would say it."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return None
    first = errors(include_url=False, include_context=False)[0]
    path = ""
    inside: Any = value
    containers: tuple[type[Any], ...] = (dict,)
    places: list[str | int] = [*first["loc"]]
    for number, place in enumerate(places, 1):
        missing = number == len(places) and isinstance(place, str) and type(inside) in containers
        try:
            inside = None if missing else inside[place]
        except (LookupError, TypeError):
            continue  # the name of one of a union's types
        path += f"[{place}]" if isinstance(place, int) else f".{place}"
    return path, str(first["msg"])
