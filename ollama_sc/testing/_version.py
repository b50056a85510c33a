"""The version of the simulated server, and which version introduced what."""

import re
from typing import Final

Since = tuple[int, int, int]

# The first stable version that has the feature.
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
IMAGES: Final = (0, 14, 3)  # image generation was added...
NO_IMAGES: Final = (0, 32, 6)  # ... and removed
STATUS: Final = (0, 16, 2)
SUFFIXES: Final = (0, 17, 6)  # `:cloud` and `:local`
WEB: Final = (0, 18, 0)
THINK_MAX: Final = (0, 22, 0)
RECOMMENDATIONS: Final = (0, 22, 1)
# Capabilities and lengths in tags, draft models. No source says when generative models began to
# embed, batches to accept an empty text, and the 404 of show to complete names: 0.24.0 did not.
NEWER_ENGINE: Final = (0, 30, 0)


class Version:
    """A version, such as `0.33.0-rc2`.

    Args:
        text: What `/api/version` returns. A text without a number, such as `dev`, counts as newest.

    """

    def __init__(self, text: str) -> None:
        self.text = text
        found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
        self._number: Since | None = None
        if found is not None:
            self._number = (int(found[1]), int(found[2]), int(found[3] or 0))

    def has(self, since: Since) -> bool:
        """Whether this version has a feature introduced in `since`."""
        return self._number is None or self._number >= since
