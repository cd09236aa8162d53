"""A pool that is taught while a pipeline works: what is read, what is forgotten, and that all ways come to the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from el4ner.engines.base import Prompt, States
from el4ner.errors import DocumentError
from el4ner.loader import pipeline_from
from el4ner.pipeline import Pipeline
from el4ner.pools.examples import PoolExample
from el4ner.pools.taught import taught_pool
from el4ner.types import Document, DocumentCandidates, DocumentTypes, Span, TaggedDocument
from tests.support.doubles import drawn
from tests.unit.el4ner.evidence.test_prepared import POOL, Member
from tests.unit.el4ner.test_pools_at_first_use import OTHER, hosting, read_by, settings

R = TypeVar("R")
TEXT = "Then Zorko met Anna once more."


def show(prompt: Prompt, tail: str) -> States:
    """What a word is called counts for most, and whether it looks like a name of the pool."""
    states = 0.1 * drawn(prompt.user, tail)
    words = tail.split()
    if words:
        states += drawn(words[-1].strip(".,"))
        states[:, 0] += 3.0 * words[-1].endswith("a")
    return states


def members(look: Callable[[Prompt, str], States] = show) -> tuple[Member, Member]:
    found = Member("a"), Member("b")
    for member in found:
        member.show = look
    return found


def directly(function: Callable[[], R]) -> R:
    return function()


def labelled(text: str, at: int = 0, types: dict[str, str] | None = None, **labels: str) -> PoolExample:
    spans = [(Span(text.index(word), text.index(word) + len(word), word), label) for word, label in labels.items()]
    return PoolExample(text, tuple(spans), types or {}, "ada", at)


PLACE = {"place": "where one can be"}
ZORKO = labelled("Then Zorko met Anna again.", 1, PLACE, Zorko="place", Anna="person")
MIRKO = labelled("Then Mirko met Berta again.", 2, {"thing": "no person"}, Mirko="thing", Berta="person")
NOT_ANNA = labelled("Then Anna met Berta again.", 3, Berta="person")


def teach(pipeline: Pipeline, *examples: PoolExample, name: str = "p") -> None:
    taught = taught_pool(pipeline.teaching.base[name], examples)
    assert pipeline.use_pool(name, pipeline.teaching.prepare(name, taught, directly))
    if pipeline.teaching.is_due(name, taught):
        pipeline.teaching.renew(name, taught, directly)
        assert pipeline.use_pool(name, pipeline.teaching.prepare(name, taught, directly))


def tagged(pipeline: Pipeline, text: str = TEXT, pool: str = "p") -> dict[str, tuple[str, float]]:
    (document,) = pipeline.tag([Document("d", text, pool)])
    assert isinstance(document, TaggedDocument)
    return {entity.text: (entity.type, entity.confidence) for entity in document.entities}


def provenance(pipeline: Pipeline, pool: str = "p") -> list[Any]:
    return [pipeline.manifest(stage, pool) for stage in ("extract", "classify", "validate")]  # type: ignore[arg-type]


def test_what_is_taught_is_in_effect_on_the_next_document_and_nothing_else_is_read(tmp_path: Path) -> None:
    engines = members()
    pipeline = hosting(tmp_path, *engines, at_first_use=False)
    before, other = provenance(pipeline), provenance(pipeline, "q")
    assert tagged(pipeline)["Zorko"][0] == "person"
    for engine in engines:
        engine.shown.clear()
    teach(pipeline, ZORKO)
    assert {request.prompt.user.split("Text: ")[-1].splitlines()[0] for one in engines for request in one.shown} == {
        ZORKO.text
    }
    assert tagged(pipeline)["Zorko"][0] == "place"
    assert all(
        now.pool_fingerprint != then.pool_fingerprint for now, then in zip(provenance(pipeline), before, strict=True)
    )
    assert all(now.pool_base == POOL.fingerprint for now in provenance(pipeline))
    assert provenance(pipeline, "q") == other


def test_what_was_answered_of_the_pool_is_forgotten_and_of_other_pools_is_not(tmp_path: Path) -> None:
    engines = members()
    pipeline = hosting(tmp_path, *engines, at_first_use=False)
    tagged(pipeline), tagged(pipeline, pool="q")
    counted = pipeline.repeats["classify"]
    teach(pipeline, ZORKO)
    assert pipeline.repeats["classify"] == counted
    shown = read_by(*engines)
    tagged(pipeline, pool="q")
    assert read_by(*engines) == shown
    tagged(pipeline)
    assert read_by(*engines) > shown


def test_no_entity_is_taught_too(tmp_path: Path) -> None:
    pipeline = hosting(tmp_path, *members(), at_first_use=False)
    assert tagged(pipeline, "Then Anna met Berta again.")["Anna"][0] == "person"
    teach(pipeline, NOT_ANNA)
    assert "Anna" not in tagged(pipeline, "Then Anna met Berta again.")


def test_a_new_type_is_in_effect_at_once_and_only_its_sentence_is_read(tmp_path: Path) -> None:
    engines = members()
    pipeline = hosting(tmp_path, *engines, at_first_use=False)
    for engine in engines:
        engine.shown.clear()
    teach(pipeline, MIRKO)
    assert {MIRKO.text in request.prompt.user for one in engines for request in one.shown} == {True}
    assert tagged(pipeline, "Then Mirko met Anna once more.")["Mirko"][0] == "thing"


def test_withdrawing_gives_back_what_the_files_say(tmp_path: Path) -> None:
    pipeline = hosting(tmp_path, *members(), at_first_use=False)
    before, answers = provenance(pipeline), tagged(pipeline)
    teach(pipeline, ZORKO, MIRKO)
    assert provenance(pipeline) != before
    teach(pipeline)
    assert (provenance(pipeline), tagged(pipeline)) == (before, answers)


def taught_by(path: Path, *steps: Sequence[PoolExample], at_first_use: bool = False) -> Pipeline:
    pipeline = hosting(path, *members(), at_first_use=at_first_use)
    for step in steps:
        teach(pipeline, *step)
    return pipeline


MORE = [
    labelled(f"Then Vasko met {name} again.", 10 + at, Vasko="person") for at, name in enumerate(["Ines", "Ulf", "Bo"])
]


@pytest.mark.parametrize(
    ("steps", "at_first_use"),
    [
        ([[MIRKO], [MIRKO, ZORKO], [ZORKO, MIRKO, *MORE]], False),
        ([[*MORE, NOT_ANNA], [ZORKO], [*reversed(MORE), MIRKO, ZORKO]], False),
        ([[MIRKO, *MORE, ZORKO]], True),
    ],
    ids=["one-by-one", "with-detours", "before-the-files-are-read"],
)
def test_members_of_a_fleet_come_to_the_same_evidence(
    tmp_path: Path, steps: Sequence[Sequence[PoolExample]], at_first_use: bool
) -> None:
    straight = taught_by(tmp_path / "1", [ZORKO, MIRKO, *MORE])
    other = taught_by(tmp_path / "2", *steps, at_first_use=at_first_use)
    if at_first_use:
        other.read_pools([Document("d", TEXT, "p")])
        teach(other, *steps[-1])
    assert provenance(other) == provenance(straight)
    assert tagged(other) == tagged(straight)
    ours, theirs = straight.evidence("p"), other.evidence("p")
    assert ours is not None
    assert theirs is not None
    assert [source.fingerprint for source in ours.sources] == [source.fingerprint for source in theirs.sources]


def test_a_restart_reads_nothing_again(tmp_path: Path) -> None:
    first = taught_by(tmp_path, [ZORKO, MIRKO])
    engines = members()
    again = hosting(tmp_path, *engines, at_first_use=False)
    teach(again, ZORKO, MIRKO)
    assert read_by(*engines) == 0
    assert provenance(again) == provenance(first)
    assert tagged(again) == tagged(first)


def test_weights_and_boundaries_are_estimated_anew_when_the_pool_has_grown(tmp_path: Path) -> None:
    pipeline = hosting(tmp_path, *members(), at_first_use=False)
    by_files = pipeline.calibration("p")
    assert by_files is not None
    boundaries = pipeline.manifest("extract", "p").evidence
    teach(pipeline, ZORKO)
    few = pipeline.calibration("p")
    assert few is not None
    assert few.key == by_files.key
    assert pipeline.manifest("extract", "p").evidence == boundaries
    teach(pipeline, ZORKO, MIRKO, *MORE)  # more than a fifth of 16
    renewed = pipeline.calibration("p")
    assert renewed is not None
    assert renewed.key != by_files.key
    assert pipeline.manifest("extract", "p").evidence != boundaries
    assert tagged(pipeline)["Zorko"][0] == "place"
    # A few more are weighed by what is there.
    teach(pipeline, ZORKO, MIRKO, NOT_ANNA, *MORE)
    assert pipeline.calibration("p") is not None
    assert not pipeline.teaching.is_due("p", pipeline.teaching.in_use("p"))


def test_who_only_extracts_estimates_boundaries_anew_too(tmp_path: Path) -> None:
    engines = {engine.name: engine for engine in members()}
    pipeline = pipeline_from(settings(), engines, {"p": POOL}, None, stages=["extract"], cache_dir=tmp_path)
    before = pipeline.manifest("extract", "p").evidence
    teach(pipeline, ZORKO, MIRKO, *MORE)
    whole = taught_by(tmp_path, [ZORKO, MIRKO, *MORE])
    assert before != pipeline.manifest("extract", "p").evidence == whole.manifest("extract", "p").evidence


def test_a_sentence_that_fits_no_member_costs_the_others_nothing(tmp_path: Path) -> None:
    engines = members()
    pipeline = hosting(tmp_path, *engines, at_first_use=False)
    for engine in engines:
        engine.context_length = 500
    teach(pipeline, ZORKO, labelled("Then Mirko met " + 60 * "somebody and " + "Berta.", 2, Mirko="person"))
    for engine in engines:
        engine.context_length = 8192
    assert tagged(pipeline)["Zorko"][0] == "place"


def test_a_pool_that_is_not_read_yet_is_taught_all_the_same(tmp_path: Path) -> None:
    engines = members()
    pipeline = hosting(tmp_path, *engines)
    teach(pipeline, ZORKO)
    assert read_by(*engines) == 0
    assert pipeline.unread_pools == ["p", "q"]
    assert pipeline.manifest("validate", "q").pool_fingerprint == OTHER.fingerprint
    assert tagged(pipeline)["Zorko"][0] == "place"


def test_what_was_prepared_before_the_files_were_read_is_prepared_again(tmp_path: Path) -> None:
    pipeline = hosting(tmp_path, *members())
    prepared = pipeline.teaching.prepare("p", taught_pool(POOL, [ZORKO]), directly)
    assert tagged(pipeline)["Zorko"][0] == "person"
    assert not pipeline.use_pool("p", prepared)
    assert pipeline.manifest("extract", "p").pool_fingerprint == POOL.fingerprint
    teach(pipeline, ZORKO)
    assert tagged(pipeline)["Zorko"][0] == "place"


def test_a_document_between_two_stages_goes_on_by_what_the_next_one_knows(tmp_path: Path) -> None:
    extracting, classifying = (hosting(tmp_path / name, *members(), at_first_use=False) for name in "ec")
    documents = [Document("d", TEXT, "p")]
    teach(extracting, ZORKO)
    (ahead,) = extracting.extract(documents)  # the next stage has yet to hear of it
    assert isinstance(ahead, DocumentCandidates)
    (typed,) = classifying.classify([ahead])
    assert isinstance(typed, DocumentTypes)
    assert typed.manifest.pool_fingerprint == POOL.fingerprint
    teach(classifying, ZORKO, MIRKO)
    (typed,) = classifying.classify([ahead])
    assert isinstance(typed, DocumentTypes)
    assert {
        span.type for sentence in typed.sentences for span in sentence.typed if span.candidate.span.text == "Zorko"
    } == {"place"}
    (validated,) = extracting.validate([typed])
    assert not isinstance(validated, DocumentError)


def test_other_files_are_refused_whatever_they_were_taught(tmp_path: Path) -> None:
    pipeline = taught_by(tmp_path / "1", [ZORKO])
    (candidates,) = pipeline.extract([Document("d", TEXT, "p")])
    assert isinstance(candidates, DocumentCandidates)
    for changed in ({"pool_base": "other"}, {"pool_base": None, "pool_fingerprint": "other"}):
        manifest = replace(candidates.manifest, **({"pool_fingerprint": "x"} | changed))
        (refused,) = pipeline.classify([replace(candidates, manifest=manifest)])
        assert isinstance(refused, DocumentError)
        assert refused.code == "pool-mismatch"


def test_demonstrations_are_those_of_the_same_text(tmp_path: Path) -> None:
    pipeline = hosting(tmp_path, *members(), at_first_use=False)
    (extracted,) = pipeline.extract([Document("d", TEXT, "p")])
    assert isinstance(extracted, DocumentCandidates)
    last = len(POOL.sentences) - 1
    shown = replace(extracted, sentences=tuple(replace(one, demonstrations=(last, 0)) for one in extracted.sentences))
    teach(pipeline, labelled(POOL.sentences[0].text, 1))  # which stands there twice, with other labels, or once
    (typed,) = pipeline.classify([shown])
    assert isinstance(typed, DocumentTypes)
    texts = [pipeline.pools["p"].sentences[place].text for place in typed.sentences[0].demonstrations]
    assert texts == [POOL.sentences[last].text, POOL.sentences[0].text]
    unknown = replace(shown, manifest=replace(shown.manifest, pool_fingerprint="x", pool_base=POOL.fingerprint))
    (typed,) = pipeline.classify([unknown])
    assert isinstance(typed, DocumentTypes)
    assert typed.sentences[0].demonstrations == ()


def test_what_is_read_is_asked_for_by_the_call_alone(tmp_path: Path) -> None:
    """So that the thread that owns the models can be asked, one batch of sentences at a time."""
    engines = members()
    pipeline = hosting(tmp_path, *engines, at_first_use=False)
    inside: list[bool] = []
    calls = 0

    def relayed(function: Callable[[], R]) -> R:
        nonlocal calls
        calls += 1
        inside.append(True)
        try:
            return function()
        finally:
            inside.pop()

    def watched(prompt: Prompt, tail: str) -> States:
        assert inside, "a model was asked on another thread"
        return show(prompt, tail)

    for engine in engines:
        engine.show = watched
    taught = taught_pool(POOL, [ZORKO, MIRKO, *MORE])
    assert pipeline.teaching.prepare("p", taught, relayed).made is not None
    assert pipeline.teaching.is_due("p", taught)
    pipeline.teaching.renew("p", taught, relayed)
    assert calls > 2
    assert np.isfinite(read_by(*engines))
