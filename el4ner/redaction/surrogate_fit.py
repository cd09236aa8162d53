"""A made-up value as it is written in the place of what is removed: all of it or a part, in its case, as one word."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import chain
from typing import Final, Literal

from el4ner.redaction.folding import GENITIVE, fold, folded_forms, is_unspaced
from el4ner.redaction.surrogates import Surrogate, SurrogateName

__all__ = ["NamePart", "fitted", "name_part"]

NamePart = Literal["full", "first", "last", "initials"]

_MOST_WORDS: Final = 12
_CAPITALS: Final = 5
"""So many capitals are a name that is written large; fewer may be initials: IBM."""
_SEPARATOR: Final = re.compile(r"(?<=\w)(%20|[-._+])(?=\w)")


def name_part(piece: str, names: Iterable[str]) -> NamePart:
    """Which part of a person's name a piece of text is, in whatever form. ``names``: the whole name, as it was
    detected. What cannot be told is all of it."""
    letters = {folded.letters for folded in fold(GENITIVE.sub("", piece))}
    letters |= {each.removesuffix("s") for each in letters}
    parts: set[NamePart] = set()
    for name in names:
        forms = _parts(name)
        parts |= {forms[each] for each in letters if each in forms}
    return min(parts, key=("full", "last", "first", "initials").index) if parts else "full"


@lru_cache(maxsize=4_096)
def _parts(name: str) -> Mapping[str, NamePart]:
    """The forms of a name's parts, and which part each is."""
    words = name.split()[:_MOST_WORDS]
    if len(words) == 1:
        # Merkel alone is a last name more often than not. In a script without spaces it may be both.
        return {} if any(map(is_unspaced, name)) else dict.fromkeys(_letters_of(name), "last")
    parts: dict[str, NamePart] = {}
    initials = "".join(word[0] for word in words)
    shorter = chain(
        ((initials, "initials"),),
        ((word, "first") for word in words),
        ((" ".join(words[:count]), "first") for count in range(1, len(words))),
        ((" ".join(words[first:]), "last") for first in range(1, len(words))),
        ((name, "full"),),
    )
    form: NamePart
    for text, form in shorter:  # type: ignore[assignment]
        parts.update(dict.fromkeys(_letters_of(text), form))
    return parts


def _letters_of(text: str) -> set[str]:
    return {letters for letters, _ in folded_forms(text)}


def fitted(surrogate: Surrogate, part: NamePart, piece: str, *, in_address: bool) -> str:
    """What is written in the place of ``piece``.

    Args:
        part: of a person's name; of anything else all of it.
        in_address: the piece stands in an address, a path or a file's name: it becomes one word of ASCII letters, with
            what stands between the words there.
    """
    if surrogate.is_code:
        text = surrogate.name.full
        return text if any(map(str.isspace, piece)) else text.replace(" ", "")
    if in_address:
        text = _chosen(surrogate.plain, part)
        between = _SEPARATOR.search(piece)
        return _in_case(text, piece).replace(" ", between[1] if between else "")
    genitive = GENITIVE.search(piece)
    return _in_case(_chosen(surrogate.name, part), piece) + (genitive[0] if genitive else "")


def _chosen(name: SurrogateName, part: NamePart) -> str:
    if part == "initials":
        return "".join(word[0] for word in name.full.split())
    return {"full": name.full, "first": name.first, "last": name.last}[part]


def _in_case(text: str, piece: str) -> str:
    if piece.islower():
        return text.lower()
    large = piece.isupper() and sum(unicodedata.category(letter) == "Lu" for letter in piece) >= _CAPITALS
    return text.upper() if large else text
