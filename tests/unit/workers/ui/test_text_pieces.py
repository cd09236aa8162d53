"""Text as the page gets it: in pieces that say what is in which entity, and what a screen would obey by its name."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.ui.text_pieces import text_pieces


def test_pieces_say_which_entities_they_are_inside_of() -> None:
    pieces = text_pieces("New York Times said", [(0, 8), (0, 14)])
    assert pieces == [["New York", [1, 0], None], [" Times", [1], None], [" said", [], None]]


def test_what_a_screen_would_obey_is_shown_by_its_name() -> None:
    pieces = text_pieces("a\u202egpj.exe\u2066\x1b[31m\x00\u200f\r\r\n\tz", [])
    names = [name for _, _, name in pieces if name is not None]
    assert names == ["U+202E", "U+2066", "ESC", "NUL", "U+200F", "CR"]
    shown = "".join(text for text, _, name in pieces if name is None)
    assert shown == "agpj.exe[31m\r\n\tz"


def test_joiners_and_flags_are_left_as_they_are() -> None:
    for text in ("می‌خواهم", "👨‍👩‍👧", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"):
        assert text_pieces(text, []) == [[text, [], None]]


@given(st.text(max_size=40), st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10)), max_size=5))
def test_pieces_are_the_whole_text_and_no_span_is_lost(text: str, starts: list[tuple[int, int]]) -> None:
    spans = [(start, start + length) for start, length in starts if start + length <= len(text)]
    position = 0
    inside: dict[int, list[int]] = {}
    for part, numbers, name in text_pieces(text, spans):
        length = 1 if name is not None else len(part)
        if name is None:
            assert text[position : position + length] == part
        for number in numbers:
            inside.setdefault(number, []).extend(range(position, position + length))
        position += length
    assert position == len(text)
    assert inside == {number: list(range(*span)) for number, span in enumerate(spans)}


def test_spans_inside_each_other_are_marked_as_deep_as_anybody_can_see() -> None:
    pieces = text_pieces("\x07" * 4_000, [(start, 4_000) for start in range(400)])
    assert len(pieces) == 4_000
    assert max(len(inside) for _, inside, _ in pieces) == 8
    assert pieces[-1][1] == list(range(8))
    # One that is over makes room.
    assert text_pieces("abc", [*[(0, 1)] * 9, (1, 3)])[-1][1] == [9]
