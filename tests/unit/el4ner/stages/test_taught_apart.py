"""A pool that is taught while an ensemble's members run in different processes: what they say together is corrected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from el4ner.errors import DocumentError, MessageError
from el4ner.evidence.calibration import FOLDER
from el4ner.loader import members_from
from el4ner.members_pipeline import MembersPipeline
from el4ner.pools import Pool
from el4ner.pools.examples import PoolExample
from el4ner.pools.taught import taught_pool
from el4ner.serialize import answers_from_json, answers_to_json, dumps
from el4ner.stages.combine import Combiner
from el4ner.stages.pool_boundaries import make_proposers
from el4ner.types import Document, DocumentAnswers, DocumentCandidates, DocumentTypes
from tests.unit.el4ner.evidence.test_prepared import POOL
from tests.unit.el4ner.test_pools_at_first_use import hosting, read_by, settings
from tests.unit.el4ner.test_teaching import MIRKO, MORE, NOT_ANNA, TEXT, ZORKO, directly, members

NAMES = ("a", "b")
LINES = replace(POOL, text_kind="log")
"""Nobody reads boundaries in it."""


class Fleet:
    """A process for each member, one that combines what they say, and one with both members to compare with."""

    def __init__(self, folder: Path, pool: Pool = POOL, *, at_first_use: bool = False, **method: Any) -> None:
        method = {"adaptive": False, **method}
        pools = {"p": pool}
        self.settings = settings(**method).model_copy()
        self.whole = hosting(folder, *members(), pools=pools, at_first_use=False, **method)
        self.engines = {engine.name: engine for engine in members()}
        visitors = make_proposers(self.settings, {"a": members()[0]}, pools, folder=folder / FOLDER)
        self.parts: dict[str, MembersPipeline] = {
            name: members_from(
                self.settings,
                {name: self.engines[name]},
                [name],
                pools,
                None,
                visitors={} if name == self.settings.proposer else visitors,
                cache_dir=folder,
                at_first_use=at_first_use,
            )
            for name in NAMES
        }
        self.combiner = Combiner(self.settings, pools, folder / FOLDER)

    def teach(self, *examples: PoolExample, whom: Sequence[str] = (*NAMES, "whole")) -> None:
        for name in whom:
            pipeline: Any = self.whole if name == "whole" else self.parts[name]
            taught = taught_pool(pipeline.teaching.base["p"], examples)
            assert pipeline.use_pool("p", pipeline.teaching.prepare("p", taught, directly))

    def candidates(self, text: str = TEXT) -> DocumentCandidates:
        (found,) = self.parts["a"].extract([Document("d", text, "p")])
        assert isinstance(found, DocumentCandidates)
        return found

    def said(self, candidates: DocumentCandidates, *names: str) -> list[tuple[Sequence[str], DocumentAnswers]]:
        return [([name], through_json(self.parts[name].answer([candidates])[0])) for name in names or NAMES]

    def typed(self, text: str = TEXT, *names: str) -> DocumentTypes:
        return self.combiner.types(self.said(self.candidates(text), *names), NAMES)


def through_json(answers: DocumentAnswers | DocumentError) -> DocumentAnswers:
    assert isinstance(answers, DocumentAnswers), answers
    again = answers_from_json(orjson.loads(dumps(answers_to_json(answers))))
    assert again == answers  # bit by bit
    return again


def types(document: DocumentTypes) -> dict[str, str]:
    return {each.candidate.span.text: each.type for sentence in document.sentences for each in sentence.typed}


def confidences(document: DocumentTypes) -> list[float]:
    return [each.confidence for sentence in document.sentences for each in sentence.typed]


@pytest.mark.parametrize("pool", [POOL, LINES], ids=["boundaries", "lines"])
@pytest.mark.parametrize("method", [{}, {"weights": "even"}], ids=["weighed", "even"])
def test_a_correction_is_in_effect_on_the_next_document(tmp_path: Path, pool: Pool, method: dict[str, Any]) -> None:
    fleet = Fleet(tmp_path, pool, **method)
    before = fleet.typed()
    assert types(before).get("Zorko") != "place"  # in lines it is not even a candidate
    fleet.teach(ZORKO)
    assert types(fleet.typed())["Zorko"] == "place"
    fleet.teach()
    assert fleet.typed() == before


@pytest.mark.parametrize("pool", [POOL, LINES], ids=["boundaries", "lines"])
def test_every_process_names_the_same_pool_and_the_combined_answer_the_same_evidence(
    tmp_path: Path, pool: Pool
) -> None:
    fleet = Fleet(tmp_path, pool)
    fleet.teach(ZORKO, MIRKO)
    expected = taught_pool(pool, [MIRKO, ZORKO]).pool.fingerprint
    combined = fleet.typed()
    (whole,) = fleet.whole.classify([fleet.candidates()])
    assert isinstance(whole, DocumentTypes)
    assert combined.manifest == whole.manifest
    assert (combined.manifest.pool_fingerprint, combined.manifest.pool_base) == (expected, pool.fingerprint)


def test_without_boundaries_it_is_decided_as_in_one_process_but_for_rounding(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, LINES)
    for examples in ([ZORKO], [ZORKO, MIRKO, NOT_ANNA], [ZORKO, *MORE]):
        fleet.teach(*examples)
        for text in (TEXT, "Then Mirko met Anna once more.", "Then Vasko met Zorko and Berta again."):
            (whole,) = fleet.whole.classify([fleet.candidates(text)])
            assert isinstance(whole, DocumentTypes)
            combined = fleet.typed(text)
            assert types(combined) == types(whole)
            assert confidences(combined) == pytest.approx(confidences(whole), abs=0.02)


def test_no_entity_and_a_new_type_are_taught_too(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.teach(NOT_ANNA, MIRKO)
    assert types(fleet.typed("Then Anna met Berta again."))["Anna"] == "none"
    assert types(fleet.typed("Then Mirko met Anna once more."))["Mirko"] == "thing"
    (mix,) = fleet.combiner.mixes.values()
    assert mix.types == ("person", "thing")


def test_the_others_decide_without_a_member_and_are_corrected(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.teach(ZORKO)
    for name in NAMES:
        typed = fleet.typed(TEXT, name)
        assert types(typed)["Zorko"] == "place"
        assert set(typed.manifest.members) == {name}


def test_only_the_taught_sentence_is_read_and_a_restart_reads_nothing(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    for engine in fleet.engines.values():
        engine.shown.clear()
    fleet.teach(ZORKO, whom=NAMES)
    shown = {request.prompt.user for engine in fleet.engines.values() for request in engine.shown}
    assert shown
    assert all(ZORKO.text in prompt for prompt in shown)
    again = Fleet(tmp_path)
    again.teach(ZORKO, whom=NAMES)
    assert read_by(*again.engines.values()) == 0
    assert again.typed() == fleet.typed()


def test_a_pool_that_is_not_read_yet_is_taught_all_the_same(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "fleet")
    later = Fleet(tmp_path / "later", at_first_use=True)
    for each in (fleet, later):
        each.teach(ZORKO)
    assert later.typed() == fleet.typed()


def test_nothing_is_estimated_anew_since_no_process_has_all_members(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    examples = [ZORKO, MIRKO, *MORE]
    fleet.teach(*examples)
    taught = taught_pool(POOL, examples)
    assert fleet.whole.teaching.is_due("p", taught)
    assert not any(part.teaching.is_due("p", taught) for part in fleet.parts.values())


def test_a_text_that_was_answered_before_is_corrected_again_without_being_read(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.teach(ZORKO)
    first = fleet.typed()
    counts = read_by(*fleet.engines.values())
    assert fleet.typed().sentences == first.sentences
    assert read_by(*fleet.engines.values()) == counts


def test_answers_by_other_files_are_refused_and_by_what_was_taught_over_these_are_not(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.teach(ZORKO)
    candidates = fleet.candidates()
    for changed in ({"pool_base": "other"}, {"pool_base": None}):
        said = [
            (names, replace(answers, manifest=replace(answers.manifest, **changed)))
            for names, answers in fleet.said(candidates)
        ]
        with pytest.raises(DocumentError, match="give all workers the same pool"):
            fleet.combiner.types(said, NAMES)


def test_a_long_document_mentions_what_was_taught_once(tmp_path: Path) -> None:
    """Or its answers would grow beyond what a topic takes."""
    fleet = Fleet(tmp_path)
    fleet.teach(ZORKO, MIRKO, *MORE)
    (short,), (long,) = (
        fleet.parts["a"].answer([fleet.candidates("\n".join(TEXT for _ in range(times)))]) for times in (1, 40)
    )
    assert isinstance(short, DocumentAnswers)
    assert isinstance(long, DocumentAnswers)
    (once,), many = short.sentences, long.sentences
    assert len(many) == 40
    assert once.near is not None
    assert all(each.near is not None and each.near.compared == once.near.compared for each in many)
    assert answers_to_json(long)["taught"] == answers_to_json(short)["taught"]
    for name in once.near.spans:
        assert dumps(answers_to_json(long)).count(name.encode()) == 1
    assert through_json(long) == long


@pytest.mark.parametrize(
    "change",
    [
        lambda taught, _: taught["labels"].pop(),
        lambda taught, _: taught["said"].pop(),
        lambda taught, _: taught["said"][0].pop(),
        lambda taught, _: taught.update(labels=["nobody's"] * len(taught["labels"])),
        lambda taught, _: taught.update(spans=[], labels=[], said=[]),
        lambda _, near: near["cosines"].pop(),
        lambda _, near: near["spans"].pop(),
        lambda taught, near: near["spans"].append(len(taught["spans"])),
    ],
)
def test_what_is_mentioned_of_taught_spans_has_to_fit_together(tmp_path: Path, change: Any) -> None:
    fleet = Fleet(tmp_path)
    fleet.teach(ZORKO, MIRKO, *MORE)
    data = [(names, answers_to_json(answers)) for names, answers in fleet.said(fleet.candidates())]
    for _, each in data:
        change(each["taught"], each["sentences"][0]["near"])
    with pytest.raises(MessageError, match="taught"):
        fleet.combiner.types([(names, answers_from_json(each)) for names, each in data], NAMES)
