"""Span proposals for prose: runs of capitalised words (with the small words that join names: *Bank of England*), the
parts of such runs, and runs of content words between function words and punctuation.

A part is proposed where it is often a name in its own right: the beginning and the end of a long run (*British* and
*Winston Churchill* in *British Prime Minister Winston Churchill*), a name with the common words that end its phrase
(*1979 United Kingdom general election*), a name with its article, and the shorter noun phrases inside a longer one.
Not proposed is what costs more than it finds: each word of a two-word name, and any part of a run whatever.

A script without capitals says nothing about which words are a name: there every stretch of a few words of a run is
proposed (:data:`MAX_CASELESS_WORDS`).

A name may go over the end of a line. Since a list has a name on each line, runs are taken line by line, and what goes
over a line's end is proposed as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

import regex

from el4ner.text.atoms import address_end
from el4ner.text.log_patterns import URL
from el4ner.text.prose_words import (
    BREAKING_JOINERS,
    JOINERS,
    Case,
    Word,
    caseless_runs,
    content_runs,
    lines_of,
    proper_runs,
    words_of,
)
from el4ner.text.white_space import is_gap, may_be_a_name
from el4ner.text.words import Chunk
from el4ner.types import Span

__all__ = ["prose_chunks"]

MAX_WORDS = 8
MAX_COMMON_WORDS = 4
MAX_CASELESS_WORDS = 4
"""The most words of a proposal in a script without capitals; ICU's words, where it has no spaces either."""
MAX_TAIL = 3
MAX_SIDES = 2 * MAX_WORDS
"""The most words of a run whose sides are proposed at every possessive: a line of nothing but possessives would be
proposed hundreds of times over."""

# What is marked off by signs: a quoted title, a hashtag with its sign, an address on the web.
_MARKED_OFF = regex.compile(
    r"[\"“]\s?(?P<quoted>[^\"“”]{1,60}?)\s?[\"”]|„\s?(?P<low>[^„“”]{1,60}?)\s?[“”]"
    r"|[«‹「『《]\s?(?P<pointed>[^«»‹›「」『』《》]{1,60}?)\s?[»›」』》]"
    rf"|(?P<tag>(?<!\w)#\w+)|(?P<url>{URL})"
)


# Nothing is marked off in a text without any of these.
_MAY_MARK_OFF = re.compile('["“„«‹「『《#]|://')


def prose_chunks(text: str) -> list[Chunk]:
    """The proposals for one sentence, in no order; a span may stand there twice, and the last one counts."""
    words = words_of(text)
    # Many parts of runs are parts of others too: so they are noted by their bounds first.
    proposals: dict[tuple[int, int], bool] = {}
    place = {word.start: index for index, word in enumerate(words)}
    for run in proper_runs(text, words):
        lines = lines_of(text, run)
        for parts in _by_lines(lines, _proper_parts):
            for part in parts:
                proposals[part[0].start, part[-1].end] = True
        for line in lines:
            before = words[max(place[line[0].start] - 1, 0)]
            if before.text == "The" and is_gap(text[before.end : line[0].start]):
                proposals[before.start, line[-1].end] = True
    for run in content_runs(text, words):
        for common in _by_lines(lines_of(text, run), _common_parts):
            for part in common:
                proposals[part[0].start, part[-1].end] = any(word.proper for word in part)
    for run in caseless_runs(text, words):
        for part in _caseless_parts(text, run):
            proposals[part[0].start, part[-1].end] = False
    chunks = [Chunk(Span(start, end, text[start:end]), proper) for (start, end), proper in proposals.items()]
    return [*chunks, *_marked_off(text)]


def _by_lines(
    lines: list[list[Word]], parts_of: Callable[[list[Word]], list[list[Word]]]
) -> Iterator[list[list[Word]]]:
    """The parts of each line, and of two lines those that go over the end of the first."""
    for line in lines:
        yield parts_of(line)
    for line, following in pairwise(lines):
        end = line[-1].end
        both = [*line[-MAX_WORDS:], *following[:MAX_WORDS]]
        yield [part for part in parts_of(both) if part[0].start < end < part[-1].end]


def _marked_off(text: str) -> Iterator[Chunk]:
    for match in _MARKED_OFF.finditer(text) if _MAY_MARK_OFF.search(text) else ():
        start, end = match.span(match.lastgroup or 0)
        if match.lastgroup == "url":
            end = address_end(text, start, end)
        surface = text[start:end]
        if surface and surface == surface.strip() and len(surface.split()) <= MAX_WORDS and may_be_a_name(surface):
            yield Chunk(Span(start, end, surface), proper=True)


def _proper_parts(words: list[Word]) -> list[list[Word]]:
    """Of a run, or of what is on one line of it: joiners may stand at the line's ends."""
    first, last = 0, len(words)
    while first < last and words[first].text in JOINERS:
        first += 1
    while last > first and words[last - 1].text in JOINERS:
        last -= 1
    return _run_and_parts(words[first:last]) if first < last else []


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
    for left, right in pairwise(fine):
        between = run[place[left[-1].start] + 1 : place[right[0].start]]
        if between and between[0].text == "of":
            spans.extend(([*left, *between, *right], [left[-1], *between, *right]))
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


def _common_parts(run: list[Word]) -> list[list[Word]]:
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
    parts = [part for part in spans if len(part) <= MAX_COMMON_WORDS]
    for name, common in pairwise(stretches):
        if name[0].proper and len(name) <= MAX_WORDS:
            parts.extend([*name, *common[:size]] for size in range(2, min(len(common), MAX_TAIL) + 1))
    return parts


def _caseless_parts(text: str, run: list[Word]) -> Iterator[list[Word]]:
    """Every stretch of a few words that has one without capitals in it and goes over one line's end at most, and a
    run that is not much longer. A number and the one character behind it (``3月``) count as one word."""
    units: list[list[Word]] = []
    for word in run:
        counted = units and units[-1][-1].text.isdigit() and units[-1][-1].end == word.start
        if counted and word.case is Case.UNSPACED and len(word.text) == 1:
            units[-1].append(word)
        else:
            units.append([word])
    if MAX_CASELESS_WORDS < len(units) <= MAX_WORDS and len(lines_of(text, run)) <= 2:
        yield run
    line = {word.start: number for number, words in enumerate(lines_of(text, run)) for word in words}
    for first in range(len(units)):
        part: list[Word] = []
        for unit in units[first : first + MAX_CASELESS_WORDS]:
            part = [*part, *unit]
            if line[unit[0].start] > line[part[0].start] + 1:
                break
            if any(word.case is not Case.CASED for word in part):
                yield part
