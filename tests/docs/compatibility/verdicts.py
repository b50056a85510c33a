"""What each name of the official libraries is here: the same, another one, or not there, and why."""

from __future__ import annotations

import inspect
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import msgspec

import ollama_sc
from ollama_sc import AsyncClient, Client
from ollama_sc._http.options import HttpxOptions

from .peers import Entry

# Arguments of a client that are there, and are not the same.
_OTHER_ARGUMENTS = ("follow_redirects", "transport", "mounts")
# Defaults that mean the same: nothing is sent, and the server decides.
NOTHING = {"", "None", "''", "False"}
CLASSES = {
    "ListResponse.Model": "ListedModel",
    "ProcessResponse.Model": "RunningModel",
    "Message.ToolCall": "ToolCall",
    "Message.ToolCall.Function": "Function",
    "Tool.Function": "ToolFunction",
}
_SCHEMA = "a JSON schema, as a mapping: whatever it holds reaches the server"
_OLD = "servers have ignored it since 0.7.0 or longer; `options={...}` as a mapping passes any name"
_SYSTEMONE = '`client.request("POST", "/v1/systemone", json={...})`: no server release that is supported here has it'
_EMPTY = "where a server leaves it out it is empty here, and never `None`"
_DONE = "`/api/embed` does not send it"
_UNSENT = ("model", "created_at", "done", "done_reason", "prompt_eval_duration", "eval_count", "eval_duration")  # fmt: skip
_IGNORED = (
    "numa", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock", "embedding_only", "tfs_z",
    "mirostat", "mirostat_tau", "mirostat_eta", "penalize_newline",
)  # fmt: skip


_JS_CALLS = {"GenerateRequest": "generate", "ChatRequest": "chat", "PullRequest": "pull"}
_JS_CALLS |= {"PushRequest": "push", "CreateRequest": "create", "DeleteRequest": "delete"}
_JS_CALLS |= {"CopyRequest": "copy", "ShowRequest": "show", "EmbedRequest": "embed"}
_JS_CALLS |= {"EmbeddingsRequest": "embeddings", "WebSearchRequest": "web_search"}
_JS_CALLS |= {"WebFetchRequest": "web_fetch"}


class Rule(NamedTuple):
    """Names that are not the same.

    Attributes:
        names: patterns. One that says "differs" is about names that are here alone, so that a new
            name, which is not, needs a rule of its own.
        verdict: ``"renamed"``, ``"differs"`` or ``"absent"``.
        text: the name here, where there is one, and the reason.
    """

    names: str | tuple[str, ...]
    verdict: str
    text: str


RULES = [
    # -- the module
    Rule("ollama.systemone", "absent", _SYSTEMONE),
    Rule("ollama.SystemOne*", "absent", _SYSTEMONE),
    Rule("ollama.Image", "absent", "`bytes`, a `Path` or base64 text stand for themselves in `images`; an `Image` of theirs is taken"),
    # -- clients
    Rule("Client(timeout)", "differs", "`None` limits connecting to 10 seconds; `Timeouts(connect=None)` limits nothing"),
    Rule("Client(follow_redirects)", "differs", "not given, redirects are followed within the server's own origin: others could carry a key elsewhere"),
    Rule("Client(limits)", "absent", "`max_in_flight=` limits requests, and what waits can be seen and aborted; a `TypeError` says so"),
    Rule(("Client(transport)", "Client(mounts)"), "differs", "one of httpx's asynchronous transports, for a blocking client as well; `httpx.MockTransport` is of both kinds"),
    Rule("Client(base_url)", "absent", "it is `host`, there as well"),
    Rule("*.systemone(*", "absent", _SYSTEMONE),
    # -- parameters
    Rule("*Client.*(model)", "differs", "required: without it the server refuses the request, there as well"),
    Rule("*Client.*(quantize)", "differs", "by name alone: the model to start from comes second, as programs write it"),
    Rule("*Client.create(from_)", "differs", "the second argument, not the third"),
    Rule("*Client.*(max_results)", "differs", "not given, the service decides; there it is 3"),
    Rule("*Client.create_blob(path)", "renamed", "`file`, which may be bytes as well"),
    Rule("*Client.*(*)", "differs", "by name alone: a position would break when the API gets a field in between"),
    # -- objects
    Rule("every object: model_dump()", "renamed", "`to_dict()`: replies are msgspec's Structs, not pydantic's models"),
    Rule("every object: model_dump_json()", "renamed", "`msgspec.json.encode(reply)`"),
    Rule("every object: model_validate()", "renamed", "`msgspec.convert(data, ChatResponse)`"),
    Rule("every object: model_validate_json()", "renamed", "`msgspec.json.decode(data, type=ChatResponse)`"),
    Rule("every object: model_json_schema()", "renamed", "`msgspec.json.schema(ChatResponse)`; of your own pydantic model it is `format=Answer.model_json_schema()`, as there"),
    Rule("every object: model_copy()", "renamed", "`copy.copy(reply)`, `msgspec.structs.replace(reply, ...)`"),
    Rule("every object: pydantic's other methods", "absent", "replies are no pydantic models"),
    Rule(tuple(f"EmbedResponse.{name}" for name in _UNSENT), "absent", _DONE),
    Rule("ShowResponse.modelinfo", "renamed", "`model_info`, as the API spells it; `reply[\"model_info\"]` there as well"),
    Rule(tuple(f"Options.{name}" for name in _IGNORED), "absent", _OLD),
    Rule("ListResponse.Model", "renamed", "`ListedModel`: no aliases inside of other types"),
    Rule("ProcessResponse.Model", "renamed", "`RunningModel`: no aliases inside of other types"),
    Rule("Message.ToolCall", "renamed", "`ToolCall`: no aliases inside of other types"),
    Rule("Message.ToolCall.Function", "renamed", "`Function`: no aliases inside of other types"),
    Rule("Tool.Function", "renamed", "`ToolFunction`: no aliases inside of other types"),
    Rule("Tool.Function.Parameters*", "absent", _SCHEMA),
    Rule("Tool.function", "differs", "required: a tool without it is none"),
    Rule("Tool.Function.name", "differs", "required: a function without a name cannot be called"),
    Rule("Image.*", "absent", "see `ollama.Image`"),
    Rule("SystemOne*", "absent", _SYSTEMONE),
    Rule("*.created_at", "differs", _EMPTY),
    Rule("*.model", "differs", _EMPTY),
    Rule("*.done", "differs", "false where a server leaves it out"),
    Rule("*.status", "differs", "required: there is no progress without it"),
    Rule("GenerateResponse.response", "differs", "a reply without it is not the API's, which is an error"),
    Rule("*.content", "differs", _EMPTY),
    Rule("RequestError.error", "absent", "`str(error)`"),
    Rule("*Error.status_code", "differs", "the status of the reply, also where the error came in the middle of a stream"),
    # -- ollama-js
    Rule("JS: Ollama", "renamed", "`AsyncClient`, or `Client`"),
    Rule("JS: Ollama.encodeImage", "absent", "`images` takes `bytes` and `Path` as they are"),
    Rule("JS: Ollama.webSearch", "renamed", "`web_search`"),
    Rule("JS: Ollama.webFetch", "renamed", "`web_fetch`"),
    Rule("JS: WebSearchRequest.maxResults", "renamed", "`max_results`"),
    Rule("JS: Ollama.abort", "differs", "it ends every request, streamed or not, and says how many"),
    Rule("JS: *systemone", "absent", _SYSTEMONE),
    Rule("JS: SystemOne*", "absent", _SYSTEMONE),
    Rule("JS: AbortableAsyncIterator*", "renamed", "`Stream`, with `abort()`"),
    Rule("JS: Config.fetch", "renamed", "`transport=`, httpx's"),
    Rule("JS: Config.proxy", "differs", "`proxy=` is its address, as in httpx"),
    Rule("JS: Config", "renamed", "the arguments of `AsyncClient` and `Client`"),
    Rule("JS: Fetch", "renamed", "httpx's `transport=`"),
    Rule("JS: CreateRequest.from", "renamed", "`from_`, because `from` is Python's own word"),
    Rule("JS: ShowRequest.template", "absent", "servers ignore it; `extra={\"template\": ...}` sends it"),
    Rule(tuple(f"JS: {name}" for name in _JS_CALLS), "renamed", "the arguments of the call"),
    Rule("JS: ModelResponse", "renamed", "`ListedModel` of `list`, `RunningModel` of `ps`"),
    Rule("JS: ErrorResponse*", "renamed", "`ResponseError`"),
    Rule("JS: WebFetchResponse.url", "absent", "the service does not send it"),
    Rule(tuple(f"JS: Options.{name}" for name in _IGNORED), "absent", _OLD),
]  # fmt: skip


class Verdict(NamedTuple):
    """What a name is here: ``"same"`` or a rule's verdict, and its text."""

    word: str
    text: str = ""
    rule: Rule | None = None


def of(entry: Entry) -> Verdict | None:
    """The verdict on a name; nothing where it is not the same and no rule knows it."""
    if same(entry):
        return Verdict("same")
    for rule in RULES:
        names = (rule.names,) if isinstance(rule.names, str) else rule.names
        if any(fnmatchcase(entry.name, name) for name in names) and (
            rule.verdict != "differs" or is_here(entry)
        ):
            return Verdict(rule.verdict, rule.text, rule)
    return None


def is_here(entry: Entry) -> bool:
    """Whether there is something of that name at all."""
    if entry.section == "Calls":
        cls: type = AsyncClient if entry.name.startswith("Async") else Client
        method, _, argument = entry.name.partition(".")[2][:-1].partition("(")
        found = getattr(cls, method, None)
        return found is not None and (
            not argument or argument in inspect.signature(found).parameters
        )
    if entry.section == "Objects":
        owner, _, member = entry.name.rpartition(".")
        cls = getattr(ollama_sc, CLASSES.get(owner, owner))
        return hasattr(cls, member) or member in inspect.signature(cls).parameters
    return True


def same(entry: Entry) -> bool:
    """Whether a program that has it there need not change it."""
    name = entry.name
    if name.startswith("JS: "):
        return _same_in_js(name.removeprefix("JS: "))
    if entry.section == "ollama":
        return hasattr(ollama_sc, name.removeprefix("ollama."))
    if entry.section == "Clients":
        return _same_argument(entry)
    if entry.section == "Calls":
        return _same_call(entry)
    owner, _, member = name.rpartition(".")
    if name.startswith("every object: "):
        return hasattr(ollama_sc.Message, name.removeprefix("every object: ").removesuffix("()"))
    return _same_field(owner, member, entry.default)


def _same_argument(entry: Entry) -> bool:
    name = entry.name[len("Client(") : -1]
    found = inspect.signature(Client).parameters.get(name)
    if found is not None:
        return name != "timeout" and repr(found.default) == entry.default
    return name in HttpxOptions.__annotations__ and name not in _OTHER_ARGUMENTS


def _same_call(entry: Entry) -> bool:
    cls: type = AsyncClient if entry.name.startswith("Async") else Client
    method, _, argument = entry.name.partition(".")[2][:-1].partition("(")
    found = getattr(cls, method, None)
    if found is None or not argument:
        return found is not None
    parameters = list(inspect.signature(found).parameters.values())[1:]
    parameter = next((one for one in parameters if one.name == argument), None)
    if parameter is None:
        return False
    by_position = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    if entry.position >= 0 and not (by_position and parameters[entry.position] is parameter):
        return False
    default = "" if parameter.default is parameter.empty else repr(parameter.default)
    required = {entry.default == "", default == ""}
    return len(required) == 1 and _equal(entry.default, default)


def _equal(there: str, here: str) -> bool:
    return there == here or {there, here} <= NOTHING


def _same_field(owner: str, member: str, default: str) -> bool:
    cls: Any = getattr(ollama_sc, CLASSES.get(owner, owner), None)
    if cls is None:
        return False
    if not issubclass(cls, msgspec.Struct):
        return member in inspect.signature(cls).parameters and member != "status_code"
    if member not in cls.__struct_fields__:
        return False
    field = next(one for one in msgspec.structs.fields(cls) if one.name == member)
    if default == "":  # required there
        return True
    here = "" if field.default is msgspec.NODEFAULT else repr(field.default)
    return here == default


def _same_in_js(name: str) -> bool:
    owner, _, member = name.partition(".")
    if owner == "Ollama":
        return member != "abort" and hasattr(AsyncClient, member)
    if owner in _JS_CALLS:
        return member in inspect.signature(getattr(AsyncClient, _JS_CALLS[owner])).parameters
    if owner == "Config":
        return member in ("host", "headers")
    classes = [ollama_sc.ListedModel, ollama_sc.RunningModel] if owner == "ModelResponse" else []
    classes = classes or [found for found in [getattr(ollama_sc, owner, None)] if found is not None]
    if not member:
        return owner != "ModelResponse" and bool(classes)
    return any(member in getattr(cls, "__struct_fields__", ()) for cls in classes)
