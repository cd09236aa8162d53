"""When two surfaces are the same name, which shorter forms a name has, and the id of a name.

A name is a surface in one way of writing: NFKC, case-folded, single spaces, without the punctuation around it, without
a possessive, without characters that only format (soft hyphens, marks of direction, tatweel). Of an ordinary name
hyphens, commas, apostrophes, the dots of initials and abbreviations, and spaces between initials and around ``&`` make
no difference either. Of identifiers (with digits, or one of ``/ \\ _ : @ =``) all that is inside stays: ``10.0.0.1`` is
not ``100.0.1``.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

__all__ = ["canonical_name", "entity_id", "short_forms"]


def _words(table: str) -> frozenset[str]:
    return frozenset(table.split())


_ID_DIGITS: Final = 32
_MOST_WORDS: Final = 12
"""A name with more words has no short forms."""
_MOST_PASSES: Final = 8
_IDENTIFIER: Final = re.compile(r"[\d/\\_:@=]")
_APOSTROPHES: Final = str.maketrans({"\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{MODIFIER LETTER APOSTROPHE}": "'"})
_POSSESSIVE: Final = re.compile(r"(?<=\w)(?:'s|(?<=s)')$")
_DOT: Final = re.compile(r"(?<=\b\w)\.|(?<=\w)\.(?=\s)")
"""That of an initial, and of an abbreviation before another word: J.K. Rowling, St. Louis. Not of node.js."""
_INITIALS_SPACE: Final = re.compile(r"(?<=\b[^\W\d_])\s+(?=[^\W\d_]\b)")
_AND_SIGN: Final = re.compile(r"(?<=\w)\s*&\s*(?=\w)")
_TATWEEL: Final = "\u0640"
_SEPARATORS: Final = re.compile(r"[-\u2010-\u2015,;\"“”„«»()\[\]{}<>|!?]+")
_QUALIFIERS: Final = _words(
    "new old north south east west northern southern eastern western northeast northwest southeast "
    "southwest central upper lower inner outer great greater little saint st san santa fort port mount "
    "lake neu neue alt nord süd ost west ober unter nouveau nouvelle nueva nuevo"
)
"""A first word that makes another name: Mexico is no short form of New Mexico."""
_SMALL_WORDS: Final = _words(
    "a an and at by de del della der des di die du el en et for für fur in la las le les los of on the to "
    "und van von y &"
)
"""Words that give no letter to an acronym, and are no name alone."""
_PERSONS: Final = _words("per person persons people human individual")
"""Types, case-folded, whose first words are names: of Angela Merkel, Angela. Amazon is not Amazon Web Services."""
_LEGAL_FORMS: Final = _words(
    "ab ag aps as asa bv co company corp corporation eg ev gmbh inc incorporated kg kgaa kk limited llc llp lp ltd mbh "
    "nv oy oyj plc pte pty sa sarl sas se spa srl ug"
)
"""Last words that make no other organization: of Deutsche Bank AG, Deutsche Bank."""


@lru_cache(maxsize=16_384)
def canonical_name(surface: str) -> str:
    """The name that a surface writes. The name of a name is itself. Where nothing else is left, as of ``!!!``, it is
    the surface, case-folded."""
    visible = surface
    if not surface.isascii():  # ASCII has nothing that is invisible, and is in NFKC
        visible = "".join(each for each in surface if each != _TATWEEL and unicodedata.category(each) != "Cf")
        visible = unicodedata.normalize("NFKC", visible)
    plain = " ".join(visible.casefold().split())
    name = plain
    for _ in range(_MOST_PASSES):
        before, name = name, _reduced(name)
        if name == before:
            break
    return name or plain or surface


def _reduced(name: str) -> str:
    """``name``: case-folded."""
    if not name.isascii():
        name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).translate(_APOSTROPHES)
    name = _POSSESSIVE.sub("", _bare(name))
    if not _IDENTIFIER.search(name):
        name = _SEPARATORS.sub(" ", _DOT.sub("", name)).replace("'", "")
        name = _INITIALS_SPACE.sub("", _AND_SIGN.sub(" & ", name))
    return " ".join(_bare(name).split())


def _bare(name: str) -> str:
    """Without the punctuation around it. What a name may begin or end with stays: ``.net``, ``c++``, ``/var/log``."""
    start, end = 0, len(name)
    while start < end and name[start] not in "./\\_@#$&+~-" and not name[start].isalnum() and _is_edge(name[start]):
        start += 1
    while end > start and name[end - 1] not in "/\\_+#$&~" and not name[end - 1].isalnum() and _is_edge(name[end - 1]):
        end -= 1
    return name[start:end]


def _is_edge(character: str) -> bool:
    return character.isspace() or unicodedata.category(character)[0] == "P"


@lru_cache(maxsize=16_384)
def entity_id(kind: str, name: str) -> str:
    """The id of a name (:func:`canonical_name`) of a type: 32 hexadecimal digits, the same everywhere and for ever."""
    return hashlib.sha256(f"{kind}\0{name}".encode("utf-8", "surrogatepass")).hexdigest()[:_ID_DIGITS]


@lru_cache(maxsize=16_384)
def short_forms(kind: str, name: str) -> frozenset[str]:
    """The names that may stand for a longer name of a type in a text that has both: its last words, its initials, and
    its first words, if it is a person or only its legal form follows. ``angela merkel``: ``merkel``, ``angela``,
    ``am``. An identifier has none."""
    words = name.split()
    if not 1 < len(words) <= _MOST_WORDS or _IDENTIFIER.search(name):
        return frozenset()
    person = kind.casefold() in _PERSONS
    forms = {" ".join(words[:count]) for count in range(1, len(words)) if person or _is_legal_form(words[count:])}
    for first in range(1, len(words)):
        if words[first - 1] in _QUALIFIERS:
            break
        forms.add(" ".join(words[first:]))
    named = [word for word in words if word not in _SMALL_WORDS]
    for initials in ("".join(word[0] for word in words), "".join(word[0] for word in named)):
        if len(initials) > 1 and initials.isalpha():
            forms.add(initials)
    return frozenset(form for form in forms - {name} if _is_a_name(form))


def _is_legal_form(words: Sequence[str]) -> bool:
    plain = [word.strip(".") for word in words]
    return plain[-1] in _LEGAL_FORMS and all(word in _LEGAL_FORMS or word in ("&", "and", "und") for word in plain)


def _is_a_name(form: str) -> bool:
    words = form.split()
    if len(words) == 1 and words[0] in _QUALIFIERS:
        return False
    return any(word not in _SMALL_WORDS and sum(map(str.isalpha, word)) > 1 for word in words)
