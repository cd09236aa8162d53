"""What the records of a file are, as its name tells."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final

__all__ = ["SUFFIXES", "InputFormat", "format_of"]


class InputFormat(StrEnum):
    """What a file's records are."""

    TEXT = "text"
    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"


SUFFIXES: Final[Mapping[str, InputFormat]] = {
    ".csv": InputFormat.CSV,
    ".tsv": InputFormat.TSV,
    ".tab": InputFormat.TSV,
    ".jsonl": InputFormat.JSONL,
    ".ndjson": InputFormat.JSONL,
    # A file of one object, or of JSON Lines by another name; an array says how to become lines.
    ".json": InputFormat.JSONL,
}


def format_of(path: Path) -> InputFormat:
    """By the file's name: ``.csv``, ``.tsv``, ``.jsonl`` (or ``.ndjson``, ``.json``), otherwise text."""
    return SUFFIXES.get(path.suffix.lower(), InputFormat.TEXT)
