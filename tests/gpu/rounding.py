"""Weights rounded to few bits in the plainest way: what a quantised model has to be better than."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

__all__ = ["rounded_model"]

GROUP = 64
"""Weights of a row that share a scale and a zero."""


def rounded_model(folder: Path, bits: int, into: Path) -> Path:
    """A copy of the model in ``folder`` whose layers' matrices hold ``2 ** bits`` values in each group of a row, evenly
    spread between the group's least and largest, each weight the nearest of them."""
    shutil.copytree(folder, into)
    for file in into.glob("*.safetensors"):
        weights = {
            name: _rounded(weight, bits) if ".layers." in name and weight.dim() == 2 else weight
            for name, weight in load_file(file).items()
        }
        save_file(weights, file, metadata={"format": "pt"})
    return into


def _rounded(weight: torch.Tensor, bits: int) -> torch.Tensor:
    groups: torch.Tensor = weight.float().reshape(len(weight), -1, GROUP)
    least, largest = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    step = (largest - least).clamp_min(1e-8) / (2**bits - 1)
    rounded: torch.Tensor = ((groups - least) / step).round() * step + least
    return rounded.reshape(weight.shape).to(weight.dtype)
