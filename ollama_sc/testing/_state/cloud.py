"""The account and the cloud behind the server, as clients see them."""

import base64
from dataclasses import dataclass
from typing import Any, Literal

from ollama_sc.testing._go.fields import ApiError

_KEY = base64.urlsafe_b64encode(b"ssh-ed25519 fake").decode().rstrip("=")
SIGNIN_URL = f"https://ollama.com/connect?name=fake&key={_KEY}"
LIMIT_TEXT = "you have reached your weekly usage limit"
_UNREACHABLE = 'Post "https://ollama.com:443%s": dial tcp: lookup ollama.com: no such host'

Via = Literal["local", "cloud", "stub"]


@dataclass(slots=True)
class Cloud:
    """The backend of `:cloud` models, stubs, web search and the account; may be modified.

    Attributes:
        signed_in: Whether the server is signed in to an account.
        disabled: Whether the cloud is switched off, so that its models and the web are refused.
        reachable: Whether ollama.com responds.
        limited: Seconds of `Retry-After` while the usage limit is reached, so that models draw
            429; None: not reached.
        plan: The plan of the account.

    """

    signed_in: bool = True
    disabled: bool = False
    reachable: bool = True
    limited: int | None = None
    plan: str = "free"

    def check(self, via: Via, what: str, path: str, *, stream: bool = False) -> None:
        """Raise the error that a request to the cloud draws; do nothing if there is none."""
        if via == "local":
            return
        if self.disabled:
            raise ApiError(403, f"ollama cloud is disabled: {what}")
        if not self.reachable:
            raise ApiError(502, _UNREACHABLE % path)
        if not self.signed_in:
            raise unauthorized()
        if self.limited is None:
            return
        if via == "cloud":
            raise ApiError(429, LIMIT_TEXT, headers={"Retry-After": str(self.limited)})
        shaped = {"StatusCode": 429, "Status": "429 Too Many Requests", "error": LIMIT_TEXT}
        raise ApiError(429, LIMIT_TEXT, body=shaped, ndjson=stream)

    def user(self) -> dict[str, Any]:
        """The account."""
        return {
            "id": "5b0c0d2e-1111-4222-8333-444455556666",
            "email": "user@ollama.example",
            "name": "user",
            "plan": self.plan or "free",
        }


def unauthorized() -> ApiError:
    """The 401 of a server that is not signed in."""
    body = {"error": "unauthorized", "signin_url": SIGNIN_URL}
    return ApiError(401, "unauthorized", body=body)
