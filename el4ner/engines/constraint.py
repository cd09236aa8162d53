"""Lists of spans that an engine cannot leave: only words of the text, and then the end.

The language of an answer, behind a prompt that ends with ``-``::

    answer  = " " surface { "\\n- " surface } | " none"
    surface = a substring of the text, without line breaks and tabs, and without white space at its ends, with a
              letter or digit in it, that begins and ends between words, as :func:`el4ner.text.mentions.find_mentions`
              wants them

A line that repeats another is the last one: small models else say it for ever. (They may begin to, since a model that
must not repeat itself writes something worse: SmolLM2's spans were right half as often.) Behind a complete line, and
nowhere else, the answer ends: with the model's token for that, with a stop string that begins with a line break, or,
where no further line may follow, with a line break.

:class:`SpanLines` is the language, byte by byte; :class:`TokenMask` is one answer in the making, token by token;
:func:`gbnf` is the same language for engines that take grammars.

llguidance does not take its place. Its ``substring_chunks`` (1.9.1, tried with SmolLM2's tokenizer) keeps words whole,
but its grammars cannot say that a line that repeats another is the last one, so that an answer may go on for ever.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from el4ner.engines.vocabulary import TokenIds, Vocabulary
from el4ner.errors import EngineError
from el4ner.text.boundaries import boundaries

__all__ = ["SpanLines", "State", "TokenMask", "TokenMasks", "gbnf"]

_NEXT: Final = b"\n- "
_NONE: Final = b"none"
_NEVER: Final = -1
_BREAKS: Final = frozenset("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\t\x00")
"""Where :meth:`str.splitlines` cuts, tabs, which separate names, and NUL, at which grammars end."""
_KEPT: Final = 64
"""Languages that are kept with what they allowed: a sentence is often asked about twice, by two prompts."""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A part of the text without line breaks: where surfaces begin and end, and where its letters and digits are.
    All are places in the text, ascending."""

    starts: list[int]
    ends: list[int]
    words: list[int]

    def word_behind(self, start: int) -> int:
        """The first letter or digit at ``start`` or behind it."""
        return self.words[bisect_left(self.words, start)]


def _stretches(text: str, unwritable: frozenset[int] = frozenset()) -> Iterator[_Stretch]:
    """The parts that hold a word. Every start has an end, and every end a start."""
    whole = boundaries(text)
    breaks = [_breaks(character) or not unwritable.isdisjoint(character.encode()) for character in text]
    for start, end in whole.overlong:
        breaks[start:end] = [True] * (end - start)
    begin = 0
    while begin < len(text):
        if breaks[begin]:
            begin += 1
            continue
        end = begin
        while end < len(text) and not breaks[end]:
            end += 1
        stretch = _stretch(text, begin, end, whole.inside)
        if stretch is not None:
            yield stretch
        begin = end


def _stretch(text: str, begin: int, end: int, inside: frozenset[int]) -> _Stretch | None:
    """``text[begin:end]``, where no surface begins or ends at ``inside``; None where no surface fits into it."""
    words = [at for at in range(begin, end) if text[at].isalnum()]
    ends = [at for at in range(begin + 1, end + 1) if at not in inside and not text[at - 1].isspace()]
    if not words or not ends or words[0] >= ends[-1]:
        return None
    last_word = words[bisect_left(words, ends[-1]) - 1]
    starts = [at for at in range(begin, last_word + 1) if at not in inside and not text[at].isspace()]
    if not starts:
        return None
    first_word = words[bisect_left(words, starts[0])]
    return _Stretch(starts, ends[bisect_right(ends, first_word) :], words)


def _breaks(character: str) -> bool:
    """Also what no encoding can carry: half of a surrogate pair."""
    return character in _BREAKS or "\ud800" <= character <= "\udfff"


class _SurfaceNode:
    """A beginning of surfaces, and all the places in the text at which it stands. Made when it is first asked for."""

    __slots__ = ("_children", "_lines", "accepts", "depth", "starts")

    def __init__(self, lines: SpanLines, starts: Sequence[int], depth: int) -> None:
        self._lines = lines
        self._children: dict[int, _SurfaceNode] | None = None
        self.starts = starts
        self.depth = depth
        self.accepts = depth > 0 and any(lines.is_end(start, start + depth) for start in starts)

    @property
    def children(self) -> dict[int, _SurfaceNode]:
        """By the next byte. Each of them can be finished."""
        if self._children is None:
            apart: dict[int, list[int]] = {}
            for start in self.starts:
                byte = self._lines.byte_at(start, start + self.depth)
                if byte is not None:
                    apart.setdefault(byte, []).append(start)
            self._children = {byte: _SurfaceNode(self._lines, starts, self.depth + 1) for byte, starts in apart.items()}
        return self._children


class State(NamedTuple):
    """A place in an answer. Two are equal if the same may follow.

    ``surface``: what the line may be the beginning of; ``none``: how many bytes of ``none`` it is, or -1; ``behind``:
    what stands behind the last line, None within a line; ``listed``: the lines before; ``over``: no line may follow.
    """

    surface: _SurfaceNode | None
    none: int
    behind: bytes | None
    listed: frozenset[_SurfaceNode]
    over: bool


class SpanLines:
    """The answers that list spans of ``text``, as UTF-8: an :class:`~el4ner.engines.vocabulary.Automaton`.

    Whatever state :meth:`advance` gives, the answer can be finished from there. A text without words (letters or
    digits) has one answer, `` none``.

    Args:
        text: what spans are copied from.
        stop: the request's stop strings; those that begin with a line break end an answer as well.
        unwritable: bytes that cannot be written: characters that have one are no part of any surface.
    """

    def __init__(self, text: str, stop: Iterable[str] = (), *, unwritable: frozenset[int] = frozenset()) -> None:
        self._data = text.encode("utf-8", "surrogatepass")
        # In UTF-8, character by character: where each begins.
        at = [0]
        for character in text:
            code = ord(character)
            at.append(at[-1] + 1 + (code > 0x7F) + (code > 0x7FF) + (code > 0xFFFF))
        self._ends: set[int] = set()
        self._first_end: dict[int, int] = {}
        self._last_end: dict[int, int] = {}
        for stretch in _stretches(text, unwritable):
            self._ends.update(at[end] for end in stretch.ends)
            for start in stretch.starts:
                self._first_end[at[start]] = at[stretch.word_behind(start) + 1]
                self._last_end[at[start]] = at[stretch.ends[-1]]
        self._root = _SurfaceNode(self, list(self._last_end), 0)
        ends = [string.encode("utf-8", "surrogatepass") for string in stop if string.startswith("\n")]
        self._stop = frozenset(end for end in ends if unwritable.isdisjoint(end))

    def start(self) -> State:
        """Nothing is written."""
        return State(None, _NEVER, _NEXT[:-1], frozenset(), over=False)

    def advance(self, state: State, written: bytes) -> State | None:
        """The state after ``written``; None if no answer goes on like that."""
        for byte in written:
            behind = self._step(state, byte)
            if behind is None:
                return None
            state = behind
        return state

    def following(self, state: State) -> set[int]:
        """Bytes: every one that may follow is one of these. Not asked of an ended state, where any may."""
        if state.behind is not None:
            size = len(state.behind)
            return {end[size] for end in (*self._stop, _NEXT) if end.startswith(state.behind) and end[size:]}
        following = {_NEXT[0], *(state.surface.children if state.surface is not None else ())}
        if 0 <= state.none < len(_NONE):
            following.add(_NONE[state.none])
        return following

    def may_end(self, state: State) -> bool:
        """Whether what is written is a whole answer, or one with what ends it."""
        if state.behind is not None:
            return self.ended(state) or (state.over and state.behind == _NEXT[:1])
        return state.none == len(_NONE) or (state.surface is not None and state.surface.accepts)

    def ended(self, state: State) -> bool:
        """Whether a stop string is complete: what follows is cut off."""
        return state.behind in self._stop

    def complete(self, state: State) -> bool:
        """Whether the answer is whole and no other begins with it."""
        if state.behind is not None or not self.may_end(state):
            return self.may_end(state)
        if state.surface is None:
            return state.none == len(_NONE)
        # What repeats a line, and is not the beginning of a longer one.
        return state.surface in state.listed and not state.surface.children

    def nearest(self, answer: str) -> str:
        """The longest beginning of ``answer`` that is an answer; else `` none``."""
        written = answer.encode("utf-8", "surrogatepass")
        state, whole = self.start(), 0
        for index, byte in enumerate(written):
            behind = self._step(state, byte)
            if behind is None or self.ended(behind):
                break
            state = behind
            if state.behind is None and self.may_end(state):
                whole = index + 1
        return written[:whole].decode() or " none"

    def is_end(self, start: int, end: int) -> bool:
        """Whether a surface may go from byte ``start``, where one may begin, to byte ``end``."""
        return end in self._ends and end >= self._first_end[start]

    def byte_at(self, start: int, at: int) -> int | None:
        """Byte ``at`` of the text, unless no surface from ``start`` goes as far."""
        return self._data[at] if at < self._last_end[start] else None

    def _step(self, state: State, byte: int) -> State | None:
        if state.behind is not None:
            return self._step_behind(state, state.behind, byte)
        surface = state.surface.children.get(byte) if state.surface is not None else None
        spelt = 0 <= state.none < len(_NONE) and _NONE[state.none] == byte
        if surface is not None or spelt:
            return state._replace(surface=surface, none=state.none + 1 if spelt else _NEVER)
        if byte != _NEXT[0] or not self.may_end(state):
            return None
        line = state.surface if state.surface is not None and state.surface.accepts else None
        listed = state.listed if line is None else state.listed | {line}
        return State(None, _NEVER, _NEXT[:1], listed, over=line is None or line in state.listed)

    def _step_behind(self, state: State, behind: bytes, byte: int) -> State | None:
        if behind in self._stop:
            return state
        now = behind + bytes((byte,))
        # Before the first line there is nothing to stop behind.
        stops = (state.over or bool(state.listed)) and any(stop.startswith(now) for stop in self._stop)
        goes_on = not state.over and _NEXT.startswith(now)
        if stops and now in self._stop:
            return state._replace(behind=now)
        if goes_on and now == _NEXT:
            return State(self._root, _NEVER if state.listed else 0, None, state.listed, over=False)
        return state._replace(behind=now) if stops or goes_on else None


class TokenMask:
    """One answer in the making: what may follow, token by token. Made by :meth:`TokenMasks.mask`."""

    def __init__(self, lines: SpanLines, masks: TokenMasks, known: dict[State, TokenIds]) -> None:
        self._lines = lines
        self._masks = masks
        self._known = known
        self._state = lines.start()
        self.finished = False
        """Nothing can follow but the end: a driver need not ask the model for it."""

    def allowed(self) -> TokenIds:
        """The tokens that may be next, ascending, never none; end tokens among them where the answer may end. Not to
        be written to."""
        tokens = self._known.get(self._state)
        if tokens is None:
            tokens = self._known[self._state] = self._masks.allowed(self._lines, self._state)
        return tokens

    def feed(self, token: int) -> None:
        """Take in what was chosen.

        Raises:
            ValueError: ``token`` was not allowed.
        """
        if token in self._masks.ends:
            self.finished = True
            return
        written = self._masks.vocabulary.written(token)
        state = self._lines.advance(self._state, written) if written is not None else None
        if state is None:
            raise ValueError(f"token {token} may not follow here")
        self._state = state
        self.finished = self._lines.complete(state)


class TokenMasks:
    """Masks for one model. Not thread-safe, like the engine that it belongs to.

    Args:
        vocabulary: the model's.
        ends: the tokens that end an answer.

    Raises:
        EngineError: the vocabulary cannot spell a list.
    """

    def __init__(self, vocabulary: Vocabulary, ends: Iterable[int]) -> None:
        if not vocabulary.unwritable.isdisjoint(_NEXT + _NONE):
            raise EngineError(
                "answers cannot be constrained with this tokenizer, which spells no list: set method.constrain = false"
            )
        self.vocabulary = vocabulary
        self.ends = frozenset(ends)
        self._ends: TokenIds = np.asarray(sorted(self.ends), dtype=np.int64)
        self._kept: OrderedDict[tuple[str, tuple[str, ...]], tuple[SpanLines, dict[State, TokenIds]]] = OrderedDict()

    def mask(self, text: str, stop: tuple[str, ...] = ()) -> TokenMask:
        """For a new answer about ``text``."""
        entry = self._kept.pop((text, stop), None)
        if entry is None:
            entry = SpanLines(text, stop, unwritable=self.vocabulary.unwritable), {}
        self._kept[text, stop] = entry
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        lines, known = entry
        return TokenMask(lines, self, known)

    def allowed(self, lines: SpanLines, state: State) -> TokenIds:
        """The tokens that may follow ``state``, ascending: those that end the answer too, where it may end."""
        if lines.ended(state):
            return self._ends
        tokens = self.vocabulary.allowed(lines, state)
        return np.union1d(tokens, self._ends) if lines.may_end(state) else tokens


def gbnf(text: str, stop: Iterable[str] = ()) -> str:
    """The language of :class:`SpanLines` as a grammar in GBNF (llama.cpp, xgrammar), in ASCII; its root is ``root``.

    Its size goes with that of the text. One thing a grammar cannot say: lines may repeat.
    """
    rules: list[str] = []
    starts: list[str] = []
    for stretch in _stretches(text):
        last = stretch.ends[-1]
        for index, start in enumerate(stretch.starts):
            starts.append(f"b{start}")
            word = stretch.word_behind(start)
            if index + 1 < len(stretch.starts) and (behind := stretch.starts[index + 1]) <= word:
                # No word yet: on to where the next surface begins.
                rules.append(f"b{start} ::= {_quoted(text[start:behind])} b{behind}")
            else:
                end = stretch.ends[bisect_right(stretch.ends, word)]
                rules.append(f"b{start} ::= {_quoted(text[start:end])}{_rule_behind(end, last)}")
        for end, behind in pairwise(stretch.ends):
            rules.append(f"e{end} ::= ({_quoted(text[end:behind])}{_rule_behind(behind, last)})?")
    closings = [_quoted(string) for string in stop if string.startswith("\n")]
    closing = f" ({' | '.join(closings)})?" if closings else ""
    listing = ' | surface ("\\n- " surface)*' if starts else ""
    surfaces = [f"surface ::= {' | '.join(starts)}"] if starts else []
    return "\n".join([f'root ::= " " ("none"{listing}){closing}', *surfaces, *rules]) + "\n"


def _rule_behind(end: int, last: int) -> str:
    return f" e{end}" if end != last else ""


def _quoted(text: str) -> str:
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if " " <= character <= "~":
        return character
    if character == "\n":
        return "\\n"
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
