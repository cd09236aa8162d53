"""JSON as bytes, and names of JSON data."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

__all__ = ["canonical", "dumps", "fingerprint"]


def dumps(data: Any) -> bytes:
    """Compact UTF-8 JSON."""
    return orjson.dumps(data)


def canonical(data: Any) -> bytes:
    """The same bytes for equal data: keys are sorted."""
    return orjson.dumps(data, option=orjson.OPT_SORT_KEYS)


def fingerprint(*parts: Any) -> str:
    """A stable name of JSON data: 32 hexadecimal digits."""
    return hashlib.sha256(canonical(parts)).hexdigest()[:32]
