"""Which parts of runs are proposed for prose, and which are not."""

import pytest

from el4ner.text.chunks import chunks


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "as British Prime Minister Winston Churchill said",
            {"British", "Winston Churchill", "Prime Minister Winston Churchill"},
        ),
        ("the 1979 United Kingdom general election was", {"1979 United Kingdom general election"}),
        ("of Chancellor of the Bank of England", {"Bank of England", "Chancellor of the Bank"}),
        ("he saw The Lodge there", {"The Lodge", "Lodge"}),
        ("they use Bayesian networks", {"Bayesian networks"}),
        ("with hidden markov model training", {"hidden markov model", "markov model", "model training"}),
        ('they sang " Love in the Rain " twice', {"Love in the Rain"}),
        ("go #Padres now", {"#Padres", "Padres"}),
        ("see https://example.org/Some-Page.", {"https://example.org/Some-Page"}),
        ("the party (PLH) won", {"PLH"}),
    ],
)
def test_parts_that_are_often_names(text: str, expected: set[str]) -> None:
    assert expected <= {chunk.span.text for chunk in chunks(text)}


def test_what_costs_more_than_it_finds_is_not_proposed() -> None:
    found = {chunk.span.text for chunk in chunks("Ada Lovelace saw https://example.org/Some-Page")}
    assert not found & {"Ada", "Lovelace", "Some-Page", "example.org"}
