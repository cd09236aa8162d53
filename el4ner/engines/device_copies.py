"""Numbers from the host to the device, without a wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["to_device", "upload"]


def to_device(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """A copy that nobody waits for: what is launched later finds it there."""
    tensor = torch.from_numpy(array)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def upload(arrays: Sequence[npt.NDArray[np.int64]], device: torch.device) -> list[torch.Tensor]:
    """The arrays on the device, flat, by one copy."""
    joined = np.concatenate([np.asarray(array, dtype=np.int64).reshape(-1) for array in arrays])
    return list(torch.split(to_device(joined, device), [int(np.size(array)) for array in arrays]))
