"""Products of 8-bit integers in the place of linear layers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from el4ner.engines.torch import int8_linear
from el4ner.engines.torch.int8_linear import (
    Int8Linear,
    Int8Weight,
    LayerInput,
    multiplies_int8,
    outliers_digest,
    quantize_linears,
    watched_inputs,
)
from el4ner.errors import ModelError

pytestmark = pytest.mark.skipif(not multiplies_int8(), reason="this processor or torch does not multiply int8")


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def linear(inputs: int, outputs: int, *, bias: bool = False) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=bias)
    layer.weight.copy_(random(outputs, inputs, seed=1))
    if layer.bias is not None:
        layer.bias.copy_(random(outputs, seed=2))
    return layer


def columns(inputs: int, *outliers: int) -> LayerInput:
    return LayerInput(inputs, torch.tensor(outliers, dtype=torch.int64))


@pytest.mark.parametrize("inputs", [32, 96, 576, 1536, 2048])
@pytest.mark.parametrize("rows", [1, 3, 64, 130])
def test_products_are_those_of_the_integers(rows: int, inputs: int) -> None:
    generator = torch.Generator().manual_seed(inputs)
    steps = torch.randint(-63, 64, (40, inputs), generator=generator).to(torch.int8)
    steps[0], steps[1] = 63, -63
    byte = torch.randint(1, 256, (rows, inputs), generator=generator)
    byte[0] = 255
    weight = Int8Weight(steps, torch.ones(40))
    expected = (byte - 128) @ steps.long().t()
    product = weight.times(byte.to(torch.uint8), scale=1.0)
    # Exact as long as float32 holds the sums of bytes, which are larger than these.
    assert (product - expected).abs().max() <= (0 if inputs * 255 * 63 < 1 << 24 else 4)
    assert weight.is_exact()


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("inputs", [96, 40, 33])
def test_a_layer_gives_nearly_what_float32_gives(inputs: int, bias: bool) -> None:
    exact = linear(inputs, 40, bias=bias)
    states = random(3, 7, inputs)
    product = Int8Linear(exact, columns(inputs, 2, 30))(states)
    assert product.shape == (3, 7, 40)
    assert product.dtype == torch.float32
    expected = exact(states)
    assert (product - expected).norm() < 0.03 * expected.norm()


def test_large_columns_that_stay_in_float32_cost_the_others_nothing() -> None:
    exact = linear(64, 32)
    states = random(9, 64)
    states[:, 5] *= 1000
    states[:, 40] *= 3000
    expected = exact(states)
    without_large = exact(states.index_fill(1, torch.tensor([5, 40]), 0.0))
    off = (Int8Linear(exact, columns(64, 5, 40))(states) - expected).norm()
    assert off < 0.03 * without_large.norm()
    assert off < 0.1 * (Int8Linear(exact, columns(64))(states) - expected).norm()


def test_a_row_does_not_depend_on_those_beside_it() -> None:
    layer = Int8Linear(linear(64, 16), columns(64, 1, 7))
    small, huge, zeros = random(1, 64), 1e4 * random(1, 64, seed=3), torch.zeros(1, 64)
    together = layer(torch.cat([small, huge, zeros]))
    torch.testing.assert_close(together[:1], layer(small), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(together[1:2], layer(huge), rtol=1e-6, atol=1e-2)
    assert not together[2].any()


def test_an_input_that_is_no_number_is_not_answered_with_numbers() -> None:
    states = random(2, 32)
    states[1, 5] = float("inf")
    product = Int8Linear(linear(32, 8), columns(32, 3))(states)
    assert product[0].isfinite().all()
    assert not product[1].isfinite().any()


def test_layers_side_by_side_share_what_was_rounded_and_nothing_is_kept_of_it() -> None:
    shared = columns(32, 4)
    left, right = Int8Linear(linear(32, 8), shared), Int8Linear(linear(32, 24), shared)
    for seed in range(3):
        states = random(5, 32, seed=seed)
        left(states)
        assert torch.equal(right(states), Int8Linear(linear(32, 24), columns(32, 4))(states))
    del states
    assert shared._rounded is None


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = linear(16, 24), linear(16, 24), linear(24, 16)
        self.unused = linear(16, 4)
        self.norm = nn.LayerNorm(16)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        states = self.norm(states)
        return self.down(self.gate(states) * self.up(states))


def test_the_columns_that_are_largest_in_a_text_stay_in_float32() -> None:
    layers = Layers()
    layers.norm.weight[[3, 9]] = 50.0
    states = random(1, 12, 16)
    expected = layers(states)
    with watched_inputs(layers) as inputs:
        layers(states)
    assert sorted(inputs) == ["down", "gate", "up"]
    assert inputs["gate"] is inputs["up"]
    assert {3, 9} <= set(inputs["gate"].outliers.tolist())
    digest = outliers_digest(inputs)
    quantize_linears(layers, inputs, check=True)
    assert [type(layer) for layer in (layers.gate, layers.down, layers.unused)] == [Int8Linear, Int8Linear, nn.Linear]
    assert (layers(states) - expected).norm() < 0.05 * expected.norm()
    layers = Layers()
    layers.norm.weight[[4, 9]] = 50.0
    with watched_inputs(layers) as inputs:
        layers(states)
    assert outliers_digest(inputs) != digest


def test_a_machine_whose_products_are_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Int8Weight.times

    def saturated(self: Int8Weight, rows: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        product = right(self, rows, scale)
        return product.clamp(max=float(product.max()) / 2)

    monkeypatch.setattr(Int8Weight, "times", saturated)
    with pytest.raises(ModelError, match=r"products of int8 \[8, 64\] are wrong on this machine"):
        Int8Linear(linear(64, 8), columns(64), check=True)
    int8_linear.multiplies_int8.cache_clear()
    try:
        assert not multiplies_int8()
    finally:
        monkeypatch.undo()
        int8_linear.multiplies_int8.cache_clear()
