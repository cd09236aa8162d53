"""The rows of bench/learning_curve.py and its table; nothing is measured here, and spaCy need not be installed."""

import sys
from pathlib import Path

import pytest

from el4ner.evaluation import Dataset, EvaluationResult, summarise
from el4ner.evaluation.learning_curve import learning_curve as measured_curve
from el4ner.evaluation.pool_subsets import subsets_of
from el4ner.evaluation.sentence_records import SentenceRecord
from el4ner.participation import needs_embedder
from el4ner.pools.pool import Pool, PoolSentence
from el4ner.types import Span
from tests.support.paths import ROOT

sys.path.append(str(ROOT / "bench"))

import learning_curve
import spacy_training
from ablation.rows import settings_of

POOL = Pool(
    "made",
    {"person": "a person", "ship": "a ship"},
    tuple(PoolSentence(f"Ada sailed {number}.", ((Span(0, 3, "Ada"), "person"),)) for number in range(8)),
)


def nothing_found(dataset: Dataset) -> EvaluationResult:
    records = [SentenceRecord(each.text, ((0, 3, "person"),), (), (), (), {}, {}) for each in dataset.sentences]
    return summarise(records, pool=dataset.pool, settings={}, fingerprints={})


def test_rows_are_the_default_with_other_evidence() -> None:
    settings = {key: settings_of(row) for key, row in learning_curve.OURS.items()}
    assert settings["neighbours"].method.evidence == ("neighbours",)
    assert settings["neighbours"].method.encoder == "members"
    assert (settings["embedder"].method.evidence, settings["embedder"].method.encoder) == (("neighbours",), "embedder")
    assert len({each.ensemble.members for each in settings.values()}) == 1
    assert needs_embedder(settings["embedder"])


def test_the_table_has_a_line_for_each_row_and_says_what_pools_lack() -> None:
    dataset = Dataset("made/up", "test", POOL, POOL.sentences[:3])
    curve = measured_curve(dataset, subsets_of(POOL, (2, None), 2), nothing_found)
    lines = learning_curve.markdown([learning_curve.Measured(dataset, {"default": curve, "spacy": curve})]).splitlines()
    assert lines[0] == "**made/up**, 3 sentences of the test split:"
    assert lines[2] == "| labelled sentences | 2 | 8 (all) |"
    assert "| labelled entities | 2 | 8 |" in lines
    assert "| of 2 types without any | 1.0 | 1.0 |" in lines
    assert "| el4ner, default | 0.0 (0–0) | 0.0 (0–0) |" in lines
    assert any(line.startswith("| spaCy trained, from nothing | 0.0 (0–0) |") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "spacey"), "--only spacey: no such row; there are: default, neighbours"),
        (("--pool-sizes", "5,2"), "sizes ascend"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["learning_curve.py", "--data", str(tmp_path), *arguments])
    with pytest.raises(SystemExit):
        learning_curve.main()
    assert said in capsys.readouterr().err


def test_spacy_is_shown_the_whole_token_that_a_span_cuts() -> None:
    spacy = pytest.importorskip("spacy", reason="the group bench is not installed")
    sentence = PoolSentence("Adas ship", ((Span(0, 3, "Ada"), "person"),))
    (example,) = spacy_training.examples_of(spacy.blank("en"), [sentence])
    assert [(each.text, each.label_) for each in example.reference.ents] == [("Adas", "person")]
