"""Tokens as one text: with the spaces that their script is written with, or those that the file says."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

from el4ner.pools.read_options import Join
from el4ner.text.scripts import is_unspaced

__all__ = ["aligned", "join_of", "join_tokens"]

_NO_SPACE_BEFORE: Final = frozenset(".,;:!?%)]}'’”")
_NO_SPACE_AFTER: Final = frozenset("([{$£€“‘#@")
_SHARED_PUNCTUATION: Final = frozenset("“”‘’…—–·•")
"""Marks that both kinds of script use; beside a character of a script without spaces they have none either."""


def join_tokens(
    tokens: Sequence[str], join: Join = "script", *, glued: Sequence[bool] = ()
) -> tuple[str, list[tuple[int, int]]]:
    """Tokens as one readable text, and each token's offsets in it: code points, half-open.

    ``script``: a space between tokens, but for punctuation, and none between characters of scripts that are written
    without spaces (Chinese, Japanese, Thai, …). ``space``: as if there were no such scripts. ``none``: no spaces.
    ``glued``: whether each token follows its predecessor without a space, where the file says so.
    """
    pieces: list[str] = []
    offsets: list[tuple[int, int]] = []
    position = 0
    last = ""
    for index, token in enumerate(tokens):
        together = (glued[index] if glued else False) or not last or join == "none" or _together(last, token, join)
        if not together:
            pieces.append(" ")
            position += 1
        pieces.append(token)
        offsets.append((position, position + len(token)))
        position += len(token)
        last = token or last
    return "".join(pieces), offsets


def aligned(tokens: Sequence[str], text: str) -> list[tuple[int, int]] | None:
    """Each token's offsets in the text that the file gives for the sentence; None where the text is another one."""
    offsets = []
    position = 0
    for token in tokens:
        while not text.startswith(token, position) and position < len(text) and text[position].isspace():
            position += 1
        if not text.startswith(token, position):
            return None
        offsets.append((position, position + len(token)))
        position += len(token)
    return offsets if not text[position:].strip() else None


def join_of(sentences: Iterable[Sequence[str]], join: Join) -> Join:
    """How the sentences of one file are joined: as asked, but without any space where each token is one character.

    Then a word of another script is in pieces as well (``i P h o n e``), and no space is there to be restored.
    """
    return "none" if join == "script" and _written_by_character(sentences) else join


def _written_by_character(sentences: Iterable[Sequence[str]]) -> bool:
    unspaced = 0
    for token in (token for tokens in sentences for token in tokens if token):
        letters = sum(char.isalnum() for char in token)
        if letters > 1:
            return False
        unspaced += letters and is_unspaced(token[0])
    return unspaced > 1


def _together(left: str, right: str, join: Join) -> bool:
    if right[:1] in _NO_SPACE_BEFORE or left[-1] in _NO_SPACE_AFTER:
        return True
    if join == "space":
        return False
    before, after = _base(left), right[:1]
    dense_before, dense_after = _dense(before), _dense(after)
    if dense_before and dense_after:
        return True
    if _wide_punctuation(before) or _wide_punctuation(after):
        return True
    if dense_before:
        return after.isdecimal() or after in _SHARED_PUNCTUATION
    return dense_after and (before.isdecimal() or before in _SHARED_PUNCTUATION)


def _base(token: str) -> str:
    """The last character that is not a mark on the one before it (Thai vowels and tones are marks)."""
    for char in reversed(token):
        if not unicodedata.category(char).startswith("M"):
            return char
    return token[-1]


def _dense(char: str) -> bool:
    return bool(char) and is_unspaced(char)


def _wide_punctuation(char: str) -> bool:
    """、。「」《》（）： and their like, which bring their own room."""
    return bool(char) and unicodedata.east_asian_width(char) in "WF" and unicodedata.category(char)[0] == "P"
