"""The packaged models: what is made of them equals what transformers makes of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from el4ner.models.catalogue import CATALOGUE
from el4ner.models.prepare import default_cache_dir, list_models, prepare, resolve, verify

pytestmark = pytest.mark.models


@pytest.mark.slow  # every time: llama.cpp says of the same weights what torch says of what was made of them
@pytest.mark.filterwarnings("ignore")
def test_smollm2_has_the_weights_that_transformers_reads_from_the_file() -> None:
    (gguf,) = CATALOGUE["smollm2-135m-instruct"].locate()
    folder = prepare("packaged:smollm2-135m-instruct", default_cache_dir(os.environ))
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    theirs = load_gguf_checkpoint(gguf, return_tensors=True, model_to_load=empty, torch_dtype=torch.bfloat16)["tensors"]
    ours = load_file(folder / "model.safetensors")
    assert set(theirs) == set(ours)
    assert all(torch.equal(weights, theirs[name]) for name, weights in ours.items())


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_packaged_models_are_whole(name: str) -> None:
    cache = default_cache_dir(os.environ)
    prepare(f"packaged:{name}", cache)
    verify(f"packaged:{name}", cache)
    (info,) = (info for info in list_models(cache) if info.name == name)
    assert info.installed
    assert info.prepared


SMOLLM2 = "packaged:smollm2-135m-instruct"


def preparing(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "el4ner.models.preparing_ahead", SMOLLM2, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def test_a_process_prepares_ahead_what_another_then_finds(tmp_path: Path) -> None:
    with preparing(tmp_path) as process:
        assert process.wait(timeout=120) == 0
    assert resolve(SMOLLM2, tmp_path) is not None
    verify(SMOLLM2, tmp_path)


def test_a_process_that_prepares_ahead_ends_with_whoever_started_it_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    with preparing(tmp_path) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=120) == 1
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] in ([], [".lock"])
