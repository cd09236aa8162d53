"""What the chunkers of prose and of log lines share: the proposal itself, and the words that are never one alone."""

from __future__ import annotations

import unicodedata
from functools import cache
from importlib import resources
from typing import NamedTuple

from el4ner.types import Span

__all__ = ["Chunk", "function_words"]


class Chunk(NamedTuple):
    """A proposed span, and whether it looks like a name (capitals, digits) or like common words."""

    span: Span
    proper: bool


@cache
def function_words() -> frozenset[str]:
    """The closed-class words that bound a chunk: lower case, composed (NFC)."""
    lines = (resources.files("el4ner.text") / "function_words.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(unicodedata.normalize("NFC", word) for line in lines if line[:1] != "#" for word in line.split())
