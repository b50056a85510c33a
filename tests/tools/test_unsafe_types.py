"""A union that would end the process is refused before msgspec reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NewType, Optional, TypedDict, Union

import msgspec
import pytest

from ollama_sc import RequestError, Tool
from ollama_sc._schemas.forms import schema_of
from tests.tools.test_schemas import Pair, function_of

Positive = Annotated[int, msgspec.Meta(ge=1)]
Named = NewType("Named", Positive)  # type: ignore[valid-newtype]


@dataclass
class Inner:
    either: Union[tuple[int, str], Positive, None] = None


class Mapped(TypedDict):
    inner: Optional[Inner]


@pytest.mark.parametrize(
    "type_",
    [
        Union[tuple[int, str], Positive],
        Union[Positive, None, tuple[int]],
        Union[tuple[()], Annotated[str, msgspec.Meta(max_length=3)]],
        Union[tuple[int, int], Annotated[dict[str, int], msgspec.Meta(min_length=1)]],
        tuple[int, int] | Annotated[float, msgspec.Meta(multiple_of=2)],
        Union[tuple[int, str], Annotated[Union[int, None], msgspec.Meta(lt=1)]],
        Union[Annotated[tuple[int, str], msgspec.Meta(description="x")], Positive],
        Union[tuple[int, str], Named],
        dict[str, list[Union[tuple[int, str], Positive]]],
        Inner,
        list[Mapped],
    ],
)
def test_it_is_refused(type_: Any) -> None:
    """Wherever it is in a type, for tools and for outputs."""
    with pytest.raises(RequestError, match="'p0' cannot be .* in one union"):
        Tool.of(function_of(type_))
    with pytest.raises(TypeError, match="in one union"):
        schema_of(type_)


@pytest.mark.parametrize(
    "type_",
    [
        Union[tuple[int, ...], Positive],
        Union[tuple[int, str], int],
        Union[Pair, Positive],
        Union[list[int], Positive],
        tuple[Positive, str],
        Union[tuple[int, str], Annotated[int, msgspec.Meta(description="x")]],
        Union[tuple[Positive, str], None],
    ],
)
def test_what_is_like_it_is_not(type_: Any) -> None:
    """Of one of the two alone, nothing happens."""
    assert schema_of(type_)
    assert Tool.of(function_of(type_)).function.parameters
