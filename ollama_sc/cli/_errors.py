"""How a job ends early. The command says the text on stderr and exits with the status."""


class JobError(Exception):
    """A job that ends before it is done.

    Attributes:
        status: the exit status of the command.
    """

    status = 3


class Refused(JobError):  # noqa: N818 - what happened, not whose fault it is
    """What was asked for cannot be done; nothing was changed."""

    status = 2


class Stopped(JobError):  # noqa: N818
    """It cannot go on now; what is done is kept, and the same command goes on from there."""
