"""Models that are built without random weights have the weights and frequencies that they would have."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from el4ner.engines.torch.meta_init import SkipMetaInit
from tests.support.tiny_models import tiny_gemma3, tiny_llama


@pytest.mark.parametrize("make", [tiny_llama, tiny_gemma3])
def test_weights_and_buffers_are_the_same(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = make(tmp_path / "model")
    plain = AutoModelForCausalLM.from_pretrained(folder)
    with SkipMetaInit():
        ours = AutoModelForCausalLM.from_pretrained(folder)
    expected = {**dict(plain.named_parameters()), **dict(plain.named_buffers())}
    found = {**dict(ours.named_parameters()), **dict(ours.named_buffers())}
    assert expected.keys() == found.keys()
    assert any("inv_freq" in name for name in expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].device == tensor.device
        assert torch.equal(found[name], tensor), name
    ids = torch.tensor([[1, 5, 9]])
    assert torch.equal(plain(ids).logits, ours(ids).logits)


def test_what_has_values_is_initialised_as_ever() -> None:
    with SkipMetaInit():
        layer = torch.nn.Linear(3, 2)
        torch.nn.init.constant_(layer.bias, 7.0)
        assert torch.arange(3).device.type == "cpu"
        assert torch.empty_like(layer.bias).shape == (2,)
    assert layer.bias.tolist() == [7.0, 7.0]
    assert bool(layer.weight.any())


@pytest.mark.parametrize("make", [tiny_llama, tiny_gemma3])
def test_matrices_come_in_the_number_type_that_is_wanted_and_all_else_in_float32(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    folder = make(tmp_path / "model")
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with SkipMetaInit(torch.bfloat16):
        ours = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = {**dict(ours.named_parameters()), **dict(ours.named_buffers())}
    for name, tensor in (*plain.named_parameters(), *plain.named_buffers()):
        is_matrix = isinstance(tensor, torch.nn.Parameter) and tensor.dim() == 2
        assert found[name].dtype == (torch.bfloat16 if is_matrix else tensor.dtype), name
        assert torch.equal(found[name], tensor.to(found[name].dtype)), name
