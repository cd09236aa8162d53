"""Mentions of one name in a document have one type, and those that were overlooked get it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.stages.one_sense import with_one_sense
from el4ner.types import Sentence, SentenceTypes, Span, SpanCandidate, TypedSpan

LABELS = 5


def document(*sentences: tuple[str, dict[str, tuple[str, float]]]) -> list[SentenceTypes]:
    """Sentences one behind the other, each with its names: their types and confidences."""
    typed = []
    at = 0
    for text, names in sentences:
        spans = [(text.index(name), name, *judged) for name, judged in names.items()]
        typed.append(
            SentenceTypes(
                Sentence(at, at + len(text), text),
                (),
                tuple(
                    TypedSpan(SpanCandidate(Span(at + start, at + start + len(name), name), ("chunks",)), kind, likely)
                    for start, name, kind, likely in spans
                ),
            )
        )
        at += len(text) + 1
    return typed


def types(sentences: tuple[SentenceTypes, ...]) -> list[list[str]]:
    return [[typed.type for typed in sentence.typed] for sentence in sentences]


def test_the_type_with_the_most_votes_is_that_of_all() -> None:
    sentences = with_one_sense(
        document(
            ("Rivera spoke.", {"Rivera": ("person", 0.8)}),
            ("The river Rivera rose.", {"Rivera": ("location", 0.6)}),
            ("Rivera left.", {"Rivera": ("person", 0.9)}),
        ),
        LABELS,
    )
    assert types(sentences) == [["person"]] * 3
    odds = [sentence.typed[0].confidence for sentence in sentences]
    assert odds[0] == 0.8
    assert odds[1] == pytest.approx(6 / 7)  # odds 4 and 9: their geometric mean is 6
    assert odds[2] == 0.9


def test_one_that_is_much_surer_convinces_the_others() -> None:
    sentences = document(
        ("Rivera rose.", {"Rivera": ("location", 0.55)}),
        ("Rivera again.", {"Rivera": ("location", 0.55)}),
        ("Ms Rivera spoke.", {"Rivera": ("person", 0.999)}),
    )
    assert types(with_one_sense(sentences, LABELS)) == [["person"]] * 3


def test_a_mention_that_was_called_none_gets_the_type_of_the_others_unless_it_is_surer() -> None:
    def called_none(confidence: float) -> list[list[str]]:
        return types(
            with_one_sense(
                document(
                    ("Rivera spoke.", {"Rivera": ("person", 0.9)}),
                    ("and rivera Rivera", {"Rivera": ("none", confidence)}),
                ),
                LABELS,
            )
        )

    assert called_none(0.6) == [["person"], ["person"]]
    assert called_none(0.99) == [["person"], ["none"]]


def test_no_mention_loses_its_type_to_none() -> None:
    sentences = document(
        *[(f"{number} of May.", {"May": ("none", 0.95)}) for number in range(5)], ("May won.", {"May": ("person", 0.6)})
    )
    assert types(with_one_sense(sentences, LABELS)) == [["none"]] * 5 + [["person"]]


def test_a_part_of_a_longer_name_neither_votes_nor_changes() -> None:
    sentences = document(
        ("New York grew.", {"New York": ("location", 0.9), "York": ("organization", 0.8)}),
        ("York grew.", {"York": ("location", 0.7)}),
        ("In York, York.", {"York": ("none", 0.5)}),
    )
    assert types(with_one_sense(sentences, LABELS)) == [["location", "organization"], ["location"], ["location"]]


def test_surfaces_are_compared_composed_and_by_their_words_with_the_case_as_it_is() -> None:
    sentences = document(
        ("San Jos\u00e9 grew.", {"San Jos\u00e9": ("location", 0.9)}),
        ("San\u00a0Jose\u0301 grew.", {"San\u00a0Jose\u0301": ("none", 0.6)}),
        ("san jos\u00e9 grew.", {"san jos\u00e9": ("none", 0.6)}),
    )
    assert types(with_one_sense(sentences, LABELS)) == [["location"], ["location"], ["none"]]


SENTENCES = st.lists(
    st.dictionaries(
        st.sampled_from(["New York", "York", "Ann"]),
        st.tuples(st.sampled_from(["none", "location", "person"]), st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0])),
    ),
    max_size=6,
).map(lambda names: document(*[("Ann left New York.", of_sentence) for of_sentence in names]))


@given(SENTENCES, st.randoms())
def test_each_candidate_is_answered_once_and_the_order_of_sentences_does_not_matter(sentences, random) -> None:  # type: ignore[no-untyped-def]
    before = {typed.candidate: typed for sentence in sentences for typed in sentence.typed}
    after = with_one_sense(sentences, LABELS)
    assert [[typed.candidate for typed in sentence.typed] for sentence in after] == [
        [typed.candidate for typed in sentence.typed] for sentence in sentences
    ]
    shuffled = list(sentences)
    random.shuffle(shuffled)
    assert sorted(with_one_sense(shuffled, LABELS), key=lambda each: each.sentence.start) == list(after)
    for typed in (typed for sentence in after for typed in sentence.typed):
        was = before[typed.candidate]
        assert 0 <= typed.confidence <= 1
        assert typed == was or typed.type != was.type
        assert typed.type != "none" or was.type == "none"
