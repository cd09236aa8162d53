"""Freed memory goes back to the system, where the C library can give it back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from el4ner.engines.torch import heap
from el4ner.engines.torch.heap import give_back_freed_memory

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
