"""The exceptions of this library.

::

    OllamaError
    ├── RequestError            (also ValueError)       wrong arguments; nothing was sent
    ├── ClientClosedError       (also RuntimeError)     the client is not open; nothing was sent
    ├── ConnectError            (also ConnectionError)  no connection, or a broken one
    ├── RequestTimeout          (also TimeoutError)     a timeout of `Timeouts` expired
    ├── AbortError                                      `abort()`, or the end of the client or group
    ├── ResponseError                                   the server answered with an error
    │   ├── ModelNotFoundError                          404 about a model, not about a path
    │   ├── AuthorizationError                          401 and 403
    │   ├── RateLimitError                              429
    │   └── ServerBusyError                             503
    ├── ProtocolError                                   the answer is not what the API says
    ├── EmbedError                                      one text of a job cannot be embedded
    ├── OutputError             (also ValueError)       a reply does not fit the type of `format`
    ├── ToolError                                       what a tool tells the model; raised by tools
    └── IncompleteStreamError                           the answer ended before its terminal object

Every one says which request it belongs to, keeps what caused it as its ``__cause__``, carries no
credential, and can be pickled. This module may know nothing of the others.
"""

from __future__ import annotations

from typing import Any, Literal, Self


class OllamaError(Exception):
    """Whatever this library raises on purpose, besides ``TypeError`` for a wrong call.

    Attributes:
        request: the request that failed, such as ``"POST /api/chat, model 'llama3.2'"``, or
            ``None`` where there was none yet.
    """

    request: str | None = None

    def __init__(self, message: str = "", *, request: str | None = None) -> None:
        super().__init__(message)
        if request is not None:
            self.request = request

    def __str__(self) -> str:
        message = str(self.args[0]) if self.args else ""
        return f"{self.request}: {message}" if self.request else message


class RequestError(OllamaError, ValueError):
    """The arguments are wrong. Raised before any I/O, so nothing has been sent."""


class ClientClosedError(OllamaError, RuntimeError):
    """The client or group is not open: not entered yet, or left, or shut down. Nothing was sent."""


class ConnectError(OllamaError, ConnectionError):
    """No connection came about, or it broke before the answer was whole.

    Streams whose connection breaks after the answer began raise `IncompleteStreamError` instead.
    """


class RequestTimeout(OllamaError, TimeoutError):  # noqa: N818 - the name that the field uses
    """A timeout expired. The request has ended and its connection is closed.

    Attributes:
        limit: which one, by its name in `Timeouts`: ``"connect"``, ``"first_chunk"``, ``"idle"``
            or ``"total"``.
        seconds: its length.
    """

    def __init__(
        self,
        message: str = "",
        *,
        limit: str = "",
        seconds: float | None = None,
        request: str | None = None,
    ) -> None:
        super().__init__(message, request=request)
        self.limit = limit
        self.seconds = seconds


class AbortError(OllamaError):
    """The request was ended by `abort()`, or because its client, group or stream was closed.

    Attributes:
        reason: what was given to `abort()`, or says what was closed.
    """

    def __init__(
        self, message: str = "", *, reason: object = None, request: str | None = None
    ) -> None:
        super().__init__(message, request=request)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        # A reason can be anything, and an error must pickle whatever it is.
        return type(self), self.args, {**self.__dict__, "reason": _picklable(self.reason)}

    def __copy__(self) -> Self:
        copied = type(self)(*self.args)
        copied.__dict__.update(self.__dict__)
        return copied


def _picklable(value: object) -> object:
    """The value itself where it can be pickled, or else what it looks like."""
    try:
        import pickle  # noqa: PLC0415 - who gets here has it already

        pickle.dumps(value)
    except Exception:  # noqa: BLE001 - anything can go wrong in somebody's own methods
        try:
            return repr(value)
        except Exception:  # noqa: BLE001
            return f"<{type(value).__name__}>"
    return value


class ResponseError(OllamaError):
    """The server answered with an error, in place of a reply or in the middle of one.

    Attributes:
        error: the server's text.
        status_code: the HTTP status. An error in the middle of a stream comes with the status that
            the stream began with, 200.
        retry_after: the seconds after which the server, or a gateway in front of it, wants to be
            asked again, where it says so.
    """

    retry_after: float | None = None

    def __init__(
        self,
        message: str = "",
        *,
        error: str = "",
        status_code: int = 0,
        request: str | None = None,
    ) -> None:
        super().__init__(message or error, request=request)
        self.error = error or message
        self.status_code = status_code


class ModelNotFoundError(ResponseError):
    """The server does not have the model (404). It is none where the path is what is missing."""


class AuthorizationError(ResponseError):
    """The server refuses this client (401 or 403).

    Attributes:
        signin_url: where a person can sign in, where the server gives such an address.
    """

    signin_url: str | None = None


class RateLimitError(ResponseError):
    """Too many requests (429); see `retry_after`."""


class ServerBusyError(ResponseError):
    """The server's queue is full, or it is unavailable for now (503); see `retry_after`."""


class ProtocolError(OllamaError):
    """What arrived is not what the API says: no JSON, wrong types, a page of a proxy.

    Attributes:
        excerpt: the start of what arrived, at most 200 bytes.
    """

    def __init__(
        self, message: str = "", *, excerpt: bytes = b"", request: str | None = None
    ) -> None:
        super().__init__(message, request=request)
        self.excerpt = excerpt


class EmbedError(OllamaError):
    """One text of an embedding job cannot be embedded, and the others of its batch can.

    Its ``__cause__`` is what the server said, where the server said it.

    Attributes:
        index: the text's place in the job, from zero.
        reason: why, such as ``"the input length exceeds the context length (HTTP 400)"``.
    """

    def __init__(
        self,
        message: str = "",
        *,
        index: int = 0,
        reason: str = "",
        request: str | None = None,
    ) -> None:
        super().__init__(message, request=request)
        self.index = index
        self.reason = reason


class OutputError(OllamaError, ValueError):
    """A reply is not of the type that was asked for with ``format=``.

    Attributes:
        text: the reply's text.
        path: where in it the misfit is, such as ``"$.cities[0].name"``.
        reason: ``"truncated"`` where the reply was cut off by `num_predict` or the context;
            ``"not_json"`` where it is no JSON, as from a server or model that ignores `format`;
            ``"misfit"`` where it is JSON of another form.
        response: the reply.
    """

    def __init__(
        self,
        message: str = "",
        *,
        text: str = "",
        path: str = "$",
        reason: Literal["truncated", "not_json", "misfit"] = "misfit",
        response: Any = None,
        request: str | None = None,
    ) -> None:
        super().__init__(message, request=request)
        self.text = text
        self.path = path
        self.reason: Literal["truncated", "not_json", "misfit"] = reason
        self.response = response


class ToolError(OllamaError):
    """Raise it in a tool, to tell the model what went wrong: it gets the text as the result.

    Any other exception of a tool ends the run, unless ``on_tool_error="tell"``.
    """


class IncompleteStreamError(OllamaError):
    """The answer ended without its terminal object (``done: true`` or ``status: "success"``).

    The connection broke, or the server gave up: Ollama ends a text that repeats itself so.

    Attributes:
        partial: what arrived, joined into one response; its ``complete`` is false.
    """

    def __init__(
        self, message: str = "", *, partial: Any = None, request: str | None = None
    ) -> None:
        super().__init__(message, request=request)
        self.partial = partial
