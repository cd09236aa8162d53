"""Tables of tokens that are kept as they were written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typing_extensions import override

from el4ner.engines.torch.stored_tables import (
    Head,
    StoredEmbedding,
    StoredLinear,
    store_tables,
    widen,
    written_in_bfloat16,
)

MAPS = Path("/proc/self/maps")


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Scaled(nn.Embedding):
    """As Gemma has it: it looks at its weight's number type."""

    @override
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) * torch.tensor(25.298).to(self.weight.dtype)


class TiedModel(nn.Module):
    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.table = Scaled(*weight.shape, padding_idx=90)
        self.table.weight.copy_(weight)
        self.head = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.head.weight = self.table.weight

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def set_input_embeddings(self, module: nn.Module) -> None:
        self.table = module  # type: ignore[assignment]

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def set_output_embeddings(self, module: nn.Module) -> None:
        self.head = module  # type: ignore[assignment]


def test_a_table_that_was_written_in_bfloat16_stays_so_and_gives_the_same_numbers() -> None:
    model = TiedModel(random(100, 16).bfloat16().float())
    ids, states = torch.tensor([[3, 99, 3, 0]]), random(5, 16)
    embedded, logits = model.table(ids), model.head(states)
    store_tables(model)
    assert isinstance(model.table, StoredEmbedding)
    assert isinstance(model.head, Head)
    assert model.head.weight.dtype == torch.bfloat16
    assert model.head.weight is model.table.embedding.weight
    assert torch.equal(model.table(ids), embedded)
    assert torch.equal(model.head(states), logits)


@pytest.mark.parametrize("written", ["table.weight", "another"])
def test_a_table_is_mapped_where_the_file_has_it(tmp_path: Path, written: str) -> None:
    table = random(20_000, 16).bfloat16()
    save_file({written: table}, tmp_path / "model.safetensors")
    model = TiedModel(table.float())
    store_tables(model, tmp_path)
    assert torch.equal(model.table.embedding.weight, table)
    assert model.head.weight is model.table.embedding.weight
    if MAPS.exists():  # Linux
        assert (str(tmp_path) in MAPS.read_text(encoding="utf-8")) == (written == "table.weight")


def test_a_file_with_other_numbers_is_not_mapped(tmp_path: Path) -> None:
    table = random(100, 16).bfloat16()
    other = table.clone()
    other[99, 15] += 1
    save_file({"table.weight": other}, tmp_path / "model.safetensors")
    model = TiedModel(table.float())
    store_tables(model, tmp_path)
    assert torch.equal(model.table.embedding.weight, table)


def test_a_table_that_bfloat16_does_not_hold_stays_in_float32() -> None:
    model = TiedModel(random(100, 16))
    ids = torch.tensor([[3, 99, 3, 0]])
    embedded = model.table(ids)
    store_tables(model)
    assert isinstance(model.table, Scaled)
    assert torch.equal(model.table(ids), embedded)


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_the_head_is_made_when_it_is_asked_unless_it_is_asked_in_pieces(tmp_path: Path, bias: bool) -> None:
    table = random(40_000, 16).bfloat16()
    save_file({"table.weight": table}, tmp_path / "model.safetensors")
    model = TiedModel(table.float())
    if bias:
        model.head.bias = nn.Parameter(random(40_000, seed=2))
    states = random(5, 16)
    logits = model.head(states)
    store_tables(model, tmp_path)
    head = model.head
    assert isinstance(head, Head)
    with head.in_pieces():
        torch.testing.assert_close(head(states), logits)
    assert head._wide is None
    for _ in range(2):
        assert torch.equal(head(states), logits)


class Layered(TiedModel):
    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__(weight)
        self.layers = nn.Sequential(nn.Linear(16, 24), nn.LayerNorm(24), nn.Linear(24, 16, bias=False))


@pytest.mark.parametrize("layers", [False, True])
def test_what_was_loaded_in_bfloat16_computes_as_float32_does(layers: bool) -> None:
    model = Layered(random(100, 16).bfloat16().float())
    for each in (model.layers[0], model.layers[2]):
        assert isinstance(each, nn.Linear)
        each.weight.copy_(each.weight.bfloat16())
    states = random(5, 16)
    expected = model.layers(states)
    for each in (model.layers[0], model.layers[2], model.table):
        each.weight = nn.Parameter(each.weight.bfloat16())
    widen(model, layers=layers)
    assert torch.equal(model.layers(states), expected)
    assert [type(each) is StoredLinear for each in model.layers] == [not layers, False, not layers]
    assert model.table.weight.dtype == torch.bfloat16  # that is for store_tables


def test_weights_of_several_number_types_are_not_all_in_bfloat16(tmp_path: Path) -> None:
    assert not written_in_bfloat16(tmp_path)
    save_file({"table": random(10, 16).bfloat16()}, tmp_path / "first.safetensors")
    assert written_in_bfloat16(tmp_path)
    save_file({"norm": random(16)}, tmp_path / "second.safetensors")
    assert not written_in_bfloat16(tmp_path)
