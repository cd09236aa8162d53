"""Names are compared as people read them, and identifiers as machines do."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.canonical.in_document import full_names
from el4ner.canonical.names import canonical_name, entity_id, short_forms


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Angela Merkel", "ANGELA  MERKEL"),
        ("Merkel", "Merkel's"),
        ("Merkel", "Merkel\N{RIGHT SINGLE QUOTATION MARK}s"),
        ("James", "James'"),
        ("Jean-Luc Picard", "Jean\N{EN DASH}Luc Picard"),
        ("U.S.", "US"),
        ("J.P. Morgan", "JP Morgan"),
        ("Apple Inc.", "\N{LEFT DOUBLE QUOTATION MARK}Apple, Inc\N{RIGHT DOUBLE QUOTATION MARK}"),
        ("O'Neill", "O\N{RIGHT SINGLE QUOTATION MARK}Neill"),
        ("\N{FULLWIDTH LATIN CAPITAL LETTER I}BM", "ibm"),
        ("Straße", "STRASSE"),
        ("(10.0.0.1)", "10.0.0.1,"),
        ("J.K. Rowling", "J. K. Rowling"),
        ("J. R. R. Tolkien", "J.R.R. Tolkien"),
        ("U. S.", "US"),
        ("St. Louis", "St Louis"),
        ("AT&T", "AT & T"),
        ("Mer\u00adkel", "Merkel"),
        ("Angela\u200b Merkel", "Angela Merkel"),
        ("\u200fMerkel\u200f", "Merkel"),
        ("\u0645\u062d\u0640\u0640\u0645\u062f", "\u0645\u062d\u0645\u062f"),
    ],
)
def test_spellings_of_one_name(left: str, right: str) -> None:
    assert canonical_name(left) == canonical_name(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("10.0.0.1", "100.0.1"),
        ("node-1", "node 1"),
        ("/var/log/a", "/var/log-a"),
        ("C++", "C"),
        (".NET", "NET"),
        ("AT&T", "ATT"),
        ("Node.js", "Nodejs"),
        ("Müller", "Muller"),
    ],
)
def test_what_only_looks_alike_is_another_name(left: str, right: str) -> None:
    assert canonical_name(left) != canonical_name(right)


@given(st.text(min_size=1, max_size=20))
def test_the_name_of_a_name_is_itself(surface: str) -> None:
    name = canonical_name(surface)
    assert name
    assert canonical_name(name) == name


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=20))
def test_plain_text_and_the_same_in_full_width_are_one_name(surface: str) -> None:
    wide = "".join(chr(ord(each) + 0xFEE0) if each != " " else "\N{IDEOGRAPHIC SPACE}" for each in surface)
    assert canonical_name(wide) == canonical_name(surface)


def test_an_id_never_changes_and_is_of_one_type() -> None:
    assert entity_id("person", "angela merkel") == "161b2deaf943801561d05c198b7728ea"
    assert entity_id("person", "paris") != entity_id("location", "paris")


def test_short_forms() -> None:
    assert short_forms("person", "angela merkel") == short_forms("PER", "angela merkel") == {"angela", "merkel", "am"}
    assert {"ibm", "machines"} <= short_forms("organization", "international business machines")
    assert "bis" in short_forms("organization", "bank for international settlements")
    assert "mexico" not in short_forms("location", "new mexico")
    assert short_forms("location", canonical_name("St. Louis")) == {"sl"}
    assert "carolina" not in short_forms("location", "north carolina")
    assert "of" not in short_forms("organization", "bank of england")
    assert short_forms("product", "boeing 737 max") == short_forms("person", "merkel") == frozenset()


@pytest.mark.parametrize(
    ("kind", "name", "first"),
    [
        ("organization", "amazon web services", "amazon"),
        ("organization", "ford foundation", "ford"),
        ("organization", "university of michigan", "university"),
        ("location", "paris texas", "paris"),
        ("league", "serie a", "serie"),
    ],
)
def test_the_first_words_of_what_is_no_person_are_another_name(kind: str, name: str, first: str) -> None:
    assert first not in short_forms(kind, name)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("Deutsche Bank AG", "deutsche bank"),
        ("Apple, Inc.", "apple"),
        ("Fiat S.p.A.", "fiat"),
        ("Haribo GmbH & Co. KG", "haribo"),
    ],
)
def test_a_company_is_the_one_without_its_legal_form(name: str, short: str) -> None:
    assert short in short_forms("organization", canonical_name(name))


def named(*mentions: tuple[str, str]) -> list[str]:
    return full_names(mentions)


def test_within_a_document_a_short_form_joins_the_one_long_form_of_its_type() -> None:
    person = [("person", surface) for surface in ("Merkel", "Angela Merkel", "MERKEL's", "Angela")]
    assert named(*person) == ["angela merkel"] * 4
    assert named(("person", "Paris"), ("location", "Paris"), ("person", "Paris Hilton")) == [
        "paris hilton",
        "paris",
        "paris hilton",
    ]
    smiths = [("person", surface) for surface in ("John Smith", "Jane Smith", "Smith")]
    assert named(*smiths) == ["john smith", "jane smith", "smith"]
    longer = [("person", surface) for surface in ("Merkel", "Angela Merkel", "Chancellor Angela Merkel")]
    assert named(*longer) == ["chancellor angela merkel"] * 3
    company = [("organization", surface) for surface in ("IBM", "International Business Machines")]
    assert named(*company) == ["international business machines"] * 2


WORDS = st.lists(st.sampled_from(["Angela", "Merkel", "Max", "New", "York", "am"]), min_size=1, max_size=3).map(
    " ".join
)
MENTIONS = st.lists(st.tuples(st.sampled_from(["person", "location"]), WORDS), max_size=8)


@given(MENTIONS, st.randoms(use_true_random=False))
def test_the_order_of_mentions_makes_no_difference(mentions: list[tuple[str, str]], random: Random) -> None:
    shuffled = list(mentions)
    random.shuffle(shuffled)
    expected = dict(zip(mentions, full_names(mentions), strict=True))
    assert dict(zip(shuffled, full_names(shuffled), strict=True)) == expected
    for (kind, _), name in expected.items():
        # It is a name of that type that the document has.
        assert name in {canonical_name(surface) for other, surface in mentions if other == kind}
