"""Errors that end a job early. The command prints the text on stderr and exits with the status."""


class JobError(Exception):
    """A job ends before it is done.

    Attributes:
        status: the exit status of the command.
    """

    status = 3


class Refused(JobError):  # noqa: N818 - what happened, not whose fault it is
    """The command is invalid for its input or its folder; nothing was changed."""

    status = 2


class Stopped(JobError):  # noqa: N818
    """The job cannot go on now. What is done is kept, and the same command resumes it."""
