"""Which version of the server is played, and since when it has what; knows no endpoint."""

import re
from typing import Final

Since = tuple[int, int, int]

# The first stable server that has a thing.
TENSORS: Final = (0, 6, 1)
DEBUG: Final = (0, 11, 5)
REMOTE: Final = (0, 12, 0)  # /api/me, stubs, and the fields remote_model and remote_host
SIGNOUT: Final = (0, 12, 1)
LENGTHS: Final = (0, 12, 4)  # `truncate` and `shift` of chat and generate
CALL_INDEX: Final = (0, 12, 6)
BASE64: Final = (0, 12, 7)
CALL_ID: Final = (0, 12, 10)
LOGPROB_BYTES: Final = (0, 12, 11)
REQUIRES: Final = (0, 14, 0)
IMAGES: Final = (0, 14, 3)  # image generation came...
NO_IMAGES: Final = (0, 32, 6)  # ... and went
STATUS: Final = (0, 16, 2)
SUFFIXES: Final = (0, 17, 6)  # `:cloud` and `:local`
WEB: Final = (0, 18, 0)
THINK_MAX: Final = (0, 22, 0)
RECOMMENDATIONS: Final = (0, 22, 1)
# Capabilities and lengths in tags, drafts. No source says when generative models began to embed,
# an empty text in a batch too, and show to complete names in its 404: 0.24.0 did none of it.
NEWER_ENGINE: Final = (0, 30, 0)


class Version:
    """A version, such as `0.33.0-rc2`.

    Args:
        text: What `/api/version` answers. What is no number, such as `dev`, is newest.

    """

    def __init__(self, text: str) -> None:
        self.text = text
        found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
        self._number: Since | None = None
        if found is not None:
            self._number = (int(found[1]), int(found[2]), int(found[3] or 0))

    def has(self, since: Since) -> bool:
        """Whether a thing is in this version."""
        return self._number is None or self._number >= since
