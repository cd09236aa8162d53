"""Where the surfaces of a pool occur in a text: names that were labelled once are likely to be names again."""

from __future__ import annotations

import re
from collections.abc import Iterable

from el4ner.text.words import function_words
from el4ner.types import Span

__all__ = ["Lexicon"]

# Words as str.isalnum sees them, and every other character on its own: a whole word begins and ends where one of these
# does.
_TOKEN = re.compile(r"[^\W_]+|.", re.DOTALL)


class Lexicon:
    """A set of surfaces, found in a text as whole words by walking a trie of words from each word on.

    A surface with a capital in it is found as it is written; one without, in any letter case. Surfaces without a word
    that has a letter and is no function word are left out (a bare number would be found in every address and time), a
    single lower-case letter too, and so is the white space around a surface.

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
        tokens = [(found.start(), found.end(), found.group()) for found in _TOKEN.finditer(text)]
        folded = [_fold(word) for _, _, word in tokens]
        spans: list[Span] = []
        for first, (start, _, word) in enumerate(tokens):
            if word.isspace():
                continue
            ends: set[int] = set()
            for trie, words in ((self._exact, None), (self._folded, folded)):
                state: int | None = 0
                for index in range(first, len(tokens)):
                    state = trie.get((state or 0, words[index] if words else tokens[index][2]))
                    if state is None:
                        break
                    if state in self._ends:
                        ends.add(tokens[index][1])
            spans.extend(Span(start, end, text[start:end]) for end in sorted(ends, reverse=True))
        return spans

    def _add(self, surface: str) -> None:
        words = [found.group() for found in _TOKEN.finditer(surface)]
        plain = [word for word in words if word[0].isalnum()]
        if not any(word.lower() not in function_words() and any(map(str.isalpha, word)) for word in plain):
            return
        if len(surface) == 1 and surface.islower():
            return
        trie = self._folded if _fold(surface) == surface else self._exact
        state = 0
        for word in words:
            following = trie.get((state, word))
            if following is None:
                self._states += 1
                following = trie[state, word] = self._states
            state = following
        self._ends.add(state)


def _fold(text: str) -> str:
    """Lower case, one character at a time: lower-casing a whole string may change its length, or depend on context."""
    if text.isascii():
        return text.lower()
    return "".join([lower if len(lower := character.lower()) == 1 else character for character in text])
