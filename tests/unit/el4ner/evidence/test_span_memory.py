"""A pool's spans: which ones stand for it, how they are read, and the file that keeps what was read."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.config import MethodSettings
from el4ner.engines.base import LAYERS, Prompt, States
from el4ner.evidence.encoders import EmbedderEncoder, MemberEncoder
from el4ner.evidence.span_memory import PoolSpans, SpanMemory, chosen_sentences
from el4ner.evidence.span_memory import drawn as drawn_by_hash
from el4ner.pools import Pool, PoolSentence
from el4ner.prompts import PromptSet
from el4ner.stages import StageContext
from el4ner.stages.extract import pool_proposals
from el4ner.types import Span, Usage
from tests.support.doubles import ScriptedStateEngine, drawn

TYPES = {"person": "a human being", "place": "somewhere"}


def sentence(text: str, **surfaces: str) -> PoolSentence:
    found = [(text.index(surface), surface, label) for label, surface in surfaces.items()]
    return PoolSentence(text, tuple((Span(at, at + len(name), name), label) for at, name, label in sorted(found)))


def pool(*sentences: PoolSentence) -> Pool:
    return Pool("p", TYPES, sentences)


def words(one: PoolSentence) -> list[Span]:
    """Proposes every word that begins with a capital."""
    found, at = [], 0
    for word in one.text.rstrip(".").split(" "):
        if word[:1].isupper():
            found.append(Span(at, at + len(word), word))
        at += len(word) + 1
    return found


POOL = pool(
    sentence("Ada left Rome.", person="Ada", place="Rome"),
    sentence("It rained in the old town.", place="old town"),
    sentence("Nothing."),
    sentence("Bob stayed.", person="Bob"),
)


# --- which spans ----------------------------------------------------------------------------------------------------


def test_labelled_spans_and_proposals_stand_for_a_pool_each_once() -> None:
    spans = PoolSpans.of(POOL, words, limit=99)
    assert [[span.text for span in own] for own in spans.spans] == [
        ["Ada", "Rome"],
        ["It", "old town"],
        ["Nothing"],
        ["Bob"],
    ]
    assert spans.texts == tuple(one.text for one in POOL.sentences)
    assert spans.labels.tolist() == [0, 1, 2, 1, 2, 0], "the last one is none"
    assert spans.sentences.tolist() == [0, 0, 1, 1, 2, 3]
    assert spans.proposed.tolist() == [True, True, True, False, True, True], "nobody proposes the old town"


def test_copies_of_a_sentence_are_one_sentence() -> None:
    twice = pool(POOL.sentences[0], POOL.sentences[3], POOL.sentences[0])
    assert PoolSpans.of(twice, words, limit=99).sentences.tolist() == [0, 0, 1, 0, 0]


def test_the_fingerprint_follows_texts_spans_and_labels() -> None:
    plain = PoolSpans.of(POOL, words, limit=99).fingerprint
    assert PoolSpans.of(POOL, words, limit=99).fingerprint == plain
    other_text = pool(*POOL.sentences[:3], sentence("Bob stayed!", person="Bob"))
    other_label = pool(*POOL.sentences[:3], sentence("Bob stayed.", place="Bob"))
    other_spans = PoolSpans.of(POOL, lambda one: [], limit=99)
    found = {PoolSpans.of(other, words, limit=99).fingerprint for other in (other_text, other_label)}
    assert len({plain, other_spans.fingerprint, *found}) == 4


def lexicon_of(*sentences: PoolSentence) -> list[list[str]]:
    made = pool(*sentences)
    context = StageContext(made, PromptSet("v1"), MethodSettings(proposals=("lexicon",)))
    propose = pool_proposals(context)
    return [[span.text for span in propose(one)] for one in made.sentences]


def test_a_surface_that_only_the_sentence_itself_has_is_not_known_from_the_pool() -> None:
    found = lexicon_of(
        sentence("Ada met Bob.", person="Ada"),
        sentence("Bob left.", person="Bob"),
        sentence("Ada left.", person="Ada"),
        sentence("Nobody but Cem came.", person="Cem"),
    )
    assert found == [["Ada", "Bob"], [], ["Ada"], []]


def test_a_copy_of_the_sentence_does_not_give_its_surfaces_away() -> None:
    twice = sentence("Cem left Rome.", person="Cem", place="Rome")
    assert lexicon_of(twice, twice, sentence("Rome burned.", place="Rome")) == [["Rome"], ["Rome"], ["Rome"]]


def test_a_surface_in_lower_case_is_known_in_any_case() -> None:
    found = lexicon_of(
        sentence("They saw the old town.", place="old town"),
        sentence("Old Town was closed."),
        sentence("Old towns are many."),
    )
    assert found == [[], ["Old Town"], []]


@given(st.permutations(range(12)), st.integers(1, 12))
def test_of_a_large_pool_the_same_sentences_are_read_in_whatever_order_they_are(order: list[int], limit: int) -> None:
    texts = [f"Sentence {number}." for number in range(12)]
    plain = pool(*(PoolSentence(text, ()) for text in texts))
    shuffled = pool(*(PoolSentence(texts[number], ()) for number in order))
    chosen = chosen_sentences(plain, limit)
    assert chosen == sorted(chosen)
    assert len(chosen) == limit
    assert {texts[i] for i in chosen} == {shuffled.sentences[i].text for i in chosen_sentences(shuffled, limit)}
    assert {texts[i] for i in chosen_sentences(plain, limit - 1)} <= {texts[i] for i in chosen}
    assert PoolSpans.of(plain, words, limit=limit).texts == tuple(texts[i] for i in chosen)


def test_a_small_pool_is_read_whole() -> None:
    assert chosen_sentences(POOL, 99) == [0, 1, 2, 3]
    assert PoolSpans.of(POOL, words, limit=99).weights.tolist() == [1.0] * 6


def named(flags: Sequence[bool]) -> Pool:
    """A sentence for each flag, with an entity or without."""
    return pool(
        *(
            sentence(f"Ada saw {number}.", person="Ada") if flag else sentence(f"Nobody saw {number}.")
            for number, flag in enumerate(flags)
        )
    )


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 40))
def test_of_a_large_pool_sentences_with_entities_are_read_first_and_the_others_count_for_those_left_out(
    flags: list[bool], limit: int
) -> None:
    chosen = chosen_sentences(named(flags), limit)
    read, whole = [flags[place] for place in chosen], len(flags)
    with_some, without = sum(read), len(read) - sum(read)
    assert len(read) == min(limit, whole)
    assert without <= max(round(0.2 * limit), len(read) - sum(flags)) or limit >= whole
    assert without <= round(limit * (whole - sum(flags)) / whole) or with_some == sum(flags)
    spans = PoolSpans.of(named(flags), words, limit=limit)
    counted = dict(zip(spans.sentences.tolist(), spans.weights.tolist(), strict=True))
    assert [counted[place] for place in chosen if flags[place]] == [1.0] * with_some
    if with_some and without:
        shares = sum(counted[place] for place in chosen if not flags[place]) / with_some
        assert shares == pytest.approx((whole - sum(flags)) / sum(flags)), "as in the whole pool"


def test_what_a_pool_was_taught_counts_once_since_all_of_it_is_read() -> None:
    files = PoolSpans.of(named([True] * 8 + [False] * 20), words, limit=10)
    taught = PoolSpans.of(named([False] * 2), words, limit=10)
    assert files.weights.tolist() == [1.0] * 8 + [10.0] * 2
    assert files.with_taught(taught, dropped=(), none=(2, 2))[0].weights.tolist() == [1.0] * 8 + [10.0] * 2 + [1.0] * 2


def test_of_what_was_drawn_a_part_can_be_drawn_by_chance() -> None:
    """By the same hash the sentences without entities would all come first."""
    flags = [True] * 400 + [False] * 4_000
    large = named(flags)
    chosen = chosen_sentences(large, 400)
    texts = [large.sentences[place].text for place in chosen]
    again = drawn_by_hash(texts, 100, salt="again ")
    assert sum(not flags[chosen[place]] for place in again) == pytest.approx(20, abs=10)


def test_weights_follow_from_what_is_not_read_too() -> None:
    few, many = (PoolSpans.of(named([True] * 4 + [False] * count), words, limit=5) for count in (3, 30))
    assert few.texts[:4] == many.texts[:4]
    assert (few.weights[-1], many.weights[-1]) == (3.0, 30.0)
    assert few.fingerprint != many.fingerprint


# --- reading --------------------------------------------------------------------------------------------------------


def member(engine: ScriptedStateEngine) -> MemberEncoder:
    return MemberEncoder(engine, lambda text: Prompt("label", text), lambda surface: f"- {surface}", version="v1")


def span(text: str, start: int, end: int) -> Span:
    return Span(start, end, text[start:end])


def test_a_member_reads_each_surface_of_a_sentence_once() -> None:
    engine = ScriptedStateEngine("a")
    text = "Ada met Ada in Rome."
    asked = [span(text, 15, 19), span(text, 0, 3), span(text, 8, 11)]
    (states,), usage = member(engine).encode([text], [asked])
    (request,) = engine.shown
    assert request.prompt == Prompt("label", text)
    assert request.tails == ("- Rome", "- Ada")
    assert np.array_equal(states, np.stack([engine.show(request.prompt, f"- {one.text}") for one in asked]))
    assert usage.prompt_tokens > 0


def test_a_sentence_without_spans_is_not_read() -> None:
    engine = ScriptedStateEngine("a")
    one, none, other = "Ada left.", "It rained.", "Bob left."
    states, usage = member(engine).encode([none, one, none, other], [[], [span(one, 0, 3)], [], [span(other, 0, 3)]])
    assert [found.shape for found in states] == [(count, LAYERS, 8) for count in (0, 1, 0, 1)]
    assert [request.prompt.user for request in engine.shown] == [one, other]
    assert usage == Usage(len("label" + one) + len("label" + other) + 2 * len("- Ada"), 0, 0)
    assert member(engine).encode([], []) == ([], Usage())


def test_an_encoder_is_its_member_with_its_prompts() -> None:
    engine = ScriptedStateEngine("a")
    plain = member(engine)
    other = MemberEncoder(engine, lambda text: Prompt("", text), str, version="v2")
    assert plain.name == "a"
    assert plain.fingerprint != other.fingerprint
    assert plain.fingerprint != member(ScriptedStateEngine("b")).fingerprint


class FakeEmbedder:
    fingerprint = states_fingerprint = "fake"

    def embed(self, texts: Sequence[str]) -> States:
        return np.asarray([drawn(text)[0] for text in texts], np.float32).reshape(len(texts), 8)

    def embed_in_context(self, texts: Sequence[str], spans: Sequence[Sequence[tuple[int, int]]]) -> States:
        found = [drawn(text, str(place))[0] for text, own in zip(texts, spans, strict=True) for place in own]
        return np.asarray(found, np.float32).reshape(len(found), 8)


def test_the_embedder_says_what_a_span_is_alone_and_in_its_sentence() -> None:
    embedder = FakeEmbedder()
    texts = ["Ada left.", "It rained.", "Ada met Bob."]
    asked = [[span(texts[0], 0, 3)], [], [span(texts[2], 0, 3), span(texts[2], 8, 11)]]
    encoder = EmbedderEncoder(embedder)  # type: ignore[arg-type]
    states, usage = encoder.encode(texts, asked)
    assert [found.shape for found in states] == [(1, LAYERS, 8), (0, LAYERS, 8), (2, LAYERS, 8)]
    assert np.array_equal(states[0][0, 0], states[2][0, 0]), "the same surface"
    assert not np.array_equal(states[0][0, 1], states[2][0, 1]), "in another sentence"
    assert usage == Usage(), "no language model was asked"
    nothing, _ = encoder.encode(texts[:2], [[], []])
    assert [found.shape for found in nothing] == [(0, LAYERS, 8)] * 2


# --- the memory -----------------------------------------------------------------------------------------------------


class Counting:
    """An encoder that counts what it reads."""

    def __init__(self, fingerprint: str = "f") -> None:
        self.name = "a"
        self.fingerprint = self.states_fingerprint = fingerprint
        self.read: list[str] = []

    def encode(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> tuple[list[States], Usage]:
        self.read += texts
        found = [[drawn(text, str(one)) * 7 + 3 for one in own] for text, own in zip(texts, spans, strict=True)]
        return [np.asarray(own, np.float32).reshape(len(own), LAYERS, 8) for own in found], Usage()


SPANS = PoolSpans.of(POOL, words, limit=99)


def opened(folder: Path, encoder: Counting, spans: PoolSpans = SPANS) -> SpanMemory:
    return SpanMemory.open(spans, encoder, folder, label="reading")


def test_vectors_are_comparable_by_their_angle(tmp_path: Path) -> None:
    memory = opened(tmp_path, Counting())
    assert memory.vectors.shape == (LAYERS, len(SPANS.labels), 8)
    assert np.linalg.norm(memory.vectors, axis=2) == pytest.approx(np.ones((LAYERS, len(SPANS.labels))), abs=1e-3)
    again, _ = Counting().encode(SPANS.texts, SPANS.spans)
    assert memory.comparable(np.concatenate(again)) == pytest.approx(memory.vectors, abs=1e-3)


def test_rows_are_in_the_order_of_the_pool_whatever_the_order_of_reading(tmp_path: Path) -> None:
    sentences = [PoolSentence("X" * (50 - number), ((Span(0, 1, "X"), "person"),)) for number in range(40)]
    spans = PoolSpans.of(pool(*sentences), lambda one: [], limit=99)
    memory = opened(tmp_path, Counting(), spans)
    alone, _ = Counting().encode(spans.texts, spans.spans)
    assert memory.comparable(np.concatenate(alone)) == pytest.approx(memory.vectors, abs=1e-3)


def test_a_dimension_that_hardly_moves_is_not_blown_up() -> None:
    states = np.zeros((50, LAYERS, 3), np.float32)
    rng = np.random.default_rng(0)
    states[:, :, 0] = rng.standard_normal((50, LAYERS)) * 10
    states[:, :, 1] = 5 + rng.standard_normal((50, LAYERS)) * 1e-5
    memory = SpanMemory.of(states)
    assert np.abs(memory.vectors[:, :, 0]).mean() > 0.99
    assert np.abs(memory.vectors[:, :, 1:]).max() < 0.05


def test_a_pool_is_read_once_and_then_taken_from_its_file(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    made, stored = opened(tmp_path, first), opened(tmp_path, second)
    assert sorted(first.read) == sorted(SPANS.texts)
    assert second.read == []
    assert stored.vectors == pytest.approx(made.vectors, abs=1e-3)
    assert np.array_equal(stored.centre, made.centre)
    assert np.array_equal(stored.scale, made.scale)


def test_a_memory_lies_in_memory_alike_whether_it_was_read_or_found(tmp_path: Path) -> None:
    """Sums of float32 depend on how the numbers lie: the last bit of a confidence would tell who read the pool."""
    first, second = opened(tmp_path, Counting()), opened(tmp_path, Counting())
    assert first.vectors.strides == second.vectors.strides
    assert first.vectors.flags.c_contiguous
    assert np.array_equal(first.vectors, second.vectors)


def test_another_model_or_another_pool_is_read_for_itself(tmp_path: Path) -> None:
    opened(tmp_path, Counting())
    other_model = Counting("g")
    opened(tmp_path, other_model)
    assert other_model.read
    other_pool = Counting()
    opened(tmp_path, other_pool, PoolSpans.of(pool(*POOL.sentences[1:]), words, limit=99))
    assert other_pool.read
    unchanged = Counting()
    opened(tmp_path, unchanged)
    assert unchanged.read == []


@pytest.mark.parametrize("damage", ["empty", "half", "text", "fewer spans", "no scale"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    made = opened(tmp_path, Counting())
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    arrays: dict[str, Any] = {"vectors": made.vectors, "centre": made.centre, "scale": made.scale}
    if damage == "fewer spans":
        np.savez(path, **{**arrays, "vectors": made.vectors[:, 1:]})
    elif damage == "no scale":
        np.savez(path, vectors=made.vectors, centre=made.centre)
    else:
        path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "text": b"not at all"}[damage])
    encoder = Counting()
    with caplog.at_level(logging.WARNING):
        again = opened(tmp_path, encoder)
    assert encoder.read
    assert "made anew" in caplog.text
    assert np.array_equal(again.vectors, made.vectors)
    assert opened(tmp_path, Counting()).vectors == pytest.approx(made.vectors, abs=1e-3), "and it is mended"


def test_several_may_open_a_pool_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(4)
    found: list[SpanMemory] = []

    class Waiting(Counting):
        def encode(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> tuple[list[States], Usage]:
            together.wait(timeout=30)
            return super().encode(texts, spans)

    threads = [threading.Thread(target=lambda: found.append(opened(tmp_path, Waiting()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(one.vectors, found[0].vectors) for one in found)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"], "one file, nothing left over"


def test_a_reading_that_fails_leaves_no_file(tmp_path: Path) -> None:
    class Failing(Counting):
        def encode(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> tuple[list[States], Usage]:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        opened(tmp_path, Failing())
    assert list(tmp_path.iterdir()) == []


def test_a_pool_in_which_nothing_is_found_has_an_empty_memory(tmp_path: Path) -> None:
    spans = PoolSpans.of(pool(PoolSentence("…", ()), PoolSentence("—", ())), words, limit=99)
    for _ in range(2):
        memory = opened(tmp_path, Counting(), spans)
        assert memory.vectors.shape == (LAYERS, 0, 8)
        assert memory.comparable(np.ones((3, LAYERS, 8), np.float32)).shape == (LAYERS, 3, 8)
