"""What a candidate may be, whoever proposes it: whole characters, names over line ends, and no more than so many."""

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from el4ner.config import MethodSettings
from el4ner.pools import Pool, PoolSentence
from el4ner.prompts import PromptSet
from el4ner.stages import SentenceInput, StageContext, classify, extract
from el4ner.text.icu import characters
from el4ner.text.proposal_limits import FREE_COST, MAX_COST, MAX_SPAN_CHARS, cost
from el4ner.types import Sentence, Span
from tests.support.doubles import ScriptedEngine
from tests.support.examples import examples


def test_a_name_over_a_line_end_is_one_candidate_and_stands_on_one_line_of_a_prompt() -> None:
    text = "They met in New\nYork on Andre\u0301\u00a0Morvan's day."
    pool = Pool("p", {"place": "a place"}, (PoolSentence("In New York.", ((Span(3, 11, "New York"), "place"),)),))
    context = StageContext(pool, PromptSet("v1"), MethodSettings())
    ((found,), _) = extract([SentenceInput(Sentence(0, len(text), text), ())], [], context)
    by = {candidate.span.text: candidate.proposed_by for candidate in found.candidates}
    assert by["New\nYork"] == ("chunks", "lexicon")
    assert "Andre\u0301\u00a0Morvan" in by
    assert not {"Andre", "York on", "Morvan's"} & by.keys()
    tails: list[str] = []

    def prefer(tail: str, candidates: tuple[str, ...]) -> str:
        tails.append(tail)
        return candidates[-1]

    classify([found], [ScriptedEngine("x", prefer=prefer)], context)
    assert {"- New York:", "- André Morvan:"} <= set(tails)
    assert not [tail for tail in tails if "\n" in tail.strip()]


def test_what_a_model_lists_is_found_whatever_white_space_the_text_has() -> None:
    text = "in New\n  York, not New\tYork"
    pool = Pool("p", {"place": "a place"}, (PoolSentence("In Oslo.", ((Span(3, 7, "Oslo"), "place"),)),))
    for constrain in (False, True):
        settings = MethodSettings(proposals=("models",), constrain=constrain)
        engine = ScriptedEngine("x", write=lambda request: " New York\n- Nowhere")
        ((found,), _) = extract(
            [SentenceInput(Sentence(0, len(text), text), ())],
            [engine],
            StageContext(pool, PromptSet("v1"), settings),
        )
        assert [candidate.span for candidate in found.candidates] == [Span(3, 13, "New\n  York")]
        assert found.dropped == 1


def test_no_candidate_cuts_a_character_in_two_whoever_proposes_it() -> None:
    text = "Andre\u0301 in Malmo\u0308 with 👨\u200d👩\u200d👧 Andre"
    surfaces = ["Andre", "Malmo", "👨", "👩\u200d👧", "\u0308", "\u200d", "Malmö"]
    pool = Pool(
        "p",
        {"place": "a place"},
        tuple(PoolSentence(s, ((Span(0, len(s), s), "place"),)) for s in ("Andre", "Malmo", "An Andre\u0301")),
    )
    settings = MethodSettings(proposals=("chunks", "lexicon", "models"))
    engine = ScriptedEngine("x", write=lambda request: " " + "\n- ".join(surfaces))
    ((found,), _) = extract(
        [SentenceInput(Sentence(0, len(text), text), ())], [engine], StageContext(pool, PromptSet("v1"), settings)
    )
    edges = {0, *(end for _, end in characters(text))}
    assert all({c.span.start, c.span.end} <= edges for c in found.candidates)
    assert {"Andre", "Malmo\u0308", "Andre\u0301"} <= {c.span.text for c in found.candidates}
    assert [c.span.start for c in found.candidates if c.span.text == "Andre"] == [text.rindex("Andre")]


@hypothesis_settings(max_examples=examples(60), deadline=None)
@given(st.text(st.sampled_from("aA1 .'\"\n-中ก\u0e33\u0301א😀🇩ब\u094d"), max_size=40), st.integers(1, 60))
def test_proposals_cost_no_more_than_so_much_for_each_byte(unit: str, times: int) -> None:
    text = (unit * times)[:1000]
    pool = Pool("p", {"place": "a place"}, (PoolSentence("In Oslo.", ((Span(3, 7, "Oslo"), "place"),)),))
    ((found,), _) = extract(
        [SentenceInput(Sentence(0, len(text), text), ())], [], StageContext(pool, PromptSet("v1"), MethodSettings())
    )
    size = len(text.encode())
    assert sum(cost(c.span.text) for c in found.candidates) <= FREE_COST + MAX_COST * size
    assert all(c.span.end - c.span.start <= MAX_SPAN_CHARS for c in found.candidates)


def test_where_proposals_cost_too_much_the_longest_of_the_chunker_are_left_out() -> None:
    text = "".join(chr(0x4E00 + (number * 7919) % 20000) for number in range(300))
    known = text[100:106]
    pool = Pool("p", {"place": "a place"}, (PoolSentence(known, ((Span(0, 6, known), "place"),)),))
    ((found,), _) = extract(
        [SentenceInput(Sentence(0, len(text), text), ())], [], StageContext(pool, PromptSet("v1"), MethodSettings())
    )
    lengths = [len(c.span.text) for c in found.candidates if "lexicon" not in c.proposed_by]
    assert known in {c.span.text for c in found.candidates}
    assert {1, 2} <= set(lengths)
    assert max(lengths) <= 4
