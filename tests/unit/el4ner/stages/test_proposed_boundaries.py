"""From a pool to candidates by boundaries: who proposes what, who is named for it, and what types are made of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from el4ner.engines.base import GenerateRequest, Prompt, States
from el4ner.pipeline import Pipeline
from el4ner.pools import Pool, PoolSentence
from el4ner.stages.pool_evidence import pool_spans
from el4ner.types import Document, DocumentCandidates, SpanCandidate
from tests.support.doubles import ScriptedStateEngine, drawn
from tests.unit.el4ner.stages.test_pool_evidence import (
    DOCUMENT,
    LABELS,
    TRUTH,
    TYPES,
    assembled,
    found,
    pool,
    reader,
    sources,
    tag,
    type_of,
    typed,
)


def sees_names(name: str = "b", *, write: str = "") -> ScriptedStateEngine:
    """Its states tell of a span and of the last word of a text which type it has, names in lower case too."""

    def show(prompt: Prompt, tail: str) -> States:
        states = 0.2 * drawn(prompt.user, tail)
        last = tail.removeprefix("- ") if tail.startswith("- ") else tail.removeprefix("Text: ").split(" ")[-1]
        states[:, LABELS.index(type_of(last))] += 1.5
        return states

    made = ScriptedStateEngine(name, show=show)
    made.write = lambda request: write
    return made


def extracted(made: Pipeline, document: Document = DOCUMENT) -> dict[str, SpanCandidate]:
    (result,) = made.extract([document])
    assert isinstance(result, DocumentCandidates)
    return {candidate.span.text: candidate for item in result.sentences for candidate in item.candidates}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return assembled(tmp_path_factory.mktemp("evidence"), reader("a"), sees_names(), proposer="b")


def test_a_candidate_says_how_likely_it_is_and_who_proposed_it(made: Pipeline) -> None:
    candidates = extracted(made)
    assert {text for text, _ in TRUTH} <= set(candidates)
    for text, _ in TRUTH:
        assert candidates[text].proposed_by[:2] == ("boundaries", "chunks")
        boundary = candidates[text].boundary
        assert boundary is not None
        assert boundary > 0.5
    assert all(candidate.boundary is not None for candidate in candidates.values())


def test_names_are_found_without_the_chunker_and_the_lexicon_too(tmp_path: Path) -> None:
    made = assembled(tmp_path, sees_names(), proposer="b", method={"proposals": ["boundaries"]})
    candidates = extracted(made)
    assert {text for text, _ in TRUTH} <= set(candidates)
    assert {candidate.proposed_by for candidate in candidates.values()} == {("boundaries",)}
    assert found(made) == TRUTH


def test_what_the_chunker_proposes_and_hardly_is_an_entity_is_left_out(made: Pipeline, tmp_path: Path) -> None:
    as_before = assembled(tmp_path, reader("a"), sees_names())
    document = Document("d", "Nobody saw the Queen. It rained all day on the Road to Monday.")
    before, now = extracted(as_before, document), extracted(made, document)
    assert len(now) < len(before)
    assert all(
        candidate.boundary is None and "boundaries" not in candidate.proposed_by for candidate in before.values()
    )


def test_what_members_write_stays_whatever_its_boundaries_are(tmp_path: Path) -> None:
    def write(request: GenerateRequest) -> str:
        return " met\n- quiet"

    engine = sees_names()
    engine.write = write
    made = assembled(
        tmp_path, engine, proposer="b", method={"proposals": ["boundaries", "chunks", "lexicon", "models"]}
    )
    candidates = extracted(made)
    assert candidates["met"].proposed_by == ("b",)
    assert candidates["met"].boundary is None
    assert candidates["Jackson"].boundary is not None


def test_classification_finds_the_types_and_only_members_vote(made: Pipeline) -> None:
    assert sources(made)[0] == "boundaries"
    assert set(sources(made)) == {"boundaries", "a", "b"}
    assert found(made) == TRUTH
    spans = [span for item in typed(made).sentences for span in item.typed]
    assert all(set(span.votes) == {"a", "b"} for span in spans)
    assert all(0.5 < entity.confidence <= 1 for entity in tag(made))


def test_the_manifest_says_who_read_boundaries_and_by_what(made: Pipeline, tmp_path: Path) -> None:
    manifest = made.manifest("extract", "p")
    assert manifest.members == {"b": "b-fingerprint"}
    assert manifest.evidence
    assert manifest.evidence != made.manifest("classify", "p").evidence
    assert made.manifest("validate", "p").evidence is None
    before = assembled(tmp_path, reader("a"), sees_names()).manifest("extract", "p")
    assert (dict(before.members), before.evidence) == ({}, None)


def test_the_pool_shows_what_would_be_proposed_in_it(made: Pipeline) -> None:
    context = made._contexts["p"]
    assert context.proposer is not None
    spans = pool_spans(context)
    for text, in_sentence in zip(spans.texts, spans.spans, strict=True):
        rows = spans.rows([spans.texts.index(text)])
        proposed = {span for span, is_proposed in zip(in_sentence, spans.proposed[rows], strict=True) if is_proposed}
        assert {(span.start, span.end) for span in proposed} <= set(context.proposer.left_out[text])
    entities = spans.labels < len(TYPES)
    assert spans.proposed[entities].mean() > 0.9


def test_a_start_with_what_is_on_disk_reads_nothing(tmp_path: Path) -> None:
    first = assembled(tmp_path, sees_names(), proposer="b")
    engine = sees_names()
    second = assembled(tmp_path, engine, proposer="b")
    assert engine.shown == []
    assert second.manifest("extract", "p") == first.manifest("extract", "p")
    assert second.manifest("classify", "p") == first.manifest("classify", "p")
    assert tag(second) == tag(first)


LINES = Pool("p", TYPES, tuple(PoolSentence(one.text, one.spans) for one in pool().sentences), text_kind="log")
FEW = replace(pool(), sentences=pool().sentences[:9])
BARE = replace(pool(), sentences=tuple(PoolSentence(one.text, ()) for one in pool().sentences))


@pytest.mark.parametrize("hosted", [LINES, FEW, BARE], ids=["log lines", "nine sentences", "no entities"])
@pytest.mark.parametrize("proposals", [["boundaries", "chunks", "lexicon"], ["boundaries"]], ids=len)
def test_pools_that_say_too_little_about_boundaries_go_by_the_others(
    tmp_path: Path, hosted: Pool, proposals: list[str]
) -> None:
    made = assembled(tmp_path, sees_names(), proposer="b", hosted=hosted, method={"proposals": proposals})
    others: dict[str, Any] = {"proposals": proposals[1:] or ["chunks"]}
    before = assembled(tmp_path / "before", sees_names(), hosted=hosted, method=others)
    assert extracted(made) == extracted(before)
    assert "Jackson" in extracted(made)
    assert made.manifest("extract", "p") == before.manifest("extract", "p")
    assert "boundaries" not in sources(made)


def test_a_text_that_was_seen_before_has_the_same_boundaries_without_being_read(tmp_path: Path) -> None:
    engine = sees_names()
    made = assembled(tmp_path, engine, proposer="b", method={"repeats": "exact"})
    first = extracted(made)
    engine.shown.clear()
    assert extracted(made, Document("again", DOCUMENT.text)) == first
    assert engine.shown == []
    assert first["Jackson"].boundary is not None
