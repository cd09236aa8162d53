"""A run: records of what the stages said, resumed where it stopped, the same figures from the cache."""

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import el4ner
from el4ner.code_fingerprint import DECIDES, code_fingerprint, fingerprint_of
from el4ner.config import MethodSettings, Settings, load_settings
from el4ner.engines.base import Engine
from el4ner.engines.instant import InstantEngine
from el4ner.errors import DocumentError
from el4ner.evaluation import Dataset, EvaluationResult, evaluate
from el4ner.evaluation.recording import Results, record_of
from el4ner.evidence.priors import pool_mix
from el4ner.evidence.stream_mix import ESTIMATE_EVERY, StreamMix
from el4ner.pipeline import Pipeline
from el4ner.pools.pool import Pool, PoolSentence
from el4ner.retrieval import make_retriever
from el4ner.types import (
    Document,
    DocumentCandidates,
    DocumentEntities,
    DocumentTypes,
    Manifest,
    Mode,
    Sentence,
    SentenceCandidates,
    SentenceEntities,
    SentenceTypes,
    Span,
    SpanCandidate,
    TypedSpan,
    Usage,
    Verdict,
)
from tests.support.doubles import ScriptedEngine

TRAIN = tuple(
    PoolSentence(f"{name} left {place}.", ((Span(0, len(name), name), "person"),))
    for name, place in (("Ada", "Rome"), ("Bob", "Oslo"), ("Eve", "Bonn"))
)
POOL = Pool("made", {"person": "a person", "place": "a place"}, TRAIN)


def sentence(text: str, *entities: tuple[str, str]) -> PoolSentence:
    spans = [(Span(text.index(name), text.index(name) + len(name), name), label) for name, label in entities]
    return PoolSentence(text, tuple(sorted(spans)))


SENTENCES = tuple(
    sentence(f"Ada Lovelace met Bob {i} in Rome.", ("Bob", "person"), ("Rome", "place")) for i in range(7)
)
DATASET = Dataset("made/up", "test", POOL, SENTENCES)


class Counted(Pipeline):
    """Remembers which texts went through, and can die before a batch."""

    seen: list[str]
    dies_at: int | None = None

    def extract(self, documents: Sequence[Document]) -> list[DocumentCandidates | DocumentError]:
        if self.dies_at is not None and len(self.seen) >= self.dies_at:
            raise KeyboardInterrupt
        self.seen += [document.text for document in documents]
        return super().extract(documents)


def pipeline(
    method: Mapping[str, Any] | None = None,
    *,
    models: Mapping[str, Any] | None = None,
    engine: Callable[[str], Engine] = InstantEngine,
    pool: Pool = POOL,
) -> Counted:
    settings = load_settings(
        Settings,
        environ={},
        overrides={
            "ensemble": {"preset": "instant"},
            "models": dict(models or {}),
            "method": dict(method or {}),
            "pools": {"default": "made", "paths": {"made": "nowhere"}},
        },
    )
    names = settings.ensemble.members
    made = Counted(
        settings,
        {name: engine(name) for name in names},
        {"made": pool},
        {"made": make_retriever("random", pool, k=2)},
    )
    made.seen = []
    return made


def run(made: Pipeline, dataset: Dataset = DATASET, **options: Any) -> EvaluationResult:
    ticks = count()
    return evaluate(dataset, made, clock=lambda: float(next(ticks)), batch_size=2, **options)


def without_cache_figures(result: EvaluationResult) -> dict[str, Any]:
    return {key: value for key, value in result.as_json().items() if key != "cached_sentences"}


def test_a_cached_run_calls_no_stage_and_gives_the_same_figures(tmp_path: Path) -> None:
    first = pipeline()
    fresh = run(first, cache=tmp_path)
    again = pipeline()
    cached = run(again, cache=tmp_path)
    assert (len(first.seen), again.seen) == (7, [])
    assert (fresh.cached_sentences, cached.cached_sentences) == (0, 7)
    assert without_cache_figures(cached) == without_cache_figures(fresh)
    assert cached.records == fresh.records
    assert without_cache_figures(run(pipeline())) == without_cache_figures(fresh), "nor does a cache change them"


def test_a_run_that_was_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    killed = pipeline()
    killed.dies_at = 4
    with pytest.raises(KeyboardInterrupt):
        run(killed, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    with file.open("ab") as half:
        half.write(b'{"text":"Ada Love')
    resumed = pipeline()
    done: list[int] = []
    result = run(resumed, cache=tmp_path, progress=done.append)
    assert resumed.seen == [each.text for each in SENTENCES[4:]]
    assert result.cached_sentences == 4
    assert (done[0], sum(done)) == (4, 7)
    assert [each.text for each in result.records] == [each.text for each in SENTENCES]
    assert result.scores == run(pipeline()).scores


def test_other_samples_share_their_sentences(tmp_path: Path) -> None:
    run(pipeline(), Dataset("made/up", "test", POOL, SENTENCES[:3]), cache=tmp_path)
    other = pipeline()
    result = run(other, Dataset("made/up", "test", POOL, SENTENCES[2:5]), cache=tmp_path)
    assert (len(other.seen), result.cached_sentences, result.sentences) == (2, 1, 3)


def test_nothing_is_kept_of_answers_that_depend_on_the_sentences_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mix = StreamMix(
        "made", list(POOL.types), pool_mix(np.array([0]), 3), pool_density=0.5, priors="density", threshold=0.05
    )
    mix.observe(np.log(np.full((2 * ESTIMATE_EVERY, len(POOL.types) + 1), 1 / (len(POOL.types) + 1), np.float32)))
    monkeypatch.setattr(Counted, "mixes", {"made": mix})
    assert run(pipeline(), cache=tmp_path).cached_sentences == 0
    again = pipeline()
    assert run(again, cache=tmp_path).cached_sentences == 0
    assert len(again.seen) == 7
    unsure = np.log(np.array([[0.3, 0.3, 0.4]], np.float32))
    assert (mix.corrected(unsure) == unsure).all(), "what the pipeline was asked before says nothing of a data set"


def test_fresh_measures_again(tmp_path: Path) -> None:
    run(pipeline(), cache=tmp_path)
    again = pipeline()
    assert run(again, cache=tmp_path, fresh=True).cached_sentences == 0
    assert len(again.seen) == 7


def test_labels_that_were_mended_count_at_once(tmp_path: Path) -> None:
    before = run(pipeline(), cache=tmp_path)
    mended = tuple(PoolSentence(each.text, ()) for each in SENTENCES)
    after = run(pipeline(), Dataset("made/up", "test", POOL, mended), cache=tmp_path)
    assert (before.losses.gold, after.losses.gold, after.cached_sentences) == (14, 0, 7)


def test_a_text_that_occurs_twice_is_tagged_once() -> None:
    made = pipeline()
    result = run(made, Dataset("made/up", "test", POOL, (*SENTENCES[:2], SENTENCES[0])))
    assert (len(made.seen), result.sentences, len(result.records)) == (2, 3, 3)


def test_what_decides_a_result_decides_the_file(tmp_path: Path) -> None:
    other_pool = Pool("made", {"person": "somebody", "place": "a place"}, TRAIN)
    different = [
        pipeline(),
        pipeline({"mode": "paper"}),
        pipeline({"min_confidence": 0.5}),
        pipeline(engine=ScriptedEngine),
        pipeline(pool=other_pool),
        pipeline(models={"instant-a": {"source": "instant", "engine": "instant", "dtype": "float32"}}),
    ]
    for made in different:
        run(made, cache=tmp_path)
        assert len(made.seen) == 7
    assert len(list(tmp_path.iterdir())) == len(different)
    faster = pipeline(models={"instant-a": {"threads": 3, "max_batch_tokens": 9, "prefix_cache_mb": 0}})
    run(faster, cache=tmp_path)
    assert faster.seen == []


def test_seconds_are_shared_out_and_tokens_counted_by_stage() -> None:
    result = run(pipeline())
    # Every reading of the clock is a second later: one second a stage and batch, four batches.
    assert result.seconds == {"extract": 4.0, "classify": 4.0, "validate": 4.0}
    assert result.records[0].seconds == {"extract": 0.5, "classify": 0.5, "validate": 0.5}
    assert result.records[6].seconds["extract"] == 1.0, "alone in its batch"
    assert result.tokens["classify"].prompt_tokens > 0
    assert result.usage.prompt_tokens == sum(used.prompt_tokens for used in result.tokens.values())


@pytest.mark.parametrize(
    ("method", "fate"),
    [({"validation": "hard"}, "rejected"), ({"validation": "soft", "min_confidence": 0.99}, "unsure")],
)
def test_a_record_says_what_came_of_every_candidate(method: dict[str, Any], fate: str) -> None:
    def engine(name: str) -> Engine:
        # Calls everything a person, and the verifier says no.
        return ScriptedEngine(name, prefer=lambda tail, options: options[-1] if " no" in options else options[0])

    result = run(pipeline(method, engine=engine))
    for record in result.records:
        assert record.demonstrations
        assert all(candidate.votes == {"instant-a": "person", "instant-b": "person"} for candidate in record.candidates)
        assert all(candidate.verdict is not None and not candidate.verdict.holds for candidate in record.candidates)
        assert {candidate.fate for candidate in record.candidates} == {fate}
        assert record.predicted == ()


def test_of_two_entities_that_overlap_one_is_kept() -> None:
    text = "Bank of England"
    manifest = Manifest(Mode.SCORED, {}, "v1", "made", "f", "r")
    document, piece = Document("d", text), Sentence(0, 15, text)
    whole = TypedSpan(SpanCandidate(Span(0, 15, text), ("chunks",)), "bank", 0.9)
    part = TypedSpan(SpanCandidate(Span(8, 15, "England"), ("lexicon",)), "place", 0.5)
    nothing = TypedSpan(SpanCandidate(Span(0, 4, "Bank"), ("chunks",)), "none", 0.5)
    asked = Verdict(True, 1.0, "instant-b")
    results = Results(
        DocumentCandidates(
            document,
            manifest,
            (SentenceCandidates(piece, (1,), (nothing.candidate, whole.candidate, part.candidate)),),
            Usage(1, 0, 0),
        ),
        DocumentTypes(document, manifest, (SentenceTypes(piece, (1,), (nothing, whole, part)),), Usage(2, 0, 0)),
        DocumentEntities(document, manifest, (SentenceEntities(piece, ((whole, asked), (part, asked))),)),
    )
    labelled = PoolSentence(text, ((Span(8, 15, "England"), "place"),))
    for overlaps, fates in (("flat", ["none", "kept", "overlapped"]), ("nested", ["none", "kept", "kept"])):
        method = MethodSettings(overlaps=overlaps)
        made = record_of(labelled, results, method, {"extract": 1.0})
        assert [candidate.fate for candidate in made.candidates] == fates
        assert made.usage == {"extract": Usage(1, 0, 0), "classify": Usage(2, 0, 0), "validate": Usage()}
        assert made.demonstrations == (1,)


def test_a_candidate_that_is_none_has_no_verdict() -> None:
    result = run(pipeline(engine=lambda name: ScriptedEngine(name, prefer=lambda tail, options: " none")))
    assert {c.fate for record in result.records for c in record.candidates} == {"none"}
    assert result.losses.outcomes["found"] == 0
    assert result.losses.not_shown == 7, "no demonstration shows a place"


def test_a_sentence_that_cannot_be_processed_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="max_document_chars"):
        run(pipeline({"max_document_chars": 10}), cache=tmp_path)


def test_all_code_that_makes_an_answer_is_in_the_fingerprint() -> None:
    """A new module belongs into one of the two lists: what decides no answer is named here."""
    decides_nothing = {
        *("__init__.py", "code_fingerprint.py", "config_errors.py", "decided_by.py", "errors.py", "nearest.py"),
        *("serialize", "tagger.py", "toml_files.py", "types.py", "evaluation", "quantizing"),
        *("redaction", "canonical", "sliced_reading.py"),  # behind the answers, and when a pool is read
        "extras.py",  # what is not installed
        *("models", "presets", "prompts"),  # weights, settings and prompts have fingerprints of their own
    }
    package = Path(el4ner.__file__).parent
    there = {file.relative_to(package).parts[0] for file in package.rglob("*") if file.suffix in (".py", ".toml")}
    assert there == decides_nothing | set(DECIDES)
    assert decides_nothing.isdisjoint(DECIDES)


def test_a_change_of_code_is_another_fingerprint_and_a_comment_is_not(tmp_path: Path) -> None:
    for name in DECIDES:
        if name.endswith(".py"):
            (tmp_path / name).write_text("x = 1\n")
        else:
            (tmp_path / name).mkdir()
            (tmp_path / name / "module.py").write_text('"""Says."""\ndef f():\n    """Does."""\n    return 1\n')
    before = fingerprint_of(tmp_path)
    (tmp_path / "text" / "module.py").write_text('"""Says more."""\n# why\ndef f():\n    return (1)\n')
    assert fingerprint_of(tmp_path) == before
    (tmp_path / "text" / "words.txt").write_text("the\n")
    with_words = fingerprint_of(tmp_path)
    (tmp_path / "text" / "module.py").write_text("def f():\n    return 2\n")
    assert len({before, with_words, fingerprint_of(tmp_path)}) == 3
    assert code_fingerprint() == code_fingerprint()
