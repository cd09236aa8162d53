"""Which parts of runs are proposed for prose, and which are not."""

import pytest

from el4ner.text.chunks import chunks
from el4ner.text.segment import segment


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


@pytest.mark.parametrize(
    ("text", "expected", "unwanted"),
    [
        (
            "met Andre\u0301 Morvan in Malmo\u0308.",
            {"Andre\u0301 Morvan", "Malmo\u0308"},
            {"Andre", "Malmo", "\u0301 Morvan"},
        ),
        ("in New\u00a0York and New\u202fYork", {"New\u00a0York", "New\u202fYork"}, {"York"}),
        ("lives in New\nYork now", {"New\nYork"}, set()),
        ("lives in New \r\n  York now", {"New \r\n  York"}, set()),
        ("the Bank of\nEngland said", {"Bank of\nEngland", "England"}, set()),
        ("uses machine\nlearning there", {"machine\nlearning"}, set()),
        ("in New\tYork now", {"New", "York"}, {"New\tYork"}),
        ("Lena Orf\tKiel", {"Lena Orf", "Kiel"}, {"Lena Orf\tKiel", "Orf\tKiel"}),
        ("Lena Orf\n\nKiel", {"Lena Orf", "Kiel"}, {"Lena Orf\n\nKiel"}),
        ("Lena Orf\n \nKiel", {"Lena Orf", "Kiel"}, {"Orf\n \nKiel"}),
        ('"Lena\tOrf" "Up\n\nDown"', set(), {"Lena\tOrf", "Up\n\nDown"}),
        ("Ada Lovelace\nAlan Turing\nGrace Hopper", {"Ada Lovelace", "Alan Turing", "Grace Hopper"}, set()),
        ("नरेन्द्र मोदी ने दिल्ली में कहा", {"नरेन्द्र मोदी", "दिल्ली", "मोदी"}, {"मोदी ने"}),
        ("وصل أحمد المنصوري إلى القاهرة", {"أحمد المنصوري", "القاهرة"}, {"إلى"}),
        ("דוד בן־גוריון נולד בפלונסק", {"דוד בן־גוריון"}, set()),
        ("昨天王小明在上海大学说", {"王小明", "上海大学"}, {"在", "在上海"}),
        ("iPhone在上海发布", {"iPhone", "上海"}, set()),
        ("3月5日ジョン・スミスが東京に", {"3月5日", "ジョン・スミス", "東京"}, {"が"}),
        ("สมชาย ใจดีไปกรุงเทพมหานคร", {"สมชาย ใจดี", "กรุงเทพมหานคร"}, {"ไป"}),
        ("他读《红楼梦》和「雪国」", {"红楼梦", "雪国"}, set()),
    ],
)
def test_names_of_any_script_and_over_any_white_space(text: str, expected: set[str], unwanted: set[str]) -> None:
    proposed = {chunk.span.text for chunk in chunks(text)}
    assert expected <= proposed
    assert not unwanted & proposed


def test_a_name_over_a_line_end_is_proposed_as_a_sentence_of_a_document_too() -> None:
    text = "He said that she lives in New\nYork. They met in Rio\r\nde Janeiro."
    proposed = {chunk.span.text for sentence in segment(text) for chunk in chunks(sentence.text)}
    assert {"New\nYork", "Rio\r\nde Janeiro"} <= proposed
