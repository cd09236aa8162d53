"""Requests that no engine has to look through."""

from __future__ import annotations

import pytest

from el4ner.engines.base import Prompt, StateRequest

PROMPT = Prompt("Label names.", "Ada met Bob.")


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        (((1,),), "marks of 1 tails for 2 tails"),
        (((1,), (), ()), "marks of 3 tails for 2 tails"),
        (((), (3, 2)), r"marks of the tail '- Bob' do not ascend: \(3, 2\)"),
        (((2, 2), ()), "marks of the tail 'Ada' do not ascend"),
        (((0, 2), ()), "marks of the tail 'Ada' are not within 1 to 3"),
        (((), (-1,)), "marks of the tail '- Bob' are not within 1 to 5"),
        (((4,), ()), r"marks of the tail 'Ada' are not within 1 to 3: \(4,\)"),
    ],
)
def test_marks_that_fit_no_tail_are_refused(marks: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StateRequest(PROMPT, ("Ada", "- Bob"), marks)


def test_a_tail_without_marks_has_its_end() -> None:
    assert StateRequest(PROMPT, ("Ada", "- Bob")).ends == ((3,), (5,))
    assert StateRequest(PROMPT, ("Ada", "- Bob"), ((1, 3), ())).ends == ((1, 3), (5,))
    assert StateRequest(PROMPT, ()).ends == ()
