from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from el4ner.redaction.surface_index import SurfaceIndex

LETTERS = "abА李"


def one_by_one(words: list[str], text: str) -> Iterator[tuple[int, int]]:
    for number, word in enumerate(words):
        for place in range(len(text)):
            if text.startswith(word, place):
                yield place, number


@given(words=st.lists(st.text(LETTERS, min_size=1, max_size=6), max_size=60), text=st.text(LETTERS, max_size=60))
@example(words=["ab", "ab", "abab", *(f"ab{number}" for number in range(60))], text="ababab7")
def test_finds_each_word_wherever_it_stands(words: list[str], text: str) -> None:
    found = list(SurfaceIndex(words).places(text))
    assert sorted(found) == sorted(one_by_one(words, text))
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("beginning", ["", "thesame"])
def test_thousands_of_words_cost_no_more_than_the_text_is_long(beginning: str) -> None:
    """One after the other they would be as many passes over it."""
    words = [f"{beginning}{number:05}" for number in range(20_000)]
    found = {number for _, number in SurfaceIndex(words).places("".join(words) * 5)}
    assert len(found) == len(words)
