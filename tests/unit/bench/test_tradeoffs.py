"""What the variants of bench/tradeoffs.py ask, and the models that it shortens."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from el4ner.engines.base import Prompt, StateRequest
from el4ner.models.progress import NO_PROGRESS
from tests.support.doubles import ScriptedStateEngine
from tests.support.paths import ROOT
from tests.support.tiny_models import tiny_gemma3, tiny_llama

sys.path.append(str(ROOT / "bench"))

from tradeoffs import VARIANTS, Changed, markdown, picture, shortened

REQUEST = StateRequest(
    Prompt("Types:\n- place: a place\n- creative work: art: all kinds\n", "Text"), ("- Bonn", "- Rome")
)
BY_KEY = {variant.key: variant for variant in VARIANTS}


@pytest.mark.parametrize(
    ("key", "system"), [("names", "Types:\n- place\n- creative work\n"), ("no-list", ""), ("middle", None)]
)
def test_a_variant_asks_for_less(key: str, system: str | None) -> None:
    engine = ScriptedStateEngine("a")
    changed = Changed(engine, BY_KEY[key])
    (result,) = changed.states([REQUEST])
    (asked,) = engine.shown
    assert asked.prompt.system == (REQUEST.prompt.system if system is None else system)
    assert asked.middle_only == (key == "middle")
    assert np.array_equal(result.states[:, 0], result.states[:, 1]) == (key == "middle")
    assert changed.fingerprint != engine.fingerprint
    assert changed.states_fingerprint != engine.states_fingerprint


@pytest.mark.parametrize("make", [tiny_llama, tiny_gemma3])
def test_a_shortened_model_reads_as_the_first_layers_do(tmp_path: Path, make: Callable[..., Path]) -> None:
    folder = make(tmp_path / "models" / "tiny", layers=4)
    short = shortened(str(folder), 1 / 2, tmp_path, NO_PROGRESS)
    assert shortened(str(folder), 1 / 2, tmp_path, NO_PROGRESS) == short
    ids = torch.tensor([[1, 5, 9]])
    whole, first = (AutoModelForCausalLM.from_pretrained(path).base_model for path in (folder, short))
    with torch.inference_mode():
        expected = whole.norm(whole(ids, output_hidden_states=True).hidden_states[2])
        torch.testing.assert_close(first(ids).last_hidden_state, expected)


def test_figures_stand_in_a_table_and_a_picture() -> None:
    row = {"f1": 0.7, "f1_ci": [0.6, 0.8], "seconds_per_sentence": 0.25, "difference": -0.012, "p_value": 0.4}
    tables = {"ai": {"default": row, "half": {**row, "seconds_per_sentence": 0.125}, "adaptive": row}}
    assert "| the first half of the layers | 70.0 (−1.2, 0.40) | 0.125 |" in markdown(tables)
    drawn = picture(tables)
    assert "125 ms of processor time a sentence: F1 70.0" in drawn
    assert ">150<" in drawn
