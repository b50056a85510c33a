"""What a conversation is made of: messages, tools, options, log probabilities."""

from collections.abc import Callable
from copy import copy, deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ollama_sc._errors import RequestError
from ollama_sc._wire_object import WireObject, always

UNREAD_ARGUMENTS = "_raw"

if TYPE_CHECKING:
    # Bytes and files become base64 on their way to the server; what comes back is base64 text.
    Image = str | bytes | Path
else:
    Image = str


class Function(WireObject):
    """The function that a model wants called.

    Attributes:
        name: the tool's name.
        arguments: by parameter name, in the model's order. Some servers send JSON as text: it is
            read. What is no object stands under the one key ``"_raw"``, as it came.
        index: the position among the calls of one response.
    """

    name: str
    arguments: dict[str, Any]
    index: int | None = None


class ToolCall(WireObject):
    """A model's wish to have a tool called."""

    function: Function
    id: str | None = None


class Message(WireObject):
    """One message of a conversation.

    In a reply, its content is strict; a role that cannot be read is ``"assistant"``.

    Attributes:
        role: ``"system"``, ``"user"``, ``"assistant"`` or ``"tool"``.
        content: the text; empty where none is given.
        thinking: what a thinking model thought before it.
        images: each as base64 text; in what you send also as bytes, or as the `Path` of a file.
        tool_calls: in the order the model gave them.
        tool_name: of a tool's result, which tool that was.
        tool_call_id: of a tool's result, which call that was.
    """

    __strict__ = ("content",)

    role: str
    content: str = always(str)
    thinking: str | None = None
    images: list[Image] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class ToolFunction(WireObject):
    """What a model is told of a function that it may want called.

    Attributes:
        parameters: a JSON schema of type ``"object"``.
    """

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(WireObject, omit_defaults=False, gc=True, dict=True):
    """A tool that a model may want called.

    One that `of` has made of a function knows it, and `run_tools` can run it.
    """

    function: ToolFunction
    type: str = "function"
    items: Any = None

    @classmethod
    def of(
        cls,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        abandon: bool = False,
    ) -> Self:
        """A function as a tool: what it is called with and for comes from its signature and text.

        Args:
            function: a function, a method, a `functools.partial` (what it has given already is not
                the model's affair) or an object that can be called; asynchronous or not. One that
                is not runs in a worker thread.
            name: in place of its own.
            description: in place of its docstring.
            timeout: how many seconds a call may take; `RequestTimeout` then, whose `limit` is
                ``"tool"``. A thread is waited for all the same.
            abandon: whether a call that ends early leaves its worker thread alone instead of
                waiting for it. What that still does, nobody hears of.

        Raises:
            RequestError: it cannot be a tool, such as for a parameter whose type has no form in
                JSON.
        """
        from ollama_sc._schemas import functions  # noqa: PLC0415 - most programs have no functions as tools
        from ollama_sc._schemas.callees import callee_of  # noqa: PLC0415

        try:
            callee = callee_of(function, timeout=timeout, abandon=abandon)
            given_name = functions.checked_name(function, name)
        except TypeError as error:
            raise RequestError(f"this cannot be a tool: {error}") from error
        signature = callee.signature
        assert signature is not None
        text = signature.description if description is None else description
        # A copy: the signature is kept for other tools of this function.
        tool = cls(ToolFunction(given_name, text or None, deepcopy(signature.schema)))
        vars(tool)["callee"] = callee
        return tool

    def __copy__(self) -> Self:
        made = type(self)(self.function, self.type, self.items)
        vars(made).update(vars(self))  # what it calls
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        made = copy(self)
        made.function = deepcopy(self.function, memo)
        made.items = deepcopy(self.items, memo)
        return made


class Options(WireObject, kw_only=True):
    """Parameters of a model; ``None`` is the model's own default.

    The first seven belong to the loaded model: a change of one loads it anew.
    """

    num_ctx: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int | None = None
    draft_num_predict: int | None = None
    num_keep: int | None = None
    seed: int | None = None
    num_predict: int | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_last_n: int | None = None
    temperature: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: list[str] | None = None


class TokenLogprob(WireObject):
    """A token and the logarithm of its probability."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class Logprob(TokenLogprob):
    """The token that was chosen, with the likeliest ones at its place."""

    top_logprobs: list[TokenLogprob] | None = None
