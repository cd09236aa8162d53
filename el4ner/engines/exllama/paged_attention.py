"""What attends over the pages of ExLlamaV2's cache: flash-attn, torch's own kernel, or plain torch.

ExLlamaV2 0.3.2 without flash-attn has no paged mode (one answer at a time, one remembered prompt), and its other way
reads prompts without a causal mask (``_attn_torch``). A function here takes flash-attn's place in it, so that there is
one way through the library, paged and masked. It looks up what attends for the model whose pass it is: models of one
process may differ, and each is called by a thread of its own.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import torch

from el4ner.engines.exllama import varlen
from el4ner.engines.exllama.torch_attention import CURRENT, Attend, HeadShape, attention_with_cache, plain_attention

__all__ = ["Attention", "choose"]

Attention = Literal["flash", "varlen", "torch"]
_FLAGS: Final = (
    "has_flash_attn",
    "has_flash_attn_with_paged",
    "has_flash_attn_with_window",
    "has_flash_attn_with_softcap",
)
_ORIGINALS: Final[dict[str, Any]] = {}


def choose(kind: Attention, shape: HeadShape, device: torch.device) -> Attend:
    """What attends, for a model of ExLlamaV2, which has been imported. From now on the library asks
    :func:`~.torch_attention.attending`.

    Raises:
        ImportError: this kind is not there, or cannot do what the model needs; in one line, why.
    """
    import exllamav2.attn as library
    import exllamav2.model as model

    if not _ORIGINALS:
        names = ("flash_attn_func", "flash_attn_with_kvcache", *_FLAGS)
        _ORIGINALS.update({name: getattr(library, name, None) for name in names})
        for name in _FLAGS:
            setattr(library, name, True)
        library.flash_attn_with_kvcache = _attend_for_this_pass
        library.flash_attn_func = _ORIGINALS["flash_attn_func"] or plain_attention
        model.has_flash_attn = True
    if kind == "flash":
        return _flash(shape)
    if kind == "varlen":
        return varlen.choose(shape, device)
    return attention_with_cache


def _flash(shape: HeadShape) -> Attend:
    """The library only warns where flash-attn would leave out what a model needs."""
    if not _ORIGINALS["has_flash_attn_with_paged"]:
        raise ImportError("flash-attn 2.5.7 or newer is not installed")
    if shape.softcap and not _ORIGINALS["has_flash_attn_with_softcap"]:
        raise ImportError("this flash-attn cannot cap scores, as the model needs it")
    if shape.windows and not _ORIGINALS["has_flash_attn_with_window"]:
        raise ImportError("this flash-attn has no windows, as the model needs them")
    attend: Attend = _ORIGINALS["flash_attn_with_kvcache"]
    return attend


def _attend_for_this_pass(*given: Any, **named: Any) -> torch.Tensor:
    return (CURRENT.attend or attention_with_cache)(*given, **named)
