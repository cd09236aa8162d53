"""Where the surfaces of a pool occur in a text: names that were labelled once are likely to be names again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import regex

from el4ner.text.boundaries import WORD_CHARACTERS, boundaries
from el4ner.text.mentions import fold
from el4ner.text.scripts import is_unspaced
from el4ner.text.white_space import comparable
from el4ner.text.words import function_words
from el4ner.types import Span

__all__ = ["Lexicon"]

# Words, and every other character on its own, those of scripts without spaces too: a whole word begins and ends where
# one of these does.
_TOKEN = regex.compile(rf"{WORD_CHARACTERS}|\X", regex.VERSION1)
_ASCII_TOKEN = re.compile(r"[^\W_]+|.", re.DOTALL)  # the same, sooner


class Lexicon:
    """A set of surfaces, found in a text as whole words by walking a trie of words from each word on.

    A surface with a capital in it is found as it is written; one without, in any letter case. Surfaces without a word
    that has a letter and is no function word are left out (a bare number would be found in every address and time), a
    single lower-case letter too, a single character of a script without spaces (it would be found in every word that
    is written with it), and so is the white space around a surface. White space inside is any that may stand inside a
    name, and letters with marks may be composed or not (:func:`~el4ner.text.white_space.comparable`).

    Making one takes time and memory in the number of words in all surfaces, finding takes time in the number of words
    of the text times those of the longest surface that begins as the text goes on.
    """

    def __init__(self, surfaces: Iterable[str]) -> None:
        # One dictionary of (state, word) is a trie at a fraction of the memory of a dictionary for each state.
        self._exact: dict[tuple[int, str], int] = {}
        self._folded: dict[tuple[int, str], int] = {}
        self._ends: set[int] = set()
        self._states = 0
        for surface in surfaces:
            self._add(surface.strip())

    def __len__(self) -> int:
        """How many different surfaces are in it."""
        return len(self._ends)

    def find(self, text: str) -> list[Span]:
        """Every occurrence of a surface in ``text``, nested and overlapping ones too: by start, then longest first."""
        view = comparable(text)
        tokens = list(_tokens(view.form))
        folded = [fold(word) for _, _, word in tokens]
        spans: list[Span] = []
        words = [word for _, _, word in tokens]
        for first, (start, _, word) in enumerate(tokens):
            # Most words begin no surface.
            exact, in_any_case = self._exact.get((0, word)), self._folded.get((0, folded[first]))
            if (exact is None and in_any_case is None) or word.isspace():
                continue
            ends: set[int] = set()
            for trie, state, following in ((self._exact, exact, words), (self._folded, in_any_case, folded)):
                for index in range(first, len(tokens)):
                    if state is None:
                        break
                    if state in self._ends:
                        ends.add(tokens[index][1])
                    if index + 1 < len(tokens):
                        state = trie.get((state, following[index + 1]))
            places = (view.span(start, end) for end in sorted(ends, reverse=True))
            spans.extend(Span(*place, text[slice(*place)]) for place in places if place is not None)
        if spans and not text.isascii():
            whole = boundaries(text)
            spans = [span for span in spans if whole.allow(span.start, span.end)]
        return spans

    def _add(self, surface: str) -> None:
        form = comparable(surface).form
        words = [word for _, _, word in _tokens(form)]
        plain = [word for word in words if word[0].isalnum()]
        if not any(word.lower() not in function_words() and any(map(str.isalpha, word)) for word in plain):
            return
        if len(words) == 1 and (is_unspaced(form[0]) or (len(form) == 1 and form.islower())):
            return
        trie = self._folded if fold(form) == form else self._exact
        state = 0
        for word in words:
            following = trie.get((state, word))
            if following is None:
                self._states += 1
                following = trie[state, word] = self._states
            state = following
        self._ends.add(state)


def _tokens(form: str) -> Iterator[tuple[int, int, str]]:
    for match in (_ASCII_TOKEN if form.isascii() else _TOKEN).finditer(form):
        yield *match.span(), match.group()
