"""cuDNN's attention stays off as long as any thread needs it off."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from el4ner.engines.sdpa import without_cudnn


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    yield
    torch.backends.cuda.enable_cudnn_sdp(before)


@pytest.mark.parametrize("before", [True, False])
def test_passes_that_overlap_leave_it_off_and_the_last_puts_it_back(before: bool) -> None:
    torch.backends.cuda.enable_cudnn_sdp(before)
    first, second = without_cudnn(), without_cudnn()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not torch.backends.cuda.cudnn_sdp_enabled(), "the second is still inside"
    second.__exit__(None, None, None)
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


def test_it_is_put_back_behind_an_error() -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    with pytest.raises(KeyError), without_cudnn():
        raise KeyError
    assert torch.backends.cuda.cudnn_sdp_enabled()
