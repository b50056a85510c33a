"""The account, the cloud's status, web search and fetch, recommendations."""

import hashlib

from ollama_sc.testing._go.fields import ApiError, Fields
from ollama_sc.testing._http.request import RecordedRequest
from ollama_sc.testing._replies import Message, json_message
from ollama_sc.testing._state.cloud import unauthorized
from ollama_sc.testing._state.state import State

_RESULTS = 5
_MOST_RESULTS = 10
_RECOMMENDATIONS = (
    {"model": "gemma4", "description": "local", "vram_bytes": 12_000_000_000},
    {
        "model": "gpt-oss:120b-cloud",
        "description": "big",
        "context_length": 131_072,
        "max_output_tokens": 65_536,
    },
)


def status(state: State) -> Message:
    """Whether the cloud is switched off."""
    disabled = state.cloud.disabled
    return json_message({"cloud": {"disabled": disabled, "source": "env" if disabled else "none"}})


def me(state: State) -> Message:
    """The account."""
    if not state.cloud.reachable:
        raise ApiError(503, "account unavailable")
    if not state.cloud.signed_in:
        raise unauthorized()
    return json_message(state.cloud.user())


def sign_out(state: State) -> Message:
    """Sign out of the account."""
    if not state.cloud.reachable:
        raise ApiError(500, "there was an error signing out")
    if not state.cloud.signed_in:
        raise ApiError(401, "you are not currently signed in")
    state.cloud.signed_in = False
    return json_message(None)


def recommendations() -> Message:
    """The recommended models."""
    return json_message({"recommendations": list(_RECOMMENDATIONS)})


def relayed_search(request: RecordedRequest, state: State) -> Message:
    """Web search relayed by the local server, with its account and without a key."""
    state.cloud.check("cloud", "web search is unavailable", "/api/web_search")
    return _search(request.body)


def relayed_fetch(request: RecordedRequest, state: State) -> Message:
    """A web page relayed by the local server."""
    state.cloud.check("cloud", "web fetch is unavailable", "/api/web_fetch")
    return _fetch(request.body)


def hosted_search(request: RecordedRequest, state: State) -> Message:
    """Web search as on ollama.com, with a key."""
    _check_key(request, state)
    return _search(request.body)


def hosted_fetch(request: RecordedRequest, state: State) -> Message:
    """A web page as on ollama.com, with a key."""
    _check_key(request, state)
    return _fetch(request.body)


def _check_key(request: RecordedRequest, state: State) -> None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    key = key.strip()
    right = bool(key) if state.keys is None else key in state.keys
    if scheme.lower() != "bearer" or not right:
        raise ApiError(401, "unauthorized")


def _search(body: bytes) -> Message:
    fields = Fields.of_body(body, "WebSearchRequest")
    query = fields.string("query")
    if not query:
        raise ApiError(400, "query is required")
    count = min(fields.integer("max_results") or _RESULTS, _MOST_RESULTS)
    digest = hashlib.sha256(query.encode("utf-8", "replace")).hexdigest()
    results = [
        {
            "title": f"Result {number} for {query}",
            "url": f"https://example.com/{digest[:8]}/{number}",
            "content": f"Synthetic text {number} about {query}.",
        }
        for number in range(1, count + 1)
    ]
    return json_message({"results": results})


def _fetch(body: bytes) -> Message:
    url = Fields.of_body(body, "WebFetchRequest").string("url")
    if not url:
        raise ApiError(400, "url is required")
    page = {
        "title": f"Page at {url}",
        "content": f"Synthetic text of {url}.",
        "links": [f"{url.rstrip('/')}/next", "https://example.com/"],
    }
    return json_message(page)
