"""The rows of bench/paper_scale.py and what bench/scale.py remembers, with engines that answer from a script."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from el4ner.config import Settings, load_settings
from el4ner.engines.base import Engine, GenerateRequest, Prompt, StateEngine, StateRequest
from el4ner.evaluation import Dataset
from el4ner.pipeline import Pipeline
from el4ner.pools import Pool, PoolSentence
from el4ner.retrieval import make_retriever
from el4ner.types import Span
from tests.support.doubles import ScriptedEngine, ScriptedStateEngine
from tests.support.paths import ROOT

sys.path.append(str(ROOT / "bench"))

from ablation.paper_rows import PaperRow, PaperRows, paper_rows
from ablation.remembering import Answers, RememberingEngine, RememberingStates

POOL = Pool(
    "p",
    {"place": "a place", "thing": "a thing"},
    (PoolSentence("Bonn is old.", ((Span(0, 4, "Bonn"), "place"),)),),
)
TEXT = "Rome has wine."
SENTENCE = PoolSentence(TEXT, ((Span(0, 4, "Rome"), "place"), (Span(9, 13, "wine"), "thing")))
ALL = ("a", "b", "best")


def member(name: str, types: Mapping[str, str], rejects: str = "") -> ScriptedEngine:
    """Lists the spans that it has types for, and types those that it is asked about."""

    def write(request: GenerateRequest) -> str:
        if request.prompt.answer.endswith(":"):
            return " false" if rejects and rejects in request.prompt.answer else " true"
        lines = [f" {surface}: {label}" for surface, label in types.items()]
        return "\n-".join(lines if "Types:" in request.prompt.user else [f" {surface}" for surface in types])

    return ScriptedEngine(name, write=write)


def found(row: PaperRow, path: Path, *engines: ScriptedEngine) -> dict[str, str]:
    """Surface and type of each entity that the row reports."""
    answers = Answers(path)
    remembering = {engine.name: RememberingEngine(engine, answers) for engine in engines}
    names = [engine.name for engine in engines]
    overrides = {
        "ensemble": {"members": names, "verifier": names[-1]},
        "models": {name: {"source": "none", "engine": "instant"} for name in names},
        "pools": {"default": "p", "paths": {"p": "none"}},
        "method": {"mode": "paper", "repeats": "off"},
        "retrieval": {"kind": "random", "k": 1},
    }
    settings = load_settings(Settings, environ={}, overrides=overrides)

    def make(changed: Settings, members: Mapping[str, Engine]) -> Pipeline:
        return Pipeline(changed, members, {"p": POOL}, {"p": make_retriever("random", POOL, k=1)})

    rows = PaperRows(settings, remembering, Dataset("p", "test", POOL, (SENTENCE,)), make)
    (record,) = rows.measured(row, [SENTENCE])
    answers.close()
    return {TEXT[entity.start : entity.end]: entity.type for entity in record.entities}


@pytest.fixture
def ensemble() -> tuple[ScriptedEngine, ...]:
    """Two say that wine is a thing and Rome too; the best one alone knows Rome and does not list wine."""
    thing = {"Rome": "thing", "wine": "thing"}
    return member("a", thing), member("b", thing), member("best", {"Rome": "place"}, rejects='"Rome" is of type thing')


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        ((True, True, False), {"Rome": "thing", "wine": "thing"}),
        ((True, False, False), {"Rome": "place"}),
        ((False, True, False), {"Rome": "thing"}),
        ((False, False, False), {"Rome": "place"}),
        ((True, True, True), {"wine": "thing"}),
        ((False, True, True), {}),
        ((False, False, True), {"Rome": "place"}),
    ],
)
def test_each_part_is_switched_off_by_itself(
    tmp_path: Path, ensemble: tuple[ScriptedEngine, ...], on: tuple[bool, bool, bool], expected: dict[str, str]
) -> None:
    assert found(PaperRow(ALL, *on), tmp_path / "answers", *ensemble) == expected


def test_a_member_alone_does_everything_itself(tmp_path: Path, ensemble: tuple[ScriptedEngine, ...]) -> None:
    alone = PaperRow(("a",), union=True, vote=True, validation=False)
    assert found(alone, tmp_path / "answers", *ensemble) == {"Rome": "thing", "wine": "thing"}
    assert ensemble[1].generated == ensemble[2].generated == []


def test_the_table_has_every_combination_and_every_member_alone() -> None:
    rows = paper_rows(ALL)
    assert len({row.key for row in rows}) == len(rows) == 2**3 + 2 * len(ALL)
    assert rows[0].label == "union on, vote on, validation on"


def test_a_question_is_asked_once_whoever_asks_it(tmp_path: Path, ensemble: tuple[ScriptedEngine, ...]) -> None:
    whole, silent = PaperRow(ALL, union=True, vote=True, validation=True), ensemble
    first = found(whole, tmp_path / "answers", *ensemble)
    asked = [len(engine.generated) for engine in silent]
    assert found(whole, tmp_path / "answers", *silent) == first
    assert found(PaperRow(ALL, union=True, vote=True, validation=False), tmp_path / "answers", *silent)
    assert [len(engine.generated) for engine in silent] == asked


def test_remembered_answers_are_the_model_s_own_and_of_one_model_only(tmp_path: Path) -> None:
    answers = Answers(tmp_path / "answers")
    request = GenerateRequest(Prompt("", "x"), 5)
    engines = [RememberingEngine(ScriptedEngine(n, write=lambda _, n=n: n), answers) for n in ("a", "b")]
    assert [engine.generate([request, request])[1].text for engine in engines] == ["a", "b"]
    assert [engine.generate([request])[0].text for engine in engines] == ["a", "b"]
    assert [engine.asked for engine in engines] == [1, 1]


def test_states_are_read_once_and_come_back_in_their_order() -> None:
    inner = ScriptedStateEngine("a")
    engine: StateEngine = RememberingStates(inner)
    prompt = Prompt("", "x")
    requests = [
        StateRequest(prompt, ("- one", "- two")),
        StateRequest(prompt, ("- two", "- three", "- one"), ((2, 5), (), (5,))),
        StateRequest(prompt, ()),
    ]
    for request in requests * 2:
        (got,), (expected,) = engine.states([request]), inner.states([request])
        assert np.array_equal(got.states, expected.states)
    read = [tail for request in inner.shown for tail in request.tails]
    assert read.count("- three") == 2 + 1  # by this test, and by the one that remembers
