"""HTTP: the one room that knows it.

`client` holds what users configure on httpx (`options`), `exchange` is one request and its reply,
sent the short way through `transport`, or through httpx where settings need it (`foreign`);
`inflate` undoes what a proxy compressed. Below them: `connection`, which stands on `sockets` (with
`tls`) and `reader`. `messages` is what the rest of the library speaks.
"""

from .client import Http
from .messages import Request, Upload
from .options import HttpxOptions
from .transport import Transport

__all__ = ["Http", "HttpxOptions", "Request", "Transport", "Upload"]
