"""The stages, with engines that answer from a script: union, vote, validation, and what is never lost or invented."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.config import MethodSettings
from el4ner.engines.base import GenerateRequest
from el4ner.errors import DocumentError
from el4ner.pools import Pool, PoolSentence
from el4ner.prompts import PromptSet
from el4ner.stages import SentenceInput, StageContext, classify, extract, validate
from el4ner.stages.answers import parse_spans, parse_typed_lines
from el4ner.stages.deciding import majority
from el4ner.types import Mode, Sentence, SentenceCandidates, Span, SpanCandidate
from tests.support.doubles import ScriptedEngine

POOL = Pool(
    "p",
    {"person": "a human being", "place": "somewhere"},
    (
        PoolSentence("Bob left Rome.", ((Span(0, 3, "Bob"), "person"), (Span(9, 13, "Rome"), "place"))),
        PoolSentence("It rained.", ()),
    ),
)
TEXT = "Ada met Ada in Paris."
SENTENCE = Sentence(0, len(TEXT), TEXT)


def context(mode: Mode, **settings: object) -> StageContext:
    return StageContext(POOL, PromptSet("v1"), MethodSettings(mode=mode, **settings))  # type: ignore[arg-type]


def candidates(*surfaces: str) -> SentenceCandidates:
    found = []
    for surface in surfaces:
        start = TEXT.index(surface)
        found.append(SpanCandidate(Span(start, start + len(surface), surface), ("chunks",)))
    return SentenceCandidates(SENTENCE, (0, 1), tuple(found))


def test_extraction_is_the_union_with_every_mention_and_its_proposers() -> None:
    one = ScriptedEngine("one", write=lambda request: " Ada\n- Paris")
    two = ScriptedEngine("two", write=lambda request: " Paris\n- London\n- none")
    (result,), usage = extract([SentenceInput(SENTENCE, (0,))], [one, two], context(Mode.PAPER))
    assert [(c.span.start, c.span.end, c.span.text, c.proposed_by) for c in result.candidates] == [
        (0, 3, "Ada", ("one",)),
        (8, 11, "Ada", ("one",)),
        (15, 20, "Paris", ("one", "two")),
    ]
    assert result.dropped == 1
    assert usage.new_tokens == 4


def test_scored_extraction_asks_no_model_unless_told_to() -> None:
    engine = ScriptedEngine("one", write=lambda request: " met Ada")
    (result,), _ = extract([SentenceInput(SENTENCE, ())], [engine], context(Mode.SCORED))
    assert {c.span.text for c in result.candidates} >= {"Ada", "Paris"}
    assert engine.generated == []
    (both,), _ = extract([SentenceInput(SENTENCE, ())], [engine], context(Mode.SCORED, proposals=("chunks", "models")))
    assert "met Ada" in {c.span.text for c in both.candidates}


def test_the_most_similar_demonstration_stands_next_to_the_sentence() -> None:
    engine = ScriptedEngine("one")
    extract([SentenceInput(SENTENCE, (0, 1))], [engine], context(Mode.PAPER))
    user = engine.generated[0].prompt.user
    assert user.index("It rained.") < user.index("Bob left Rome.") < user.index(TEXT)


def test_demonstrations_are_left_out_where_the_context_is_too_small() -> None:
    roomy = ScriptedEngine("roomy")
    extract([SentenceInput(SENTENCE, (0, 1))], [roomy], context(Mode.PAPER))
    assert "It rained." in roomy.generated[0].prompt.user
    whole = roomy.count_tokens(roomy.generated[0].prompt) + roomy.generated[0].max_new_tokens
    tight = ScriptedEngine("tight", context_length=whole - 1)
    extract([SentenceInput(SENTENCE, (0, 1))], [tight], context(Mode.PAPER))
    assert "Bob left Rome." in tight.generated[0].prompt.user
    assert "It rained." not in tight.generated[0].prompt.user
    assert TEXT in tight.generated[0].prompt.user


def test_a_sentence_that_fits_no_context_is_a_document_error() -> None:
    with pytest.raises(DocumentError, match="does not fit the 100 tokens"):
        extract([SentenceInput(SENTENCE, ())], [ScriptedEngine("one", context_length=100)], context(Mode.PAPER))


def test_paper_classification_is_the_majority_of_what_members_wrote() -> None:
    def say(label: str) -> Callable[[GenerateRequest], str]:
        return lambda request: f" Ada: {label}\n- Paris: place"

    engines = [
        ScriptedEngine("a", write=say("person")),
        ScriptedEngine("b", write=say("place")),
        ScriptedEngine("c", write=say("person")),
    ]
    (result,), _ = classify([candidates("Ada", "Paris", "met")], engines, context(Mode.PAPER))
    assert [(t.type, round(t.confidence, 2)) for t in result.typed] == [("person", 0.67), ("place", 1.0), ("none", 1.0)]
    assert result.typed[0].votes == {"a": "person", "b": "place", "c": "person"}
    assert result.typed[2].votes == {}


def test_a_tie_goes_to_the_last_member() -> None:
    assert majority({"a": "x", "b": "y"}, "b") == ("y", 0.5)
    assert majority({"a": "x", "b": "y"}, "a") == ("x", 0.5)


def test_scored_classification_is_the_mean_of_the_members_probabilities() -> None:
    def prefer(wanted: str) -> Callable[[str, tuple[str, ...]], str]:
        return lambda tail, options: next(o for o in options if o.strip() == wanted) if "Ada" in tail else options[-1]

    engines = [ScriptedEngine("a", prefer=prefer("person")), ScriptedEngine("b", prefer=prefer("person"))]
    (result,), usage = classify([candidates("Ada", "met")], engines, context(Mode.SCORED))
    assert [t.type for t in result.typed] == ["person", "none"]
    assert result.typed[0].confidence == pytest.approx(0.9 / 0.92)
    assert usage.cached_tokens == 10


def test_classification_shares_one_prompt_for_all_spans_of_a_sentence() -> None:
    engine = ScriptedEngine("a")
    classify([candidates("Ada", "Paris")], [engine], context(Mode.SCORED))
    (request,) = engine.scored
    assert [item.tail for item in request.items] == ["- Ada:", "- Paris:"]


def test_a_sentence_without_candidates_costs_nothing() -> None:
    engine = ScriptedEngine("a")
    empty = SentenceCandidates(SENTENCE, (), ())
    (result,), _ = classify([empty], [engine], context(Mode.SCORED))
    (judged,), _ = validate([result], engine, context(Mode.SCORED))
    assert result.typed == ()
    assert judged.validated == ()
    assert engine.scored == []


@pytest.mark.parametrize("mode", list(Mode))
def test_validation_asks_about_every_entity_and_no_none(mode: Mode) -> None:
    def prefer(tail: str, options: tuple[str, ...]) -> str:
        return next(o for o in options if o.strip() == ("person" if "Ada" in tail else "none"))

    member = ScriptedEngine("m", prefer=prefer, write=lambda request: " Ada: person\n- met: none")
    (typed,), _ = classify([candidates("Ada", "met")], [member], context(mode))
    verifier = ScriptedEngine("v", write=lambda request: " false", prefer=lambda tail, options: options[1])
    (judged,), _ = validate([typed], verifier, context(mode))
    ((span, verdict),) = judged.validated
    assert span.candidate.span.text == "Ada"
    assert not verdict.holds
    assert verdict.probability < 0.5
    assert verdict.verifier == "v"


def test_without_a_verifier_everything_stands() -> None:
    engine = ScriptedEngine("a")
    (typed,), _ = classify([candidates("Ada")], [engine], context(Mode.SCORED))
    ((_, verdict),) = validate([typed], None, context(Mode.SCORED))[0][0].validated
    assert verdict.holds
    assert verdict.verifier is None


@given(st.text(max_size=200))
def test_whatever_a_model_writes_can_be_read(text: str) -> None:
    assert all(surface == surface.strip() and surface for surface in parse_spans(text))
    labels = parse_typed_lines(text, ["person", "none"])
    assert set(labels.values()) <= {"person", "none"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- Ada\n- Bob Smith\n", ["Ada", "Bob Smith"]),
        ("1. Ada\n2) Bob\n* Ada", ["Ada", "Bob"]),
        ("- none", []),
        ("-", []),
    ],
)
def test_listed_spans(text: str, expected: list[str]) -> None:
    assert parse_spans(text) == expected


def test_typed_lines_keep_colons_inside_a_surface() -> None:
    assert parse_typed_lines("- 10:20 host: Person.\n- x: alien\n- y", ["person"]) == {"10:20 host": "person"}
