"""A program decides on each call before it runs."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from ollama_sc import RequestError, ToolError
from ollama_sc.testing import FakeOllama
from tests.tools.support import answer, calls
from tests.tools.test_run import get_time, run

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_approve(fake: FakeOllama, asynchronous: bool) -> None:
    """It lets a call run, with other arguments, or says no with a reason; one call at a time."""
    asked: list[str] = []
    busy = False
    verdicts: dict[str, Any] = {
        "a": True, "b": False, "c": "too far", "d": {"city": "Rome"}, "e": {"town": "x"},
    }  # fmt: skip

    def approve(call: Any) -> Any:
        city = call.function.arguments["city"]
        asked.append(city)
        if city == "f":
            raise ToolError("ask again tomorrow")
        return verdicts[city]

    async def later(call: Any) -> Any:
        nonlocal busy
        assert not busy
        busy = True
        await anyio.lowlevel.checkpoint()
        busy = False
        return approve(call)

    wanted = [("get_time", {"city": city}) for city in "abcdef"] + [("nope", {"city": "g"})]
    found = await run(
        fake, [get_time], calls(*wanted), answer(), approve=later if asynchronous else approve
    )
    assert asked == list("abcdef")
    assert [record.outcome for record in found.calls] == [
        "returned", "refused", "refused", "returned", "misfit", "refused", "unknown",
    ]  # fmt: skip
    contents = [message.content for message in found.messages[2:-1]]
    assert contents[0] == "noon in a"
    assert "too far" in contents[2]
    assert contents[3] == "noon in Rome"
    assert found.calls[3].arguments == {"city": "Rome"}
    assert found.calls[3].call.function.arguments == {"city": "d"}
    assert "tomorrow" in contents[5]


@pytest.mark.parametrize("verdict", [None, 5, [1]])
async def test_approve_that_says_nothing(fake: FakeOllama, verdict: Any) -> None:
    """A verdict that is none is an error, and nothing runs."""
    with pytest.raises(RequestError, match="approve must return"):
        await run(fake, [get_time], calls(("get_time", {"city": "x"})), approve=lambda _: verdict)
    error = LookupError("mine")

    def fails(_: Any) -> bool:
        raise error

    with pytest.raises(LookupError) as caught:
        await run(
            fake,
            [get_time],
            calls(("get_time", {"city": "x"})),
            approve=fails,
            on_tool_error="tell",
        )
    assert caught.value is error
