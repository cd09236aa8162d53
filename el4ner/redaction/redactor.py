"""Taking what was detected out of a text, so that no form of it is left.

What was detected anywhere in a document is removed everywhere in it (:mod:`el4ner.redaction.surfaces` says in which
forms). A kept type gives way: where ``Paris`` is a person's name once, it is removed where it is a city, too.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from el4ner.canonical.in_document import full_names
from el4ner.canonical.names import canonical_name
from el4ner.errors import ConfigError, DocumentError
from el4ner.redaction.folding import fold
from el4ner.redaction.key_ring import KeyRing
from el4ner.redaction.redaction_settings import Action, RedactionRule, RedactionSettings
from el4ner.redaction.substitutes import RemovedName, Substitutes
from el4ner.redaction.surfaces import SearchedText, SoughtSurfaces, Surface, surfaces_of
from el4ner.redaction.surrogates import SurrogateMaker

__all__ = ["Detection", "Redacted", "RedactionError", "Redactor", "Replacement"]


_MOST_PASSES: Final = 20
"""Texts take two or three. One that is made to take more is not worth its time."""


class RedactionError(DocumentError):
    """A document cannot be redacted. The message has nothing of its text."""

    code = "redaction"


@dataclass(frozen=True, slots=True, order=True)
class Detection:
    """``text[start:end]`` is of the type ``type``. Offsets are Unicode code points."""

    start: int
    end: int
    type: str
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Replacement:
    """``text[start:end]`` of the new text stands where the old one had what ``old_start`` to ``old_end`` held."""

    start: int
    end: int
    old_start: int
    old_end: int
    type: str
    action: Action


@dataclass(frozen=True, slots=True)
class Redacted:
    """A redacted text. ``replacements`` and ``kept`` (the detections that stayed) are in the order of the text, with
    offsets into it. ``key_id``: the key that pseudonyms were made with; None: there are none."""

    text: str
    replacements: tuple[Replacement, ...]
    kept: tuple[Detection, ...]
    key_id: str | None

    def old_offset(self, offset: int) -> int:
        """Where the old text had what the new one has at ``offset``; of a replacement, its beginning."""
        before = bisect_right(self.replacements, offset, key=lambda replacement: replacement.start)
        if before == 0:
            return offset
        last = self.replacements[before - 1]
        return last.old_start if offset < last.end else offset - last.end + last.old_end


@dataclass(frozen=True, slots=True)
class _Removal:
    """What is taken out, and for whom. ``detected``: it was detected at this place."""

    start: int
    end: int
    owner: int
    detected: bool = False


class Redactor:
    """Redacts texts by one policy. Safe to call from several threads.

    Raises:
        ConfigError: there has to be a key and there is none, or there are to be surrogates and Faker is not there or
            does not know their locale.
    """

    def __init__(self, settings: RedactionSettings, keys: KeyRing | None) -> None:
        if keys is None and settings.needs_keys:
            raise ConfigError("redaction: pseudonyms and surrogates need a key")
        self._settings = settings
        self._key = None if keys is None else keys.current
        self._surrogates = (
            SurrogateMaker(settings.surrogate_locale, keys.current)
            if settings.has_surrogates and keys is not None
            else None
        )

    def redact(self, text: str, detections: Iterable[Detection], *, pool: str | None = None) -> Redacted:
        """The text without what was detected.

        Args:
            detections: in any order; they may overlap.
            pool: whose rules hold.

        Raises:
            RedactionError: a detection is not in the text.
        """
        found = sorted(set(detections))
        for each in found:
            if not 0 <= each.start < each.end <= len(text):
                raise RedactionError(f"an entity from {each.start} to {each.end} is not in a text of {len(text)}")
        rules = {each.type: self._settings.rule(pool, each.type) for each in found}
        removed = [each for each in found if _is_removed(each, rules[each.type])]
        if not removed:
            return Redacted(text, (), tuple(found), None)
        names = dict(
            zip(removed, self._names([(each.type, text[each.start : each.end]) for each in removed]), strict=True)
        )
        identities = {name: _identity(name) for name in names.values()}
        spellings: dict[tuple[str, str], set[str]] = defaultdict(set)
        for each, name in names.items():
            spellings[each.type, identities[name]].add(canonical_name(name))
        owners = [RemovedName(*key, frozenset(spellings[key]), rules[key[0]]) for key in sorted(spellings)]
        numbers = {(owner.type, owner.identity): number for number, owner in enumerate(owners)}
        removals, surfaces = [], set[Surface]()
        for each in removed:
            number = numbers[each.type, identities[names[each]]]
            removals.append(_Removal(each.start, each.end, number, detected=True))
            surfaces.update(surfaces_of(text[each.start : each.end], number, parts=bool(rules[each.type].parts)))
        searched = SearchedText(text)
        sought = SoughtSurfaces(surfaces)
        merged = _all_removals(searched, removals, sought)
        substitutes = Substitutes(
            searched,
            owners,
            key=self._key,
            digits=self._settings.pseudonym_digits,
            surrogates=self._surrogates,
            taken=sought.letters,
        )
        kept = [each for each in found if each not in names]
        redacted = self._replaced(text, merged, owners, substitutes, kept)
        for _ in range(_MOST_PASSES):
            if not (clashing := _clashing(redacted, merged, substitutes, sought)):
                return redacted
            substitutes.pass_over(clashing)
            redacted = self._replaced(text, merged, owners, substitutes, kept)
        substitutes.without_surrogates()
        return self._replaced(text, merged, owners, substitutes, kept)

    def _names(self, mentions: Sequence[tuple[str, str]]) -> list[str]:
        """What the pseudonym of each is made of: of a short form, what its long form's is made of."""
        if not self._settings.join_short_forms:
            return [surface for _, surface in mentions]
        return full_names(mentions)

    def _replaced(
        self,
        text: str,
        removals: Sequence[_Removal],
        owners: Sequence[RemovedName],
        substitutes: Substitutes,
        kept: Sequence[Detection],
    ) -> Redacted:
        pieces: list[str] = []
        replacements: list[Replacement] = []
        place = size = 0
        for removal in removals:
            instead, action = substitutes.write(removal.owner, removal.start, removal.end)
            pieces += (text[place : removal.start], instead)
            size += removal.start - place
            replacements.append(
                Replacement(size, size + len(instead), removal.start, removal.end, owners[removal.owner].type, action)
            )
            size += len(instead)
            place = removal.end
        pieces.append(text[place:])
        has_keyed = any(replacement.action != "mask" for replacement in replacements)
        key_id = self._key.id if has_keyed and self._key is not None else None
        return Redacted("".join(pieces), tuple(replacements), tuple(_moved(kept, replacements)), key_id)


def _is_removed(detection: Detection, rule: RedactionRule) -> bool:
    return rule.action != "keep" and detection.confidence >= (rule.floor or 0.0)


def _identity(surface: str) -> str:
    """A name as it is compared: one for all of its forms."""
    letters = next(fold(surface)).letters
    return letters or " ".join(unicodedata.normalize("NFKC", surface).casefold().split())


def _all_removals(searched: SearchedText, detected: Sequence[_Removal], surfaces: SoughtSurfaces) -> list[_Removal]:
    """What is taken out, until nothing is left: what was beside a removed piece may be a word of its own now."""
    removals = _merged([*detected, *(_Removal(m.start, m.end, m.owner) for m in searched.find(surfaces))])
    pieces = list(_left_of(0, len(searched.text), removals))
    for _ in range(_MOST_PASSES):
        more: list[_Removal] = []
        left: list[tuple[int, int]] = []
        for start, end in pieces:
            found = _merged(_Removal(m.start, m.end, m.owner) for m in searched.find_between(start, end, surfaces))
            if found:  # of a piece in which nothing is found no more is to be expected
                more += found
                left += _left_of(start, end, found)
        if not more:
            return removals
        removals = _merged([*removals, *more])
        pieces = left
    raise RedactionError(f"after {_MOST_PASSES} passes there is still something left of it to be taken out")


def _left_of(start: int, end: int, removals: Iterable[_Removal]) -> Iterator[tuple[int, int]]:
    """The pieces of ``text[start:end]`` between removals."""
    for removal in removals:
        if start < removal.start:
            yield start, removal.start
        start = removal.end
    if start < end:
        yield start, end


def _merged(removals: Iterable[_Removal]) -> list[_Removal]:
    """Pieces that overlap are one, and the largest of them says whose it is."""
    merged: list[_Removal] = []
    best: list[tuple[int, bool, int, int]] = []
    for each in sorted(set(removals), key=lambda removal: (removal.start, removal.end, removal.owner)):
        rank = (each.start - each.end, not each.detected, each.start, each.owner)
        if merged and each.start < merged[-1].end:
            best[-1] = min(best[-1], rank)
            last = merged[-1]
            merged[-1] = _Removal(last.start, max(last.end, each.end), best[-1][3], last.detected or each.detected)
        else:
            merged.append(each)
            best.append(rank)
    return merged


def _clashing(
    redacted: Redacted, removals: Sequence[_Removal], substitutes: Substitutes, surfaces: SoughtSurfaces
) -> set[int]:
    """The names whose surrogates bring a removed name into the new text, by themselves or with what is beside them."""
    if not substitutes.has_surrogates:
        return set()
    replacements, clashing = redacted.replacements, set[int]()
    made_up = [place for place, removal in enumerate(removals) if substitutes.is_surrogate(removal.owner)]
    if not made_up:
        return set()
    for match in SearchedText(redacted.text).find(surfaces):
        first = bisect_right(replacements, match.start, key=lambda replacement: replacement.end)
        last = bisect_left(replacements, match.end, key=lambda replacement: replacement.start)
        places = [place for place in range(first, last) if substitutes.is_surrogate(removals[place].owner)]
        if first == last:
            # A neighbour lets it stand by itself, or makes an address of it.
            following = bisect_left(made_up, first)
            places = made_up[max(0, following - 1) : following + 1]
        clashing.update(removals[place].owner for place in places)
    return clashing


def _moved(kept: Sequence[Detection], replacements: Sequence[Replacement]) -> Iterable[Detection]:
    """What stayed, where it is in the new text; what was cut is left out."""
    for each in kept:
        before = bisect_right(replacements, each.start, key=lambda replacement: replacement.old_start)
        last = replacements[before - 1] if before else None
        following = replacements[before] if before < len(replacements) else None
        if (last is not None and each.start < last.old_end) or (
            following is not None and following.old_start < each.end
        ):
            continue
        shift = 0 if last is None else last.end - last.old_end
        yield Detection(each.start + shift, each.end + shift, each.type, each.confidence)
