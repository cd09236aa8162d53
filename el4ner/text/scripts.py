"""Which scripts are written without spaces between words: where white space says nothing about where words are."""

from __future__ import annotations

from typing import Final

import regex

__all__ = ["UNSPACED", "is_unspaced"]

UNSPACED: Final = (
    r"[[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Bopomofo}"
    r"\p{scx=Thai}\p{scx=Lao}\p{scx=Khmer}\p{scx=Myanmar}\p{scx=Tibetan}\p{Line_Break=SA}]&&[\p{L}\p{N}]]"
)
"""A letter or a digit of such a script, for patterns of the library `regex` with ``regex.VERSION1``. Scripts by
Unicode's Script_Extensions; ``Line_Break=SA`` are the further scripts of South East Asia whose lines are broken by a
dictionary. Hangul is not among them: Korean has spaces."""

_UNSPACED = regex.compile(UNSPACED, regex.VERSION1)


def is_unspaced(character: str) -> bool:
    """Whether a character is a letter or digit of a script without spaces between words: Han, Hiragana, Katakana,
    Bopomofo, Thai, Lao, Khmer, Myanmar, Tibetan. Punctuation and marks are not, whoever uses them."""
    return _UNSPACED.fullmatch(character) is not None
