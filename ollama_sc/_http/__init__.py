"""HTTP, through httpx: the one room that knows it.

`client` holds what users configure, `exchange` sends one request and reads its reply, `pool` knows
what httpx hides, `messages` is what the rest of the library speaks.
"""

from .client import Http, HttpxOptions
from .messages import Request, Upload

__all__ = ["Http", "HttpxOptions", "Request", "Upload"]
