"""Repeats: what was answered before is not asked again, and nobody can tell but by the cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.config import Settings, load_settings
from el4ner.engines.base import GenerateRequest, GenerateResult, Prompt, ScoreRequest, ScoreResult
from el4ner.engines.instant import InstantEngine
from el4ner.errors import DocumentError, EngineError
from el4ner.pipeline import Pipeline
from el4ner.pools import load_pool
from el4ner.repeats import AnswerStore, RepeatCounts
from el4ner.retrieval import make_retriever
from el4ner.types import Document, Usage

POOLS = {name: load_pool(f"shipped:{name}", name=name) for name in ("news", "logs")}
UNREADABLE = "unreadable"


class Engine(InstantEngine):
    """Answers by a hash of all that it is shown; lists the sentence's words, or what ``says`` has for them, as spans.
    No sentence with the word ``unreadable`` fits it. Counts questions and tokens."""

    context_length = 1  # type: ignore[assignment]  # every prompt is counted

    def __init__(self, name: str, says: Mapping[str, str] | None = None) -> None:
        super().__init__(name)
        self.says = says or {}
        self.questions = 0
        self.usage = Usage()
        self.fails = False

    def count_tokens(self, prompt: Prompt) -> int:
        return 10**9 if UNREADABLE in prompt.user else -(10**9)

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        results = []
        for request in requests:
            sentence = [line for line in request.prompt.user.splitlines() if line.startswith("Text:")][-1][6:]
            written = "\n- ".join(self.says.get(word, word) for word in sentence.split())
            answer = "false" if len(written) % 3 == 0 and request.max_new_tokens < 9 else written
            results.append(GenerateResult(answer, True, Usage(len(request.prompt.user), 0, 3)))
        return self._counted(results)

    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        return self._counted([replace(result, usage=Usage(7, 1, 0)) for result in super().score(requests)])

    def _counted(self, results: list[Any]) -> list[Any]:
        if self.fails:
            raise EngineError("the model is ill")
        self.questions += len(results)
        self.usage = sum((result.usage for result in results), self.usage)
        return results


def pipeline(repeats: str, engine: Engine | None = None, answers: AnswerStore | None = None, **method: Any) -> Pipeline:
    made = load_settings(
        Settings,
        environ={},
        overrides={
            "ensemble": {"members": ["a"]},
            "models": {"a": {"source": "nowhere", "engine": "instant"}},
            "method": {"validation": "soft", "proposals": ["chunks"], "repeats": repeats, **method},
        },
    )
    retrievers = {name: make_retriever("random", pool, k=2) for name, pool in POOLS.items()}
    return Pipeline(made, {"a": engine or Engine("a")}, POOLS, retrievers, answers=answers)


def stages(batch: Sequence[Document], *made: Pipeline) -> list[tuple[Any, ...]]:
    """Each document's three results, or the error instead; each stage by a pipeline of its own if there are three."""
    one, two, three = made if len(made) == 3 else made * 3
    results: list[tuple[Any, ...]] = []
    found = one.extract(batch)
    typed = iter(two.classify([item for item in found if not isinstance(item, DocumentError)]))
    going = [None if isinstance(item, DocumentError) else next(typed) for item in found]
    judged = iter(three.validate([item for item in going if item and not isinstance(item, DocumentError)]))
    for first, second in zip(found, going, strict=True):
        if second is None or isinstance(second, DocumentError):
            results.append((str(second or first),))
        else:
            results.append((first, second, next(judged)))
    return results


def tag(documents: Sequence[Document], sizes: Sequence[int], *made: Pipeline) -> list[tuple[Any, ...]]:
    """As :func:`stages`, in batches of ``sizes``, over and over."""
    results: list[tuple[Any, ...]] = []
    turn = 0
    while len(results) < len(documents):
        size = sizes[turn % len(sizes)]
        results += stages(documents[len(results) : len(results) + size], *made)
        turn += 1
    return results


def costless(results: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [tuple(r if isinstance(r, str) else replace(r, usage=Usage()) for r in own) for own in results]


def cost(results: list[tuple[Any, ...]]) -> Usage:
    return sum((result.usage for own in results if len(own) == 3 for result in own), Usage())


def entities(result: tuple[Any, ...]) -> list[tuple[str, str]]:
    return [(t.candidate.span.text, t.type) for sentence in result[1].sentences for t in sentence.typed]


def log(*lines: str) -> list[Document]:
    return [Document(str(number), line, "logs") for number, line in enumerate(lines)]


def assert_exact(documents: Sequence[Document], results: list[tuple[Any, ...]]) -> None:
    for document, own in zip(documents, results, strict=True):
        if len(own) == 1:
            assert UNREADABLE in document.text
            continue
        found, typed, judged = own
        assert [s.sentence for s in found.sentences] == [s.sentence for s in judged.sentences]
        for one, two, three in zip(found.sentences, typed.sentences, judged.sentences, strict=True):
            assert document.text[one.sentence.start : one.sentence.end] == one.sentence.text
            assert one.candidates == tuple(t.candidate for t in two.typed)
            assert list(one.candidates) == sorted(one.candidates, key=lambda candidate: candidate.span)
            assert [t for t, _ in three.validated] == [t for t in two.typed if t.type != "none"]
            for candidate in one.candidates:
                span = candidate.span
                assert document.text[span.start : span.end] == span.text
                assert one.sentence.start <= span.start < span.end <= one.sentence.end


TEXTS = ["Ada Lovelace met Bob in Rome.", "Bob left.", "👍 Zoë flew to Łódź.", f"An {UNREADABLE} thing happened."]
METHODS = st.sampled_from([{}, {"proposals": ["chunks", "lexicon", "models"]}, {"mode": "paper"}])
SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=3)
PROSE = st.lists(st.sampled_from(TEXTS), max_size=4).map(" ".join)
NUMBERS = st.integers(1, 99)
LINES = st.one_of(
    st.builds("sshd[{}]: Failed password for {} from 10.0.0.{} port {}".format,
              NUMBERS, st.sampled_from(["root", "ada", "bob", "eve", "mallory"]), NUMBERS, NUMBERS),
    st.builds("10:00:{:02} node-{} cron: /etc/a{}.conf 👍 took {} ms".format, st.integers(0, 59), *[NUMBERS] * 3),
    st.builds("job {} of é.example: \x00 {}".format, NUMBERS, st.sampled_from(["done", "failed"])),
    st.just(f"an {UNREADABLE} line of db-1"),
)  # fmt: skip
LOGS = st.lists(LINES, max_size=4).map("\n ".join)
DOCUMENTS = st.lists(
    st.tuples(PROSE, st.just("news")) | st.tuples(LOGS, st.just("logs")) | st.tuples(PROSE, st.just("logs")), max_size=9
).map(lambda pairs: [Document(str(number), *pair) for number, pair in enumerate(pairs)])


@settings(deadline=None)
@given(DOCUMENTS, SIZES, METHODS, st.sampled_from([1, 3, 1000]))
def test_exact_repeats_show_in_nothing_but_the_cost(
    documents: list[Document], sizes: list[int], method: dict[str, Any], memory: int
) -> None:
    plain, engine = pipeline("off", **method), Engine("a")
    made = pipeline("exact", engine, repeat_cache_sentences=memory, **method)
    expected = tag(documents, [3], plain)
    results = tag(documents, sizes, made)
    assert costless(results) == costless(expected)
    if UNREADABLE not in "".join(document.text for document in documents):
        assert cost(results) == engine.usage
        assert engine.usage.prompt_tokens <= cost(expected).prompt_tokens
        sentences = sum(len(own[0].sentences) for own in results)
        assert all(counts.hits + counts.misses == sentences for counts in made.repeats.values())
    assert_exact(documents, results)
    assert max(len(memories[p]) for memories in _memories(made) for p in POOLS) <= memory


@settings(deadline=None)
@given(DOCUMENTS, SIZES, METHODS, st.sampled_from([1, 3, 1000]))
def test_near_repeats_have_their_own_offsets_and_cost_no_more(
    documents: list[Document], sizes: list[int], method: dict[str, Any], memory: int
) -> None:
    engine = Engine("a")
    made = pipeline("templates", engine, repeat_cache_sentences=memory, **method)
    results = tag(documents, sizes, made)
    assert_exact(documents, results)
    assert max(len(memories[p]) for memories in _memories(made) for p in POOLS) <= memory
    if UNREADABLE not in "".join(document.text for document in documents):
        assert cost(results) == engine.usage
        if memory == 1000:
            # Now every text is known, and has been put right where later lines of its template said otherwise.
            again = costless(tag(documents, [4], made))
            asked = engine.questions
            assert costless(tag(documents, [4], made)) == again
            assert engine.questions == asked


@settings(deadline=None)
@given(DOCUMENTS, SIZES, METHODS, st.sampled_from(["exact", "templates"]))
def test_stages_in_pipelines_of_their_own_give_the_same(
    documents: list[Document], sizes: list[int], method: dict[str, Any], repeats: str
) -> None:
    apart = [pipeline(repeats, **method) for _ in range(3)]
    together = pipeline(repeats, **method)
    assert tag(documents, sizes, *apart) == tag(documents, sizes, together)
    for stage, own in zip(("extract", "classify", "validate"), apart, strict=True):
        assert own.repeats[stage] == together.repeats[stage]


def _memories(made: Pipeline) -> list[Mapping[str, Any]]:
    return [made._extract.memories, made._classify.memories, made._validate.memories]


def test_a_batch_of_like_lines_asks_about_the_first_few_of_each() -> None:
    lines = [f"10:00:{n:02} node-7 {w}: from 10.0.0.{n}" for n in range(1, 9) for w in ("sshd[7]", "cron", "kernel")]
    engine = Engine("a")
    made = pipeline("templates", engine)
    results = stages(log(*lines), made)
    assert made.repeats["extract"] == RepeatCounts(hits=21, misses=3)
    assert made.repeats["classify"] == RepeatCounts(hits=6, misses=18), "six lines of each, which do not agree here"
    plain = stages(log(*lines[:3]), pipeline("off"))
    for index, (line, result) in enumerate(zip(lines, results, strict=True)):
        agreed = results[21 + index % 3]
        assert [label for _, label in entities(result)] == [label for _, label in entities(agreed)]
        assert [one for _, one in result[2].sentences[0].validated] == [
            one for _, one in agreed[2].sentences[0].validated
        ]
        assert all(surface in line for surface, _ in entities(result))
        assert result[0].sentences[0].demonstrations == plain[index % 3][0].sentences[0].demonstrations
    assert [result[1].usage == Usage() for result in results] == [False] * 18 + [True] * 6
    asked = engine.questions
    stages(log("23:59:59 node-9 cron: from 192.0.2.250"), made)
    assert engine.questions == asked


@pytest.mark.parametrize("repeats", ["off", "exact", "templates"])
def test_what_is_repeated_by_each_setting(repeats: str) -> None:
    made = pipeline(repeats)
    stages(log("job 7 done", "job 7 done", "job 8 done"), made)
    stages([Document("n", "Job 7 is done.", "news"), Document("m", "Job 8 is done.", "news")], made)
    expected = {
        "off": RepeatCounts(),
        "exact": RepeatCounts(hits=1, misses=4),
        "templates": RepeatCounts(hits=2, misses=3),
    }
    assert made.repeats["extract"] == expected[repeats]


def test_a_pool_does_not_answer_for_another() -> None:
    made = pipeline("templates")
    stages([Document("1", "Bob left.", "news"), Document("2", "Bob left.", "logs")], made)
    assert made.repeats["extract"] == RepeatCounts(misses=2)


def test_a_line_whose_spans_cannot_be_carried_is_asked_and_its_likes_are_too() -> None:
    engine = Engine("a", says={"10.0.0.1": "10.0", "10.0.0.2": "10.0", "10.0.0.4": "10.0"})
    made = pipeline("templates", engine, mode="paper")
    documents = log(*(f"lost 10.0.0.{n}" for n in (1, 2, 3, 4, 1)))
    results = stages(documents, made)
    assert costless(results) == costless(stages(documents, pipeline("off", Engine("a", engine.says), mode="paper")))
    assert made.repeats["extract"] == RepeatCounts(hits=1, misses=4)
    # The third was carried nowhere in its batch, but can be from now on.
    (later,) = stages(log("lost 10.0.0.99"), made)
    assert made.repeats["extract"] == RepeatCounts(hits=2, misses=4)
    assert [surface for surface, _ in entities(later)] == ["lost", "10.0.0.99"]


def test_a_document_that_fails_neither_poisons_its_batch_nor_the_memory() -> None:
    engine = Engine("a")
    made = pipeline("templates", engine)
    documents = log("job 1 done", f"job 2 done\nan {UNREADABLE} line of db-1\njob 3 done", "job 4 done")
    for _ in range(2):
        results = stages(documents, made)
        assert [len(own) for own in results] == [3, 1, 3]
        assert_exact(documents, results)
    engine.fails = True
    with pytest.raises(EngineError):
        stages(log("job done"), made)
    engine.fails = False
    assert costless(stages(log("job done"), made)) == costless(stages(log("job done"), pipeline("off")))


def test_the_least_recently_used_text_goes_first() -> None:
    made = pipeline("exact", repeat_cache_sentences=2)
    for text in ("Ada", "Bob", "Ada", "Eve", "Ada", "Bob"):
        stages([Document("d", text)], made)
    assert made.repeats["extract"] == RepeatCounts(hits=2, misses=4)


def test_a_text_is_answered_without_asking_when_its_line_gets_another_template() -> None:
    made = pipeline("templates")
    words = ["alpha", "beta", "gamma", "delta", "epsilon"]
    first = [costless(stages(log(f"sync of {word} over"), made)) for word in words]
    misses = made.repeats["extract"].misses
    assert misses == 4  # the fourth word made its place a field
    again = [costless(stages(log(f"sync of {word} over"), made)) for word in words]
    assert again[:3] == first[:3]
    assert [own[0][0] for own in again] == [own[0][0] for own in first]
    assert made.repeats["extract"].misses == misses


def test_without_validation_no_verdict_is_remembered() -> None:
    made = pipeline("templates", validation="off")
    stages(log("job 1 done", "job 2 done"), made)
    assert made.repeats["validate"] == RepeatCounts()
    assert made.repeats["extract"] == RepeatCounts(hits=1, misses=1)
