"""What a server says of itself, of its user, and of the web."""

from ollama_sc._wire_object import WireObject, always, empty_list


class CloudStatus(WireObject, kw_only=True):
    """Whether the server may use ollama.com, and what decides that.

    Attributes:
        source: ``"none"``, ``"env"``, ``"config"`` or ``"both"``.
    """

    disabled: bool = always(bool)
    source: str | None = None


class ServerStatus(WireObject, kw_only=True):
    """A reply of ``GET /api/status``.

    Strict fields: none.
    """

    cloud: CloudStatus | None = None


class UserResponse(WireObject, kw_only=True):
    """A reply of ``POST /api/me``: who is signed in on the server.

    Strict fields: none.
    """

    id: str | None = None
    email: str | None = None
    name: str | None = None
    bio: str | None = None
    avatarurl: str | None = None
    firstname: str | None = None
    lastname: str | None = None
    plan: str | None = None


class Recommendation(WireObject, kw_only=True):
    """A model that the server recommends."""

    model: str
    description: str | None = None
    context_length: int | None = None
    max_output_tokens: int | None = None
    vram_bytes: int | None = None
    required_plan: str | None = None


class RecommendationsResponse(WireObject, kw_only=True):
    """A reply of ``GET /api/experimental/model-recommendations``.

    Strict field: `recommendations`, a list; what is no object in it is left out.
    """

    __strict__ = ("recommendations",)

    recommendations: list[Recommendation] = always(empty_list)


class WebSearchResult(WireObject, kw_only=True):
    """A page that was found."""

    title: str | None = None
    url: str | None = None
    content: str | None = None


class WebSearchResponse(WireObject, kw_only=True):
    """What a web search found.

    Strict field: `results`, a list; what is no object in it is left out.
    """

    __strict__ = ("results",)

    results: list[WebSearchResult] = always(empty_list)


class WebFetchResponse(WireObject, kw_only=True):
    """A page of the web.

    Strict fields: none.

    Attributes:
        links: the addresses on it.
    """

    title: str | None = None
    content: str | None = None
    links: list[str] | None = None


class VersionResponse(WireObject):
    """A reply of ``GET /api/version``.

    Strict field: `version`.
    """

    __strict__ = ("version",)

    version: str
