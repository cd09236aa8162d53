"""A fleet answers what any of its processes was asked: the same answers, at no cost, and never anything else."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.pipeline import Pipeline
from el4ner.pools.pool import Pool, PoolSentence
from el4ner.repeats import ClassifyCarry, StageMemory
from el4ner.repeats.entries import FIRST_CHECK
from el4ner.repeats.kept_formats import AgreedFormat
from el4ner.repeats.shared_answers import MOST_BYTES, SharedAnswers, _framed, _unframed
from el4ner.tagger import Tagger
from el4ner.text.template_miner import TemplateMiner
from el4ner.types import Document, TaggedDocument
from tests.support.answer_stores import DictStore
from tests.unit.el4ner.repeats import test_agreement as agreement
from tests.unit.el4ner.repeats import test_repeats as repeats
from tests.unit.el4ner.repeats.test_repeats import DOCUMENTS, METHODS, POOLS, SIZES, Engine, costless, log, stages

NEWS = [Document("1", "Ada Lovelace met Bob in Rome. Zoë flew to Łódź.", "news"), Document("2", "Bob left.", "news")]


def worker(store: DictStore, kind: str = "templates", **options: Any) -> tuple[Pipeline, Engine]:
    """A pipeline of a process of its own, and its engine."""
    engine = options.pop("engine", None) or Engine("a")
    return repeats.pipeline(kind, engine, answers=store, **options), engine


def renamed(documents: Sequence[Document]) -> list[Document]:
    return [replace(document, id=f"again-{document.id}") for document in documents]


def without_ids(results: list[tuple[Any, ...]]) -> list[Any]:
    return [(own[0].sentences, own[1].sentences, own[2].sentences) for own in results]


@pytest.mark.parametrize("method", [{}, {"proposals": ["chunks", "models"]}, {"mode": "paper"}], ids=str)
def test_a_text_that_one_process_answered_another_does_not_ask(method: dict[str, Any]) -> None:
    store = DictStore()
    first, _ = worker(store, **method)
    answered = stages(NEWS, first)
    second, engine = worker(store, **method)
    again = stages(renamed(NEWS), second)
    assert engine.questions == 0
    assert without_ids(again) == without_ids(answered)
    assert all(own[0].usage.prompt_tokens == 0 for own in again)
    assert store.hits == {"extract": 3, "classify": 3, "validate": 3}


def test_a_template_that_one_process_settled_another_does_not_ask() -> None:
    store = DictStore()
    first, _ = worker(store)
    stages(log(*(f"sshd[{n}]: Failed password for root from 10.0.0.{n} port {n + 9}" for n in range(1, 30))), first)
    (expected,) = stages(log("sshd[99]: Failed password for root from 192.0.2.7 port 8"), first)
    second, engine = worker(store)
    (result,) = stages(log("sshd[99]: Failed password for root from 192.0.2.7 port 8"), second)
    assert engine.questions == 0
    assert costless([result]) == costless([expected])


@pytest.mark.parametrize("method", [{}, {"validation": "off"}, {"mode": "paper"}], ids=str)
@pytest.mark.parametrize("through_the_door", [True, False])
def test_stages_in_one_call_and_stages_apart_know_each_others_answers(
    method: dict[str, Any], through_the_door: bool
) -> None:
    store = DictStore()
    seen = [
        *NEWS,
        *log(*(f"sshd[{n}]: Failed password for root from 10.0.0.{n} port {n + 2000}" for n in range(1, 30))),
    ]
    new = [*renamed(NEWS), *log("sshd[99]: Failed password for root from 192.0.2.7 port 8080")]
    first, _ = worker(store, **method)
    second, engine = worker(store, **method)
    if through_the_door:
        stages(seen, first)
        assert all(isinstance(tagged, TaggedDocument) for tagged in second.tag(new))
    else:
        first.tag(seen)
        stages(new, second)
    assert engine.questions == 0


def test_taggers_may_share_what_they_were_asked(tmp_path: Path) -> None:
    store = DictStore()
    tagged = []
    for _ in range(2):
        overrides = {"ensemble": {"preset": "instant"}}
        with Tagger.from_config(overrides=overrides, environ={}, answers=store, cache_dir=tmp_path) as tagger:
            tagged += tagger.tag(["Ada Lovelace met Bob in Rome."])
    assert (store.misses["classify"], store.hits["classify"]) == (1, 1)
    assert tagged[0] == tagged[1]


@settings(deadline=None)
@given(DOCUMENTS, SIZES, METHODS)
def test_what_is_shared_of_texts_shows_in_nothing_but_the_cost(
    documents: list[Document], sizes: list[int], method: dict[str, Any]
) -> None:
    store = DictStore()
    expected = repeats.tag(documents, [3], repeats.pipeline("off", **method))
    for _ in range(2):
        made, engine = worker(store, "exact", **method)
        assert costless(repeats.tag(documents, sizes, made)) == costless(expected)
    if repeats.UNREADABLE not in "".join(document.text for document in documents):
        assert engine.questions == 0


@settings(deadline=None)
@given(DOCUMENTS, st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=6), METHODS)
def test_whoever_answers_offsets_are_the_texts_own(
    documents: list[Document], turns: list[tuple[int, int]], method: dict[str, Any]
) -> None:
    store = DictStore()
    fleet = [worker(store, **method)[0] for _ in range(3)]
    done = 0
    while done < len(documents):
        for number, size in turns:
            batch = documents[done : done + size]
            repeats.assert_exact(batch, stages(batch, fleet[number]))
            done += len(batch)
    assert not sum(store.damaged.values())


@pytest.mark.parametrize("other", [{"validation": "hard"}, {"constrain": True}, {"mode": "paper"}], ids=str)
def test_with_other_settings_nothing_is_shared(other: dict[str, Any]) -> None:
    store = DictStore()
    stages(NEWS, worker(store)[0])
    stages(NEWS, worker(store, **other)[0])
    assert set(store.hits.values()) == {0}


class Quantised(Engine):
    fingerprint = "the same model with fewer bits"  # type: ignore[assignment]


def test_another_model_is_asked_whatever_it_says() -> None:
    store = DictStore()
    stages(NEWS, worker(store)[0])
    made, engine = worker(store, engine=Quantised("a"))
    stages(NEWS, made)
    assert engine.questions > 0
    assert (store.hits["classify"], store.hits["validate"]) == (0, 0)


def test_another_pool_of_the_same_name_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = DictStore()
    stages(NEWS, worker(store)[0])
    shorter = replace(POOLS["news"], sentences=POOLS["news"].sentences[:50])
    assert shorter.fingerprint != POOLS["news"].fingerprint
    monkeypatch.setitem(POOLS, "news", shorter)
    stages(NEWS, worker(store)[0])
    assert set(store.hits.values()) == {0}


def test_where_types_follow_the_stream_they_are_nobody_elses() -> None:
    store = DictStore()
    for _ in range(2):
        stages(NEWS, worker(store, priors="density")[0])
    assert "classify" not in store.hits
    assert store.hits["extract"] > 0


def test_with_repeats_off_nothing_is_shared() -> None:
    store = DictStore()
    stages(NEWS, worker(store, "off")[0])
    assert not store.values
    assert not store.misses


def test_neither_keys_nor_values_hold_any_text() -> None:
    store = DictStore()
    stages([*NEWS, *log("job 7 of mallory.example done", "job 8 of mallory.example done")], worker(store)[0])
    assert store.values
    everything = b"\n".join(key.encode() + value for (_, key), value in store.values.items()).lower()
    # "Ada" is also three hexadecimal digits, of which keys are made.
    for word in ("lovelace", "rome", "zoë", "łódź", "mallory", "job 7"):
        assert word.encode() not in everything


def damages() -> list[Any]:
    def cut(key: tuple[str, str], values: dict[tuple[str, str], bytes]) -> bytes:
        return values[key][:-1]

    def flipped(key: tuple[str, str], values: dict[tuple[str, str], bytes]) -> bytes:
        return values[key][:-2] + bytes([values[key][-2] ^ 1]) + values[key][-1:]

    def another_keys(key: tuple[str, str], values: dict[tuple[str, str], bytes]) -> bytes:
        return next(value for other, value in sorted(values.items()) if other != key and other[0] == key[0])

    def another_version(key: tuple[str, str], values: dict[tuple[str, str], bytes]) -> bytes:
        return b"\x63" + values[key][1:]

    def pickled(key: tuple[str, str], values: dict[tuple[str, str], bytes]) -> bytes:
        return b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00]\x94(K\x01K\x02K\x03e."

    def large(key: tuple[str, str], values: dict[tuple[str, str], bytes]) -> bytes:
        return values[key] + b" " * MOST_BYTES

    def nothing(key: tuple[str, str], values: dict[tuple[str, str], bytes]) -> bytes:
        return b""

    return [cut, flipped, another_keys, another_version, pickled, large, nothing]


@pytest.mark.parametrize("damage", damages(), ids=lambda damage: damage.__name__)
def test_a_value_that_is_damaged_or_somebody_elses_is_asked_for(damage: Any, caplog: pytest.LogCaptureFixture) -> None:
    store = DictStore()
    answered = stages(NEWS, worker(store)[0])
    whole = dict(store.values)
    store.values = {key: damage(key, whole) for key in whole}
    second, engine = worker(store)
    with caplog.at_level(logging.WARNING):
        assert without_ids(stages(NEWS, second)) == without_ids(answered)
    assert engine.questions > 0
    assert store.damaged == {"extract": 3, "classify": 3, "validate": 3}
    assert set(store.hits.values()) == {0}
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3, "one for each stage"
    assert store.values == whole, "and is written anew"


@pytest.mark.parametrize("anchor", [[1, 2, 1, 0], [1, 4, 2, 2], [0, 5, 1, 0]], ids=str)
def test_a_forged_place_that_fits_one_line_of_a_template_by_accident_is_asked_for(anchor: list[int]) -> None:
    """The process id is a field: places in it, or told by its length, are other ones in the next line."""
    store = DictStore()
    lines = log(*(f"sshd[{n}]: Failed password for root from 10.0.0.{n} port {n + 9}" for n in range(1, 30)))
    stages(lines, worker(store)[0])
    for (stage, key), value in store.values.items():
        if stage == "extract":
            answers, (demonstrations, *_) = _unframed(key, value)
            forged = [demonstrations, [anchor], [["somebody"]], [None], 0]
            store.values[stage, key] = _framed(key, [answers, forged])
    made, engine = worker(store)
    known = made.tag(log(*(f"sshd[{n}]: Failed password for root from 192.0.2.7 port 8" for n in (2244, 7))))
    assert engine.questions > 0
    assert store.damaged["extract"] == 1
    for tagged in known:
        assert isinstance(tagged, TaggedDocument)
        assert all(tagged.text[entity.start : entity.end] == entity.text != "" for entity in tagged.entities)


def test_a_store_that_is_away_changes_nothing() -> None:
    store = DictStore()
    expected = stages(NEWS, repeats.pipeline("templates"))
    store.away = True
    assert stages(NEWS, worker(store)[0]) == expected
    assert not store.values
    store.away = False
    assert stages(NEWS, worker(store)[0]) == expected
    assert store.values


class Sharing(agreement.Types):
    """A process that types accounts in log lines, and shares what it settles."""

    def __init__(self, store: DictStore, *args: Any) -> None:
        super().__init__(*args)
        carry = ClassifyCarry()
        form = AgreedFormat(Pool("p", {"user": "", "process": "", "host": ""}, (PoolSentence("a line", ()),), "log"))
        self.shared = SharedAnswers(store, "classify", lambda: "decided", carry, form)
        self.memory = StageMemory(carry, 1000, TemplateMiner(memory=1000), self.shared)


def test_a_template_is_not_shared_before_its_lines_agree() -> None:
    store = DictStore()
    first = agreement.learnt(Sharing(store, {}))
    first.types(["kim"] * (agreement.LINES - 1))
    before = len(store.values)
    other = agreement.learnt(Sharing(store, {}))
    assert other.types(["kim"]) == ["user"]
    assert other.asked == 1
    first.types(["kim"])
    assert len(store.values) == before + 1
    assert other.types(["kim"] * 2) == ["user"] * 2
    assert other.asked == 1, "settled by the other process meanwhile"


def test_what_was_taken_over_is_checked_and_put_right_for_all() -> None:
    store = DictStore()
    odd = agreement.learnt(Sharing(store, {"mysql": ("process", 0.9)}))
    assert odd.types(["mysql"] * agreement.LINES) == ["process"] * agreement.LINES
    heir = agreement.learnt(Sharing(store, {"mysql": ("process", 0.9)}))
    assert heir.types(["kim"]) == ["process"], "as the first process would say"
    assert heir.asked == 0
    while heir.lines < 3 * FIRST_CHECK:
        last = heir.types(["kim"] * 8)
    assert set(last) == {"user"}
    late = agreement.learnt(Sharing(store, {}))
    assert late.types(["kim"]) == ["user"]
    assert late.asked == 0
