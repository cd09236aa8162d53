"""The name that somebody may have meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.nearest import choices, nearest, no_such

KNOWN = ["text", "spans", "max_document_chars", "topic_prefix", "default"]


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("txt", "text"),
        ("Text", "text"),
        ("span", "spans"),
        ("psans", "spans"),
        ("topicPrefix", "topic_prefix"),
        ("topic-prefix", "topic_prefix"),
        ("MAX_DOCUMENT_CHAR", "max_document_chars"),
        ("verifier", None),
        ("", None),
        ("x" * 1_000_000, None),
    ],
)
def test_the_name_that_is_most_like_it(name: str, like: str | None) -> None:
    assert nearest(name, KNOWN) == like


def test_an_error_names_the_nearest_and_all() -> None:
    assert no_such("setting", "defualt", ["k", "default"]) == (
        "there is no setting 'defualt'; nearest: 'default'; there are: k, default"
    )
    assert no_such("setting", "qq", []) == "there is no setting 'qq'; there are: none"


@given(st.text(), st.lists(st.text(max_size=300), max_size=60))
def test_any_names_make_a_bounded_line(name: str, known: list[str]) -> None:
    assert nearest(name, known) in [None, *known]
    assert len(choices(known)) < 1_000
    assert "\n" not in no_such("key", name, ["a", "b"])
