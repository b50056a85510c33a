"""How a call ended, in one word. Knows nothing of how calls run."""

from __future__ import annotations

from typing import Literal, Protocol

from ollama_sc._errors import AbortError

End = Literal["complete", "error", "aborted", "cancelled", "closed", "dropped"]

STREAM_CLOSED = "the stream was closed"
JOB_LEFT = "the job was left"
STREAM_DROPPED = "the stream was dropped"
JOB_DROPPED = "the job was dropped"
_BY_REASON: dict[object, End] = {
    STREAM_CLOSED: "closed",
    JOB_LEFT: "closed",
    STREAM_DROPPED: "dropped",
    JOB_DROPPED: "dropped",
}


class Observed(Protocol):
    """A call, as its observers see it."""

    label: str

    @property
    def is_part_of_one(self) -> bool:
        """Whether it belongs to a job, which is observed as one."""
        ...

    def end(self) -> tuple[End, BaseException | None]:
        """How it ended, and with which error."""
        ...

    @property
    def reply(self) -> object:
        """What it has brought: a reply, or what of it has arrived; ``None`` for nothing."""
        ...


def end_of(
    error: BaseException | None, *, completed: bool, aborted: bool, abandoned: bool, reason: object
) -> End:
    """How a call ended.

    There are five cases: it has its result; its own program aborted it, and what that closed or
    dropped for it; its caller was cancelled; its task was, by other means; it failed.
    """
    if completed:
        return "complete"
    if aborted:
        return _BY_REASON.get(reason, "aborted") if isinstance(reason, str) else "aborted"
    if abandoned or isinstance(error, AbortError):
        return "cancelled"
    return "error"
