"""HTTP: the one room that knows it.

`client` holds what users configure on httpx, `exchange` is one request and its reply, sent the
short way through `transport`, or through httpx where settings need it (`foreign`). Below them:
`connection`, which stands on `sockets` and `reader`. `messages` is what the rest of the library
speaks.
"""

from .client import Http, HttpxOptions
from .messages import Request, Upload
from .transport import Transport

__all__ = ["Http", "HttpxOptions", "Request", "Transport", "Upload"]
