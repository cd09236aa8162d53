"""The front door gives what the stages give one after the other: the same documents, the same questions, and the same
memories afterwards, whatever the lines, the batches and the settings are."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.assemble import assemble_by
from el4ner.config import Settings, load_settings
from el4ner.engines.base import GenerateRequest, GenerateResult, Prompt, ScoreRequest, ScoreResult
from el4ner.engines.instant import InstantEngine
from el4ner.errors import DocumentError, EngineError
from el4ner.pipeline import Pipeline
from el4ner.pools import Pool, load_pool
from el4ner.repeats import ClassifyCarry
from el4ner.repeats.entries import FIRST_CHECK, NEXT_CHECK
from el4ner.retrieval import make_retriever
from el4ner.tagger import Tagger
from el4ner.types import Document, TaggedDocument
from tests.support.examples import examples

LOGS, NEWS = (load_pool(f"shipped:{name}", name=name) for name in ("logs", "news"))
UNREADABLE = "unreadable"
Outcome = TaggedDocument | str


class MoodyEngine(InstantEngine):
    """What it says of the same question changes with the number of those before: whoever asks other questions, or in
    another order, gets other answers. It says so by hashes, so lines of a template disagree."""

    context_length = 1  # every prompt is counted

    def __init__(self, name: str, period: int) -> None:
        super().__init__(name)
        self.period = period
        self.asked: list[str] = []
        self.fails = False

    def count_tokens(self, prompt: Prompt) -> int:
        return 10**9 if UNREADABLE in prompt.user else -(10**9)

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        self._note([request.prompt.user for request in requests])
        return super().generate(requests)

    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        self._note([request.prompt.user for request in requests])
        results = super().score(requests)
        turn = len(self.asked) // self.period % 2
        return [
            ScoreResult(tuple(scores[::-1] if turn else scores for scores in result.scores), result.usage)
            for result in results
        ]

    def _note(self, questions: list[str]) -> None:
        if self.fails:
            raise EngineError("the model is ill")
        self.asked += questions


def pipeline(engine: MoodyEngine, logs: Pool = LOGS, **method: Any) -> Pipeline:
    made = load_settings(
        Settings,
        environ={},
        overrides={
            "ensemble": {"members": ["a"]},
            "models": {"a": {"source": "nowhere", "engine": "instant"}},
            "method": {"proposals": ["chunks", "lexicon"], **method},
        },
    )
    pools = {"news": NEWS, "logs": logs}
    retrievers = {name: make_retriever("random", pool, k=2) for name, pool in pools.items()}
    return Pipeline(made, {"a": engine}, pools, retrievers)


def one_after_the_other(made: Pipeline, batch: Sequence[Document]) -> list[Outcome]:
    """The slow way: each stage over the whole batch, as workers call them."""
    results: list[Any] = made.extract(batch)
    for stage in (made.classify, made.validate):
        going: list[Any] = [result for result in results if not isinstance(result, DocumentError)]
        answers = iter(stage(going))
        results = [result if isinstance(result, DocumentError) else next(answers) for result in results]
    method = made.settings.method
    return [str(each) if isinstance(each, DocumentError) else assemble_by(method, each) for each in results]


def by_the_door(made: Pipeline, batch: Sequence[Document]) -> list[Outcome]:
    return [str(each) if isinstance(each, DocumentError) else each for each in made.tag(batch)]


def assert_same(documents: Sequence[Document], sizes: Sequence[int], period: int = 50, **method: Any) -> Pipeline:
    """In batches of ``sizes``, over and over. The model fails now and then, and the batch is tried again."""
    engines = MoodyEngine("a", period), MoodyEngine("a", period)
    slow, short = (pipeline(engine, **method) for engine in engines)
    first = 0
    for turn in count():
        batch = documents[first : first + sizes[turn % len(sizes)]]
        if not batch:
            break
        first += len(batch)
        if turn % 17 == 5:
            assert failing(by_the_door, short, engines[1], batch) == failing(
                one_after_the_other, slow, engines[0], batch
            )
        expected = one_after_the_other(slow, batch)
        # Both ways may be taken in turn.
        got = one_after_the_other(short, batch) if turn % 11 == 7 else by_the_door(short, batch)
        for document, one, other in zip(batch, expected, got, strict=True):
            assert other == one, document
        assert engines[1].asked == engines[0].asked
    assert short.repeats == slow.repeats
    assert state(short) == state(slow)
    return short


def failing(
    way: Callable[[Pipeline, Sequence[Document]], list[Outcome]],
    made: Pipeline,
    engine: MoodyEngine,
    batch: Sequence[Document],
) -> list[Outcome] | None:
    """What comes of a batch while the model fails; None where somebody has to be asked."""
    engine.fails = True
    try:
        return way(made, batch)
    except EngineError:
        return None
    finally:
        engine.fails = False


def state(made: Pipeline) -> list[Any]:
    """All that the memories could answer by, least recently used first."""
    memories = [stage.memories[pool] for stage in made._stages for pool in made.pools]
    return [
        [(repr(key), repr(entry.kept), entry.wanted, entry.recalled) for key, entry in store.items()]
        if kind == "templates"
        else [repr(key) for key in store]
        for memory in memories
        for kind, store in (("templates", memory._templates), ("texts", memory._texts))
    ]


USERS = ("root", "admin", "mysql", "ada", "bob", "eve", "mallory", "Zoë", "用户", "a.b", "svc-1")


def stream(seed: int, lines: int, templates: int = 14) -> list[Document]:
    """Log lines of a few templates, some of them twice, with colours, other alphabets, several lines in a document,
    names that occur twice, lines that no model can read, and documents that cannot be processed."""
    rng = random.Random(seed)

    def number(most: int = 65_000) -> int:
        return rng.randint(0, most)

    def address() -> str:
        return ".".join(str(number(255)) for _ in range(4))

    def clock() -> str:
        return f"{number(23):02}:{number(59):02}:{number(59):02}"

    def user() -> str:
        return rng.choice(USERS)

    makers: list[Callable[[], str]] = [
        lambda: f"Dec {number(28):2} {clock()} lab-1 sshd[{number()}]: Failed password for {user()} from {address()}",
        lambda: f"{clock()} db-1 sshd[{number()}]: Failed for root from {address()} port {number()} ssh2",
        lambda: f"job {number()} of {user()}: {rng.choice(['done', 'failed', 'retried'])} in {number()} ms",
        lambda: f"{address()} - {user()} [{clock()}] GET /index{number()}.html {rng.choice([200, 304, 404, 500])}",
        lambda: f"  node-{number(40)} kernel: eth0 {user()} and {user()} at {address()}, {address()}\n",
        lambda: f"\x1b[32mINFO\x1b[0m {clock()} connection from {address()} closed by {user()}",
        lambda: f"sync of {user()} over /srv/{user()}/part{number()}",
        lambda: f"{clock()} é.example: «{user()}» 👍 {number()} {address()}",
        lambda: f"{clock()} a.example started {user()}\n{clock()} a.example stopped {user()}",
        lambda: f"{clock()} {UNREADABLE} page of {user()}",
        lambda: f"uid={number(9)} euid=0 tty=ssh ruser={user()} rhost={address()} user={user()}",
        lambda: rng.choice(["", "  ", "\ud800 half", "x" * 300, "restart", "service cron restarted"]),
        lambda: f"at {number(9)}::{number(9)}: {user()} 0x{number():x} {rng.getrandbits(40):010x} of {number()}",
        lambda: f"{user()} Lovelace met {user()} in London.",
    ][:templates]
    texts: list[str] = []
    while len(texts) < lines:
        texts.append(rng.choice(texts[-300:]) if texts and rng.random() < 0.1 else rng.choice(makers)())
    pools = ["logs"] * 40 + ["news", "law"]
    return [Document(str(place), text, rng.choice(pools), place % 3) for place, text in enumerate(texts)]


@pytest.mark.parametrize(
    "method",
    [
        {},
        {"validation": "soft"},
        {"validation": "hard", "min_confidence": 0.35},
        {"overlaps": "nested", "repeat_cache_sentences": 40},
        {"repeat_cache_sentences": 3, "validation": "soft"},
        {"one_sense": True},
        {"priors": "stream"},
        {"mode": "paper"},
        {"repeats": "exact"},
        {"repeats": "off", "max_sentence_chars": 60},
        {"max_spans": 9, "max_sentence_chars": 80},
    ],
    ids=str,
)
def test_generated_lines_are_tagged_as_the_stages_tag_them(method: dict[str, Any]) -> None:
    assert_same(stream(1, 120), [1, 16, 5, 64], **method)


@pytest.mark.parametrize(
    ("lines", "checks"), [(250, 1), pytest.param(4_000, FIRST_CHECK * NEXT_CHECK, marks=pytest.mark.slow)]
)
def test_checks_of_templates_come_at_the_same_lines(lines: int, checks: int) -> None:
    """Few templates, so that each is checked, the longer stream's more than once; the model changes its mind
    meanwhile."""
    short = assert_same(stream(2, lines, templates=2), [64, 1, 100], period=90)
    entries = short._classify.memories["logs"]._templates.values()
    assert max(entry.recalled for entry in entries) > max(checks, FIRST_CHECK)
    assert max(entry.answers for entry in entries) > ClassifyCarry.lines


def test_an_edited_pool_answers_anew_and_in_both_ways_alike() -> None:
    edited = replace(LOGS, sentences=LOGS.sentences[:40])
    assert edited.fingerprint != LOGS.fingerprint
    assert_same(stream(3, 90), [16], logs=edited, validation="soft")


FEW_LINES = st.lists(
    st.builds(
        "{}{} for {} at {}{}".format,
        st.sampled_from(["", " ", "\x1b[1m", "12:00:01 ", "é "]),
        st.sampled_from(["login", "job 7", "an unreadable page"]),
        st.sampled_from([*USERS, "root root"]),
        st.sampled_from(["10.0.0.1", "::1", "0", "404", "12", "\x00", "e\u0301"]),
        st.sampled_from(["", "\n", " \u0301", "\r\nlogin for ada", "\u0600 "]),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=examples(100))
@given(
    FEW_LINES,
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.sampled_from([{}, {"validation": "soft"}, {"repeats": "exact"}, {"repeat_cache_sentences": 2}]),
)
def test_any_lines_in_any_batches(lines: list[str], sizes: list[int], method: dict[str, Any]) -> None:
    assert_same([Document(str(place), line, "logs") for place, line in enumerate(lines)], sizes, period=3, **method)


def test_known_lines_are_not_asked_about_and_have_their_own_offsets() -> None:
    engine = MoodyEngine("a", 1_000)
    with Tagger(pipeline(engine)) as tagger:
        list(
            tagger.tag([Document("d", f"1.2.3.{last} sshd[{last}]: opened for root", "logs") for last in range(10, 30)])
        )
        asked = len(engine.asked)
        line = "  203.0.113.77 sshd[12345]: opened for root"
        (tagged,) = tagger.tag([Document("e", line, "logs")])
    assert len(engine.asked) == asked
    assert tagged.entities
    assert all(line[entity.start : entity.end] == entity.text for entity in tagged.entities)
    assert tagged.text == line


# --- what is known without asking anybody ---


def opened(*numbers: int) -> list[Document]:
    return [Document(str(n), f"1.2.3.{n % 250} sshd[{n}]: opened for root", "logs") for n in numbers]


@settings(deadline=None, max_examples=examples(100))
@given(FEW_LINES, st.lists(st.integers(1, 9), min_size=1, max_size=3), st.sampled_from([{}, {"validation": "soft"}]))
def test_what_is_known_is_what_the_stages_would_say_without_asking(
    lines: list[str], sizes: list[int], method: dict[str, Any]
) -> None:
    documents = [Document(str(place), line, "logs") for place, line in enumerate(lines)]
    engine = MoodyEngine("a", 3)
    made = pipeline(engine, **method)
    first = 0
    for turn in count():
        batch = documents[first : first + sizes[turn % len(sizes)]]
        if not batch:
            break
        first += len(batch)
        asked, hits = len(engine.asked), {stage: counts.hits for stage, counts in made.repeats.items()}
        known = made.known(batch)
        assert len(engine.asked) == asked
        lines_known = len(batch) - known.count(None)
        for stage, counts in made.repeats.items():
            # As by the stages themselves: without validation nobody is asked to validate.
            asks = stage != "validate" or bool(method)
            assert counts.hits == hits[stage] + lines_known * asks
        by_stages = one_after_the_other(made, batch)
        for answer, tagged in zip(known, by_stages, strict=True):
            if answer is not None:
                assert answer.tagged == tagged
                assert answer.manifests == {stage: made.manifest(stage, "logs") for stage in answer.manifests}


def test_prose_new_lines_lines_of_pools_that_are_not_hosted_and_long_ones_are_not_known() -> None:
    made = pipeline(MoodyEngine("a", 1_000))
    made.tag(opened(*range(30)))
    prose = Document("p", "Ada Lovelace met Charles Babbage.", "news")
    made.tag([prose, prose])
    documents = [prose, Document("n", "nobody has said this", "logs"), Document("x", opened(1)[0].text, "elsewhere")]
    documents += [Document("two", "\n".join(each.text for each in opened(1, 2)), "logs")]
    assert made.known(documents) == [None] * len(documents)
    assert None not in made.known(opened(77, 78))


def test_lines_are_known_while_another_thread_waits_for_the_model() -> None:
    asked, answer = threading.Event(), threading.Event()

    class SlowEngine(MoodyEngine):
        def _note(self, questions: list[str]) -> None:
            super()._note(questions)
            if any("slowly" in question for question in questions):
                asked.set()
                assert answer.wait(60)

    made = pipeline(SlowEngine("a", 1_000))
    made.tag(opened(*range(30)))
    new = Document("new", "crond[1]: went slowly", "logs")
    results: list[Any] = []
    asking = threading.Thread(target=lambda: results.append(made.tag([new])))
    asking.start()
    try:
        assert asked.wait(60)
        known = made.known([*opened(300, 301), new])
    finally:
        answer.set()
        asking.join(60)
    assert [each is not None for each in known] == [True, True, False]
    assert results == [[TaggedDocument("new", new.text, results[0][0].entities, "logs")]]
    assert made.tag(opened(300, 301)) == [each.tagged for each in known if each is not None]


def test_nothing_is_known_and_nobody_waits_while_a_memory_is_in_use() -> None:
    """As while what it found is told to a Redis that does not answer."""
    made = pipeline(MoodyEngine("a", 1_000))
    made.tag(opened(*range(30)))
    for stage in made._stages[:2]:  # nobody is asked to validate
        with stage.memories["logs"]._lock:
            assert made.known(opened(300, 301)) == [None, None]
    assert None not in made.known(opened(300, 301))


def test_while_a_template_is_checked_its_lines_go_by_what_stands() -> None:
    engine = MoodyEngine("a", 10_000)
    made = pipeline(engine)
    made.tag(opened(*range(20)))
    known = made.known(opened(*range(100, 100 + 2 * FIRST_CHECK)))
    (checked,) = (place for place, each in enumerate(known) if each is None)
    assert checked >= FIRST_CHECK - 20
    questions = len(engine.asked)
    made.tag(opened(100 + checked))
    assert len(engine.asked) > questions, "the one line is asked about"
    made.tag(opened(*range(300, 300 + ClassifyCarry.lines)))  # more, where it has said something else
    assert None not in made.known(opened(*range(400, 450)))
