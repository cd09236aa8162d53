"""Span proposals for prose: runs of capitalised words (with the small words that join names: *Bank of England*), the
parts of such runs, and runs of content words between function words and punctuation.

A part is proposed where it is often a name in its own right: the beginning and the end of a long run (*British* and
*Winston Churchill* in *British Prime Minister Winston Churchill*), a name with the common words that end its phrase
(*1979 United Kingdom general election*), a name with its article, and the shorter noun phrases inside a longer one.
Not proposed is what costs more than it finds: each word of a two-word name, and any part of a run whatever.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from el4ner.text.log_patterns import URL
from el4ner.text.prose_words import BREAKING_JOINERS, JOINERS, Word, content_runs, proper_runs, words_of
from el4ner.text.words import Chunk
from el4ner.types import Span

__all__ = ["prose_chunks"]

MAX_WORDS = 8
MAX_COMMON_WORDS = 4
MAX_TAIL = 3
MAX_SIDES = 2 * MAX_WORDS
"""The most words of a run whose sides are proposed at every possessive: a line of nothing but possessives would be
proposed hundreds of times over."""

# What is marked off by signs: a quoted title, a hashtag with its sign, an address on the web.
_MARKED_OFF = re.compile(rf"[\"“]\s?(?P<quoted>[^\"“”]{{1,60}}?)\s?[\"”]|(?P<tag>(?<!\w)#\w+)|(?P<url>{URL})")


def prose_chunks(text: str) -> list[Chunk]:
    """The proposals for one sentence, in no order; a span may stand there twice."""
    words = words_of(text)
    found: list[Chunk] = []
    place = {word.start: index for index, word in enumerate(words)}
    for run in proper_runs(text, words):
        found.extend(_chunk(text, part, proper=True) for part in _run_and_parts(run))
        before = words[max(place[run[0].start] - 1, 0)]
        if before.text == "The" and text[before.end : run[0].start] == " ":
            found.append(_chunk(text, [before, *run], proper=True))
    for run in content_runs(text, words):
        found.extend(_common_parts(text, run))
    found.extend(_marked_off(text))
    return found


def _marked_off(text: str) -> Iterator[Chunk]:
    for match in _MARKED_OFF.finditer(text):
        start, end = match.span(match.lastgroup or 0)
        if match.lastgroup == "url":
            end = start + len(text[start:end].rstrip(".,;:!?)"))
        surface = text[start:end]
        if surface and surface == surface.strip() and len(surface.split()) <= MAX_WORDS:
            yield Chunk(Span(start, end, surface), proper=True)


def _chunk(text: str, words: list[Word], *, proper: bool) -> Chunk:
    start, end = words[0].start, words[-1].end
    return Chunk(Span(start, end, text[start:end]), proper)


def _run_and_parts(run: list[Word]) -> list[list[Word]]:
    """The run itself, what lies between its joiners, and the capitalised stretches between those with their parts."""
    coarse = [list(group) for group in _between(run, BREAKING_JOINERS)]
    fine = [list(group) for group in _between(run, JOINERS)]
    spans = [part for part in (run, *coarse) if len(part) <= MAX_WORDS] + fine
    spans.extend(_without_first(spans))
    for part in fine:
        if len(part) >= 3:
            spans.extend((part[:1], part[:2], part[-2:]))
        if len(part) >= 4:
            spans.append(part[-3:])
    place = {word.start: index for index, word in enumerate(run)}
    for one, other in pairwise(fine):
        between = run[place[one[-1].start] + 1 : place[other[0].start]]
        if between and between[0].text == "of":
            spans.extend(([*one, *between, *other], [one[-1], *between, *other]))
    return spans


def _between(run: list[Word], separators: frozenset[str]) -> Iterator[list[Word]]:
    """The stretches of a run between words of ``separators``, without joiners at their ends."""
    part: list[Word] = []
    for word in [*run, None]:
        if word is None or word.text in separators:
            while part and part[-1].text in JOINERS:
                part.pop()
            if part:
                yield part
            part = []
        elif part or word.text not in JOINERS:
            part.append(word)


def _without_first(spans: list[list[Word]]) -> list[list[Word]]:
    """*President Barack Obama* is also *Barack Obama*: what stands before a name is often a title in capitals.
    And a name with a possessive inside (*Serbian People's Party*) is also its two sides (*Tower's Senate*)."""
    more = []
    for words in spans:
        if len(words) >= 3 and words[1].text not in JOINERS:
            more.append(words[1:])
        for index in range(1, len(words) if len(words) <= MAX_SIDES else 0):
            if words[index].start - words[index - 1].end >= 3 and words[index].text not in JOINERS:
                more.extend((words[:index], words[index:]))
    return more


def _common_parts(text: str, run: list[Word]) -> list[Chunk]:
    """A run of content words, each change between common words and names inside it, and the parts of such stretches."""
    spans = [run, run[-2:]] if len(run) >= 2 else [run]
    stretches: list[list[Word]] = []
    for word in run:
        if stretches and word.proper == stretches[-1][0].proper:
            stretches[-1].append(word)
        else:
            stretches.append([word])
    spans.extend(stretches)
    for stretch in stretches:
        if not stretch[0].proper:
            spans.extend(stretch[at : at + size] for size in (2, 3) for at in range(len(stretch) - size + 1))
    found = [_chunk(text, part, proper=any(w.proper for w in part)) for part in spans if len(part) <= MAX_COMMON_WORDS]
    for name, common in pairwise(stretches):
        if name[0].proper and len(name) <= MAX_WORDS:
            found.extend(
                _chunk(text, [*name, *common[:size]], proper=True) for size in range(2, min(len(common), MAX_TAIL) + 1)
            )
    return found
