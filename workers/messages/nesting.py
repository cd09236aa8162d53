"""How deep JSON is nested: what can be read may be nested too deep to be written.

orjson reads 1,024 levels and writes 254. A document's metadata is handed on unread, some levels further in.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["MOST_METADATA_LEVELS", "is_nested_too_deep", "may_be_nested_too_deep"]

MOST_METADATA_LEVELS: Final = 200


def may_be_nested_too_deep(value: bytes) -> bool:
    """Whether JSON has enough brackets for it: a glance that mostly says no."""
    return value.count(b"[") + value.count(b"{") > MOST_METADATA_LEVELS


def is_nested_too_deep(metadata: Any) -> bool:
    """Whether the metadata has more levels than :data:`MOST_METADATA_LEVELS`."""
    level = [metadata]
    for _ in range(MOST_METADATA_LEVELS):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
