"""Linear layers that multiply 8-bit integers: for processors without bfloat16.

Weights are rounded once, with a scale for each output; inputs when they come, with a scale for each row. So a row's
result is the same whatever is read beside it. Inputs have 8 bits and weights 7: a processor without VNNI adds two
products in 16 bits, and 2 · 255 · 63 is what fits. So every processor computes the same integers.

A few columns of a layer's input are many times as large as the others. One scale for all would leave little of the
others, so the :data:`OUTLIERS` largest columns are multiplied in float32. The other columns are turned by a Hadamard
matrix, 16 at a time, which spreads what is large over its neighbours and leaves the product as it is (QuaRot,
arXiv 2404.00456). Which columns are the largest is seen once, when the model is loaded, in a fixed text. For the two
packaged models, hidden states are then off by 6 to 8 % of their length (standard deviation, after centring), without
either by 20 %, and in bfloat16 by 2 %.

The products are oneDNN's, by the operators that torch's own quantised programs are made of. They take plain tensors;
torch's older ones (``quantized::linear_dynamic``, FBGEMM) need quantised tensors, which torch is giving up.
"""

from __future__ import annotations

import hashlib
import platform
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import torch
from torch import nn
from typing_extensions import override

from el4ner.engines.torch.stored_tables import StoredLinear
from el4ner.errors import ModelError

__all__ = [
    "Int8Linear",
    "Int8Weight",
    "LayerInput",
    "multiplies_int8",
    "outliers_digest",
    "quantize_linears",
    "watched_inputs",
]

OUTLIERS: Final = 8
"""Columns of a layer's input that stay in float32."""
TURNED: Final = 16
"""Columns that are turned together; fewer where that does not divide their number."""
_ZERO: Final = 128
"""The byte that stands for 0."""
_STEPS: Final = 127
"""Bytes on each side of it that are used."""
_WEIGHT_STEPS: Final = 63
_LEAST: Final = 1e-30
"""Of a row's largest value: a row of zeros is divided by it."""

Rounded = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Bytes ``[rows, inputs]``, the value of a row's largest byte ``[rows, 1]``, and the outliers ``[rows, OUTLIERS]``."""


@cache
def multiplies_int8() -> bool:
    """Whether this processor and this torch do it, and exactly: the largest sums are compared."""
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch._C._has_mkldnn:
        return False
    try:
        with torch.inference_mode():
            largest = torch.full((2, 64), _WEIGHT_STEPS, dtype=torch.int8)
            return Int8Weight(torch.cat([largest, -largest]), torch.ones(4)).is_exact()
    except (AttributeError, RuntimeError):
        return False


class Int8Weight:
    """A matrix ``[outputs, inputs]`` as the products want it, one byte a number.

    Args:
        steps: int8, from -63 to 63.
        scale: of each output.
    """

    def __init__(self, steps: torch.Tensor, scale: torch.Tensor) -> None:
        self._packed = torch.ops.onednn.qlinear_prepack(steps, None)
        self._scale = scale.float()
        self._zero = torch.zeros(len(scale), dtype=torch.int64)
        self._steps: torch.Tensor | None = steps

    def times(self, rows: torch.Tensor, scale: float = 1 / _STEPS) -> torch.Tensor:
        """``rows`` ``[rows, inputs]``, bytes, of which a step stands for ``scale``; ``[rows, outputs]`` in float32."""
        product: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            rows,
            scale,
            _ZERO,
            self._packed,
            self._scale,
            self._zero,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return product

    def is_exact(self) -> bool:
        """Whether products with it are those of the integers. Only before :meth:`settle`."""
        assert self._steps is not None
        inputs = self._steps.shape[1]
        spread = torch.arange(3 * inputs).mul_(37).remainder_(2 * _STEPS + 1).add_(_ZERO - _STEPS).view(3, inputs)
        extremes = torch.tensor([[_ZERO - _STEPS], [_ZERO + _STEPS]]).expand(2, inputs)
        rows = torch.cat([spread, extremes])
        expected = ((rows - _ZERO).double() @ self._steps.double().t()) * self._scale.double()
        product = self.times(rows.to(torch.uint8), scale=1.0).double()
        # Bytes are summed as integers; these are rounded to float32 before the zero point's part is taken off them.
        largest_sum = inputs * 255 * _WEIGHT_STEPS
        rounding = torch.finfo(torch.float32).eps * (expected.abs() + largest_sum * self._scale.double())
        return bool((product - expected).abs().le(rounding).all())

    def settle(self) -> None:
        """Keep only what products need."""
        self._steps = None


class LayerInput:
    """How an input ``[…, inputs]`` is rounded; layers that stand side by side share one, and are given the same tensor
    one after another.

    Args:
        inputs: number of columns.
        outliers: columns that stay in float32, ascending.
    """

    def __init__(self, inputs: int, outliers: torch.Tensor) -> None:
        self.outliers = outliers
        self._turn = _hadamard(next(size for size in (TURNED, 8, 4, 2, 1) if inputs % size == 0))
        self._seen: weakref.ref[torch.Tensor] | None = None
        self._rounded: Rounded | None = None

    def turned(self, rows: torch.Tensor) -> torch.Tensor:
        """``rows`` ``[rows, inputs]`` without the outliers, turned: rows of an input, or of a weight."""
        rows = rows.index_fill(1, self.outliers, 0.0)
        return (rows.view(-1, len(self._turn)) @ self._turn).view(rows.shape)

    def rounded(self, states: torch.Tensor) -> Rounded:
        """``states`` in float32."""
        if self._rounded is None or self._seen is None or self._seen() is not states:
            rows = states.reshape(-1, states.shape[-1])
            outliers = rows.index_select(1, self.outliers)
            turned = self.turned(rows)
            # As the largest of the absolute values, which would have to be written first.
            largest = torch.maximum(turned.amax(dim=1, keepdim=True), turned.amin(dim=1, keepdim=True).neg_())
            largest.clamp_(min=_LEAST)
            # Conversion to bytes cuts off; half a step more makes it round.
            steps = turned.mul_(_STEPS / largest).add_(_ZERO + 0.5).to(torch.uint8)
            self._rounded = steps, largest, outliers
            self._seen = weakref.ref(states, self._forget)
        return self._rounded

    def _forget(self, _: weakref.ref[torch.Tensor]) -> None:
        self._rounded = None


class Int8Linear(nn.Module):
    """In the place of ``linear``, whose weight is float32 or bfloat16.

    Args:
        linear: is not kept.
        layer_input: how its input is rounded.
        check: compare products with those of the integers.

    Raises:
        ModelError: they differ.
    """

    def __init__(self, linear: nn.Linear, layer_input: LayerInput, *, check: bool = False) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        self._outlier_weight = weight.index_select(1, layer_input.outliers).t().contiguous()
        turned = layer_input.turned(weight)
        scale = turned.abs().amax(dim=1).clamp_(min=_LEAST) / _WEIGHT_STEPS
        self._weight = Int8Weight(turned.div_(scale[:, None]).round_().to(torch.int8), scale)
        if check and not self._weight.is_exact():
            raise ModelError(
                f"products of int8 [{linear.out_features}, {linear.in_features}] are wrong on this machine"
            )
        self._weight.settle()
        self._input = layer_input
        self._outputs = linear.out_features
        self.bias = linear.bias

    @override
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        rows, largest, outliers = self._input.rounded(states)
        product = self._weight.times(rows).mul_(largest).addmm_(outliers, self._outlier_weight)
        if self.bias is not None:
            product += self.bias
        return product.view(*states.shape[:-1], self._outputs)


@contextmanager
def watched_inputs(layers: nn.Module) -> Iterator[dict[str, LayerInput]]:
    """Inside, the model is to read a text; afterwards there is the input of each ``nn.Linear`` in ``layers``, by the
    layer's name there. Those that are given the same tensor, one after another, have the same input."""
    inputs: dict[str, LayerInput] = {}
    last: tuple[torch.Tensor, LayerInput] | None = None

    def watch(name: str, states: torch.Tensor) -> None:
        nonlocal last
        if last is None or last[0] is not states:
            largest = states.abs().reshape(-1, states.shape[-1]).amax(dim=0)
            outliers = largest.topk(min(OUTLIERS, len(largest))).indices.sort().values
            last = states, LayerInput(len(largest), outliers)
        inputs[name] = last[1]

    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: watch(name, args[0]))
        for name, module in layers.named_modules()
        if type(module) in (nn.Linear, StoredLinear)
    ]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


def outliers_digest(inputs: Mapping[str, LayerInput]) -> str:
    """Of the columns that stay in float32. They are chosen by numbers that another processor may round differently."""
    chosen = ((name, layer_input.outliers.tolist()) for name, layer_input in sorted(inputs.items()))
    return hashlib.sha256(repr(list(chosen)).encode()).hexdigest()[:16]


def quantize_linears(layers: Any, inputs: Mapping[str, LayerInput], *, check: bool = False) -> None:
    """Every ``nn.Linear`` of ``layers`` that is in ``inputs`` becomes an :class:`Int8Linear`, one after another.

    ``check``: the first one of each shape is checked; which kernel multiplies depends on nothing else.

    Raises:
        ModelError: ``check``, and products are wrong here.
    """
    checked: set[torch.Size] = set()
    for name, layer_input in inputs.items():
        parent, _, child = name.rpartition(".")
        linear = layers.get_submodule(name)
        new = check and linear.weight.shape not in checked
        checked.add(linear.weight.shape)
        setattr(layers.get_submodule(parent), child, Int8Linear(linear, layer_input, check=new))


def _hadamard(size: int) -> torch.Tensor:
    """Symmetric and orthonormal, ``size`` a power of two."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], dim=1), torch.cat([matrix, -matrix], dim=1)])
    return matrix.mul_(size**-0.5)
