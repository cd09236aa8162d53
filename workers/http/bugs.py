"""What is logged of a bug: where it was, and never its message, which may quote a text."""

from __future__ import annotations

import traceback
from typing import Any, Final

__all__ = ["logged_of"]

_MOST_FRAMES: Final = 8


def logged_of(bug: Exception) -> dict[str, Any]:
    """Its type, and where it was raised, for a log line's ``extra``."""
    frames = traceback.extract_tb(bug.__traceback__)[-_MOST_FRAMES:]
    return {
        "error": type(bug).__name__,
        "where": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
