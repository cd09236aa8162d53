"""The rows of bench/quality.py and how they are shown; nothing is measured here."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

sys.path.append(str(ROOT / "bench"))

from ablation.rows import REFERENCE, SPACY, cost_of, rows_of, selected, settings_of
from ablation.show import html, line, markdown, mean_of

THIRD = """
[ensemble]
members = ["smollm2-135m", "gemma3-270m", "larger"]
[models.smollm2-135m]
source = "packaged:smollm2-135m-instruct"
[models.gemma3-270m]
source = "packaged:gemma3-270m"
[models.larger]
source = "/models/larger"
"""


def figures(**changed: Any) -> dict[str, Any]:
    return {
        "f1": 0.5,
        "f1_ci": (0.4, 0.6),
        "span_f1": 0.7,
        "ece": None,
        "candidate_recall": 0.9,
        "seconds_per_sentence": 0.15,
        "sentences": 100,
        "reference_f1": 0.55,
        "difference": -0.05,
        "p_value": 0.0001,
        **changed,
    }


def row(key: str, **changed: Any) -> dict[str, Any]:
    entry = {"key": key, "group": "a <b>", "label": "x <script> | y", "results": {}, "notes": {}, "mean": None}
    return {**entry, **changed}


def test_every_row_is_a_valid_setting_without_repeats() -> None:
    rows = rows_of("default", None)
    assert rows[0].key == REFERENCE
    assert len({each.key for each in rows}) == len(rows)
    assert {settings_of(each).method.repeats for each in rows if each.key != SPACY} == {"off"}


def test_what_a_row_costs_is_seen_in_its_settings() -> None:
    costs = {each.key: cost_of(each) for each in rows_of("default", None)}
    assert [costs[key] for key in (REFERENCE, "adaptive", "by-lexicon", "embedder")] == ["cheap"] * 4
    assert [costs[key] for key in ("in-context", "demos-8", "by-union", "validation-soft")] == ["slow"] * 4
    assert costs["paper"] == "paper"


def test_a_third_member_joins_and_stands_alone(tmp_path: Path) -> None:
    file = tmp_path / "third.toml"
    file.write_text(THIRD)
    rows = {each.key: settings_of(each) for each in rows_of("default", file) if each.key.startswith("third")}
    assert rows["third"].ensemble.members == ("smollm2-135m", "gemma3-270m", "larger")
    assert rows["third-alone"].ensemble.members == ("larger",)
    assert rows["third-alone"].verifier == "larger"


def test_a_third_member_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "third.toml"
    file.write_text('[ensemble]\nmembers = ["gemma3-270m"]\n')
    with pytest.raises(ValueError, match="one member more"):
        rows_of("default", file)


def test_chosen_rows_come_with_the_reference_and_unknown_ones_are_named() -> None:
    rows = rows_of("default", None)
    assert [each.key for each in selected(rows, ["paper"])] == [REFERENCE, "paper"]
    with pytest.raises(ValueError, match="no-such-row"):
        selected(rows, ["no-such-row"])


def test_a_mean_needs_every_data_set() -> None:
    assert mean_of([figures()], 2) is None
    assert mean_of([figures(), figures(f1=0.7, difference=0.15)], 2) == pytest.approx({"f1": 0.6, "difference": 0.05})


def test_figures_are_shown_with_sign_and_small_p() -> None:
    shown = line("x", "wnut17", figures())
    assert "50.0 (40.0–60.0), −5.0 (p <0.001)" in shown
    assert "ECE –" in shown


def test_tables_hold_rows_with_and_without_figures_and_escape_them() -> None:
    rows = [row(REFERENCE, results={"w": figures()}), row("spacy", notes={"w": "skipped: no <spaCy>"})]
    page = html(rows, ["w"])
    assert "<script>" not in page
    assert "&lt;spaCy&gt;" in page
    table = markdown(rows, ["w"])
    assert "| x &lt;script> \\| y | 50.0 (40.0–60.0) | – | – | – |" in table
    assert "no &lt;spaCy>" in table
