"""Freed memory goes back to the system, where the C library can give it back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from el4ner.engines.torch import heap
from el4ner.engines.torch.heap import give_back_freed_memory, long_lived

STATM = Path("/proc/self/statm")


def resident_pages() -> int:
    return int(STATM.read_text(encoding="ascii").split()[1])


@pytest.mark.skipif(heap._malloc_trim() is None or not STATM.exists(), reason="not glibc on Linux")
def test_blocks_that_were_freed_between_used_ones_are_given_back() -> None:
    blocks = [torch.ones(25_000) for _ in range(1_000)]  # 100 MB, each block too small for a mapping of its own
    kept = blocks[::2]
    del blocks
    before = resident_pages()
    give_back_freed_memory()
    given_back = (before - resident_pages()) * 4096
    assert given_back > 20_000_000
    assert all(bool((block == 1).all()) for block in kept)


def test_another_c_library_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_malloc_trim", lambda: None)
    give_back_freed_memory()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_long_lived_tensor_is_one_as_any_other(dtype: torch.dtype) -> None:
    source = torch.arange(24).view(2, 3, 4).to(dtype)
    copy = long_lived((2, 2, 4), dtype, source.device).copy_(source[:, 1:])
    assert torch.equal(copy, source[:, 1:])
    assert long_lived((0, 3), dtype, source.device).shape == (0, 3)


@pytest.mark.skipif(not STATM.exists(), reason="not Linux")
def test_a_long_lived_tensor_goes_back_to_the_system_at_once() -> None:
    tensors = [long_lived((5_000_000,), torch.float32, torch.device("cpu")).fill_(1) for _ in range(2)]  # 20 MB each
    before = resident_pages()
    del tensors[0]
    assert (before - resident_pages()) * 4096 > 15_000_000
