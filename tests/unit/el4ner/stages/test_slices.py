"""A batch is asked about in slices of bounded size: the same answers, and a sign of life behind each."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.config import MethodSettings
from el4ner.pools import Pool, PoolSentence
from el4ner.prompts import PromptSet
from el4ner.stages import SentenceInput, StageContext, classify, extract
from el4ner.stages.slices import MOST_IN_A_SLICE, in_slices, size_of
from el4ner.text.proposal_limits import FREE_COST, MAX_COST, OVERHEAD
from el4ner.text.segment import segment
from el4ner.types import Sentence, SentenceCandidates, Span, SpanCandidate, Usage
from tests.support.doubles import ScriptedEngine
from tests.support.examples import examples

POOL = Pool("p", {"place": "a place"}, (PoolSentence("In Oslo.", ((Span(3, 7, "Oslo"), "place"),)),))
CONTEXT = StageContext(POOL, PromptSet("v1"), MethodSettings())


def asked_about(sentence: Sentence, spans: int) -> SentenceCandidates:
    return SentenceCandidates(sentence, (), (SpanCandidate(Span(0, 1, "a"), ("chunks",)),) * spans)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)), max_size=12), st.integers(1, 120))
def test_slices_keep_the_order_and_are_no_larger_than_they_may(shapes: list[tuple[int, int]], most: int) -> None:
    items = [asked_about(Sentence(0, length, "x" * length), spans) for length, spans in shapes]
    seen: list[list[SentenceCandidates]] = []
    progress: list[int] = []

    def ask(some: list[SentenceCandidates]) -> tuple[list[int], Usage]:
        seen.append(some)
        return [len(item.sentence.text) for item in some], Usage(prompt_tokens=len(some))

    answers, usage = in_slices(items, ask, lambda: progress.append(len(seen)), most=most)
    assert answers == [length for length, _ in shapes]
    assert usage.prompt_tokens == len(items)
    assert progress == list(range(1, len(seen) + 1))
    assert all(len(some) == 1 or sum(map(size_of, some)) <= most for some in seen)
    assert all(sum(map(size_of, (*some, following[0]))) > most for some, following in pairwise(seen))


@settings(deadline=None, max_examples=examples(40))
@given(st.text(st.sampled_from("aB1 .\n中กא😀\u0301"), min_size=1, max_size=12), st.integers(1, 150))
def test_a_sentence_of_any_text_is_smaller_than_a_slice_and_costs_go_with_its_bytes(unit: str, times: int) -> None:
    text = unit * times
    sentences = segment(text)
    candidates, _ = extract([SentenceInput(sentence, ()) for sentence in sentences], [], CONTEXT)
    for item in candidates:
        size = len(item.sentence.text.encode())
        assert size_of(item) <= size + OVERHEAD + FREE_COST + MAX_COST * size < MOST_IN_A_SLICE


def test_answers_in_slices_are_those_of_one_call() -> None:
    texts = ["Ada left Oslo.", "Bob saw New York.", "It rained.", "Eve met Ada in Rome."]
    engine = ScriptedEngine("x", prefer=lambda tail, candidates: candidates[len(tail) % len(candidates)])
    items, _ = extract([SentenceInput(Sentence(0, len(text), text), ()) for text in texts], [], CONTEXT)
    together, _ = classify(items, [engine], CONTEXT)
    apart, _ = in_slices(items, lambda some: classify(some, [engine], CONTEXT), lambda: None, most=1)
    assert apart == together
