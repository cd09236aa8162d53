"""Work that cannot be recorded is refused before it is recorded."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch

from el4ner.engines.capturing import RECORDING, NoWaits, give_memory_back


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize(
    "reading",
    [
        lambda numbers: numbers.max().item(),
        lambda numbers: bool(numbers.sum() > 3),
        lambda numbers: int(numbers[1]),
        lambda numbers: numbers.nonzero(),
        lambda numbers: torch.where(numbers > 1),
        lambda numbers: numbers[numbers > 1],
        lambda numbers: numbers.repeat_interleave(torch.tensor([1, 2, 1, 1])),
        lambda numbers: torch.unique(numbers),
        lambda numbers: torch.equal(numbers, numbers + 1),
    ],
)
def test_work_that_reads_numbers_of_the_device_is_refused(
    reading: Callable[[torch.Tensor], object], inference: bool
) -> None:
    numbers = torch.arange(4.0)
    with torch.inference_mode(inference), pytest.raises(RuntimeError, match="waits for the device"), NoWaits():
        reading(numbers)


def test_other_work_is_done() -> None:
    rows = torch.arange(3)
    with torch.inference_mode(), NoWaits():
        states = torch.zeros(3, 2, 4)
        states[rows, :, rows] = torch.ones(3, 2)
        attended = torch.nn.functional.scaled_dot_product_attention(states[None], states[None], states[None])
    assert torch.isfinite(attended).all()
    assert states.sum() == 6


def test_copies_between_host_and_device_are_refused() -> None:
    for inference in (True, False):
        with torch.inference_mode(inference):
            with pytest.raises(RuntimeError, match="between host and device"), NoWaits():
                torch.ones(2).to("meta")
            with NoWaits():
                torch.ones(2).to(torch.float64)


def test_memory_is_given_back_when_nobody_records() -> None:
    done = threading.Event()
    thread = threading.Thread(target=lambda: (give_memory_back(), done.set()))
    with RECORDING:
        thread.start()
        assert not done.wait(0.2)
    assert done.wait(10)
    thread.join()
