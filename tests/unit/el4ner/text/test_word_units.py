"""The pieces that a span may begin or end with: they cover a text, in every script."""

from __future__ import annotations

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from el4ner.text.word_units import touched, word_units

SCRIPTS = "aB9_ éñ\u0301नरे्द्रשָׁعربيةไทย上海東京ひらカナ한글\u200c\u200d👨👩🇩🇪-/.'\u00a0\u3000\n\t"


def units(text: str) -> list[str]:
    return [text[start:end] for start, end in word_units(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t", []),
        ("Angela Merkel", ["Angela", "Merkel"]),
        ("well-known IL-2's", ["well", "-", "known", "IL", "-", "2", "'", "s"]),
        ("snake_case v1.2", ["snake_case", "v1", ".", "2"]),
        ("“Up, up!”", ["“", "Up", ",", "up", "!", "”"]),
        ("Andre\u0301 नरेन्द्र יִשְׂרָאֵל", ["Andre\u0301", "नरेन्द्र", "יִשְׂרָאֵל"]),
        ("서울에서 Москва", ["서울에서", "Москва"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("A\u00a0B\u3000C", ["A", "B", "C"]),
        ("👍🏽 ok", ["👍🏽", "ok"]),
        ("2,5\u20ac", ["2", ",", "5", "€"]),
    ],
)
def test_words_and_single_signs_are_units(text: str, expected: list[str]) -> None:
    assert units(text) == expected


@pytest.mark.parametrize(
    ("text", "word"), [("我在北京大学。", "北京"), ("ฉันไปกรุงเทพ", "กรุงเทพ"), ("東京タワーへ", "東京")]
)
def test_scripts_without_spaces_are_cut_into_words(text: str, word: str) -> None:
    found = units(text)
    assert "".join(found) == text
    assert 1 < len(found) < len(text)
    assert any(unit.startswith(word) for unit in found)


def test_a_name_of_two_scripts_is_cut_between_them() -> None:
    assert units("iPhone手机")[0] == "iPhone"


@given(st.text(alphabet=st.sampled_from(SCRIPTS), max_size=40) | st.text(max_size=40))
def test_units_cover_all_but_white_space_and_never_overlap(text: str) -> None:
    places = word_units(text)
    covered: list[int] = []
    for start, end in places:
        assert start < end
        covered += range(start, end)
    assert covered == sorted(set(covered)), "in order, apart"
    white_space = {match.start() for match in regex.finditer(r"\s", text)}
    assert set(range(len(text))) - white_space <= set(covered)
    assert not any(regex.search(r"\s", text[start]) for start, _ in places), "none begins with it"


@given(st.text(alphabet=st.sampled_from(SCRIPTS), max_size=30))
def test_a_mark_belongs_to_what_stands_before_it(text: str) -> None:
    for start, _ in word_units(text):
        if start and not text[start - 1].isspace():
            assert not regex.match(r"\p{Mn}", text[start])


@given(st.text(alphabet=st.sampled_from(SCRIPTS), min_size=1, max_size=30), st.data())
def test_a_place_touches_the_words_that_it_shares_a_character_with(text: str, data: st.DataObject) -> None:
    words = word_units(text)
    if not words:
        return
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    first, last = touched(words, (start, end))
    shared = [number for number, word in enumerate(words) if word[0] < end and start < word[1]]
    assert 0 <= first <= last < len(words)
    if shared:
        assert (first, last) == (shared[0], shared[-1])
    else:
        assert first == last
