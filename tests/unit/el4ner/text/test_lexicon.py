"""A lexicon finds what a search of every surface at every place would find."""

import re

from hypothesis import given
from hypothesis import strategies as st

from el4ner.text.lexicon import Lexicon

ALPHABET = st.sampled_from("aAbB é1_.-'&İΣσ👍中文 \n\u00a0")
BREAKS = "中文"
SURFACES = st.text(ALPHABET, min_size=1, max_size=6)
TEXTS = st.text(ALPHABET, max_size=40)


def fold(text: str) -> str:
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def is_whole(text: str, start: int, end: int) -> bool:
    return not any(
        0 < at < len(text) and all(c.isalnum() and c not in BREAKS for c in text[at - 1 : at + 1])
        for at in (start, end)
    )


def form(text: str) -> str:
    """What texts are compared by: white space that may stand inside a name is one space."""
    return re.sub(r"\s+", lambda match: match.group() if match.group().count("\n") > 1 else " ", text)


def brute_force(surfaces: list[str], text: str) -> set[tuple[int, int]]:
    found = set()
    for surface in map(str.strip, surfaces):
        surface = form(surface)
        words = re.findall(r"[^\W_]+", surface)
        telling = [word for word in words if word.lower() != "a" and any(map(str.isalpha, word))]
        if not telling or surface in ("b", "é", "σ", "中", "文"):
            continue  # of this alphabet, "a" is a function word
        for start in range(len(text)):
            for end in range(start + 1, len(text) + 1):
                same = form(text[start:end]) == surface
                if fold(surface) == surface:
                    same = fold(form(text[start:end])) == surface
                if same and is_whole(text, start, end) and text[start:end].strip() == text[start:end]:
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


def test_composed_or_not_and_whatever_white_space_stands_inside_the_name() -> None:
    lexicon = Lexicon(["André Morvan", "Malmo\u0308", "New York", "Rio\u00a0Tinto"])
    text = "Andre\u0301\u202fMorvan of Malmö, New\r\n  York, Rio Tinto; Malmo, New\tYork, New\n\nYork, Rio\tTinto"
    spans = lexicon.find(text)
    assert [span.text for span in spans] == ["Andre\u0301\u202fMorvan", "Malmö", "New\r\n  York", "Rio Tinto"]
    assert all(text[span.start : span.end] == span.text for span in spans)


def test_names_of_scripts_without_spaces_are_found_inside_a_row_of_characters() -> None:
    lexicon = Lexicon(["上海", "张伟", "美", "กรุงเทพ"])
    assert [span.text for span in lexicon.find("昨天张伟在上海，美丽 เขาไปกรุงเทพแล้ว")] == ["张伟", "上海", "กรุงเทพ"]
