"""A lexicon finds what a search of every surface at every place would find."""

import re

from hypothesis import given
from hypothesis import strategies as st

from el4ner.text.lexicon import Lexicon

ALPHABET = st.sampled_from("aAbB é1_.-'&İΣσ👍中 \n")
SURFACES = st.text(ALPHABET, min_size=1, max_size=6)
TEXTS = st.text(ALPHABET, max_size=40)


def fold(text: str) -> str:
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def is_whole(text: str, start: int, end: int) -> bool:
    begins = start == 0 or not (text[start - 1].isalnum() and text[start].isalnum())
    return begins and (end == len(text) or not (text[end - 1].isalnum() and text[end].isalnum()))


def brute_force(surfaces: list[str], text: str) -> set[tuple[int, int]]:
    found = set()
    for surface in map(str.strip, surfaces):
        words = re.findall(r"[^\W_]+", surface)
        telling = [word for word in words if word.lower() != "a" and any(map(str.isalpha, word))]
        if not telling or surface in ("b", "é", "σ"):
            continue  # of this alphabet, "a" is a function word
        for start in range(len(text) - len(surface) + 1):
            end = start + len(surface)
            same = text[start:end] == surface
            if fold(surface) == surface:
                same = fold(text[start:end]) == surface
            if same and is_whole(text, start, end):
                found.add((start, end))
    return found


@given(st.lists(SURFACES, max_size=8), TEXTS)
def test_it_finds_what_brute_force_finds(surfaces: list[str], text: str) -> None:
    spans = Lexicon(surfaces).find(text)
    assert {(span.start, span.end) for span in spans} == brute_force(surfaces, text)
    assert spans == sorted(spans, key=lambda span: (span.start, -span.end))
    assert len(set(spans)) == len(spans)
    assert all(text[span.start : span.end] == span.text for span in spans)


@given(TEXTS, st.data())
def test_whole_words_of_the_text_itself_are_found(text: str, data: st.DataObject) -> None:
    words = [found.span() for found in re.finditer(r"[A-Z1][^\W_]*", text) if is_whole(text, *found.span())]
    if words:
        start, end = data.draw(st.sampled_from(words))
        # "A" may be an article, and a number says too little: a lexicon of one of those is empty.
        found = [(span.start, span.end) for span in Lexicon([text[start:end]]).find(text)]
        assert (start, end) in found or text[start:end] == "A" or text[start:end].isdigit()


def test_nested_surfaces_and_letter_case() -> None:
    lexicon = Lexicon(["New York", "York", "New York Times", "machine learning", "us", "the", "x", "...", " Iran "])
    assert [span.text for span in lexicon.find("The New York Times on Machine learning in Iran, not Iranian, x")] == [
        "New York Times",
        "New York",
        "York",
        "Machine learning",
        "Iran",
    ]
    assert len(lexicon) == 5
    assert lexicon.find("NEW YORK, iran") == []


def test_a_large_lexicon_of_common_beginnings() -> None:
    lexicon = Lexicon(f"Type {number} of {number % 7}" for number in range(20_000))
    assert [span.text for span in lexicon.find("a Type 19999 of 0 and Type 5 of 6, Type 5 of 5")] == [
        "Type 19999 of 0",
        "Type 5 of 5",
    ]
