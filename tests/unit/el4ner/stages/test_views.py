"""From a document to its sentences apart, and back: every span is where it says it is, on both sides."""

import pytest

from el4ner.pools import Pool, PoolSentence
from el4ner.stages.views import (
    SegmentedDocument,
    candidates_apart,
    candidates_in,
    entities_in,
    sentences_apart,
    types_apart,
    types_in,
)
from el4ner.text.controls import CleanText
from el4ner.text.segment import segment
from el4ner.types import (
    Document,
    DocumentCandidates,
    DocumentTypes,
    Manifest,
    Mode,
    Sentence,
    SentenceCandidates,
    SentenceEntities,
    SentenceTypes,
    Span,
    SpanCandidate,
    TypedSpan,
    Verdict,
)

POOL = Pool("p", {"person": "a human being"}, (PoolSentence("Bob left.", ((Span(0, 3, "Bob"), "person"),)),))
MANIFEST = Manifest(Mode.SCORED, {}, "v1", "p", "f", "none")
PLAIN = "It rained. Ada met Bob in Paris."
COLOURED = "It \x1b[1mrained\x1b[0m. Ada met \x1b[33mBob\x1b[0m in Paris."


def surfaces(text: str, *names: str) -> tuple[SpanCandidate, ...]:
    return tuple(
        SpanCandidate(Span(text.index(name), text.index(name) + len(name), name), ("chunks",)) for name in names
    )


@pytest.mark.parametrize("text", [PLAIN, COLOURED])
def test_spans_go_from_a_sentence_to_its_document_and_back(text: str) -> None:
    document, view = Document("d", text), CleanText.of(text)
    segmented = SegmentedDocument(document, POOL, view, segment(view.text))
    apart = sentences_apart(segmented)
    assert apart == [Sentence(0, 10, "It rained."), Sentence(0, 21, "Ada met Bob in Paris.")]
    answers = [
        SentenceCandidates(apart[0], (1,), ()),
        SentenceCandidates(apart[1], (2,), surfaces(apart[1].text, "Ada", "Bob", "Paris"), dropped=1),
    ]
    placed = DocumentCandidates(document, MANIFEST, tuple(candidates_in(segmented, answers)))
    assert [sentence.demonstrations for sentence in placed.sentences] == [(1,), (2,)]
    assert placed.sentences[1].dropped == 1
    assert placed.sentences[1].candidates == surfaces(text, "Ada", "Bob", "Paris")
    for sentence in placed.sentences:
        assert text[sentence.sentence.start : sentence.sentence.end] == sentence.sentence.text
    assert candidates_apart(placed) == answers

    labels = {"Ada": "person", "Bob": "none", "Paris": "place"}
    typed = [
        SentenceTypes(
            answer.sentence,
            answer.demonstrations,
            tuple(TypedSpan(candidate, labels[candidate.span.text], 0.5) for candidate in answer.candidates),
        )
        for answer in answers
    ]
    types = DocumentTypes(document, MANIFEST, tuple(types_in(placed, typed)))
    assert [span.candidate for span in types.sentences[1].typed] == list(placed.sentences[1].candidates)
    assert types_apart(types) == typed

    verdict = Verdict(True, 0.9, "v")
    judged = [
        SentenceEntities(item.sentence, tuple((span, verdict) for span in item.typed if span.type != "none"))
        for item in typed
    ]
    (_, entities) = entities_in(types, judged)
    assert [(span.candidate.span, given) for span, given in entities.validated] == [
        (candidate.span, verdict) for candidate in surfaces(text, "Ada", "Paris")
    ]
