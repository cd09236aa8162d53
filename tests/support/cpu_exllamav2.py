"""ExLlamaV2 itself, without a GPU: its own model, generator, page table, sampler and cache over tiny weights.

What the library compiles for CUDA is replaced by torch, each function with the contract of the one whose place it
takes: norms, rotary positions, reading of weights, and five helpers of generator and sampler. Everything else is the
library's own code: the forward pass of every module with its views and its order of calls, attention over pages by
:mod:`el4ner.engines.exllama.paged_attention` among it.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import torch

from el4ner.config import ExllamaSettings
from el4ner.engines.exllama.paged import PagedBackend
from el4ner.engines.exllama.paged_attention import Attention
from el4ner.engines.exllama.pages import PAGE
from el4ner.engines.exllama.timing import Stopwatch

SHAPE: Final = {"head_dim": 16, "intermediate_size": 64}
"""Of a tiny Llama: the library wants every width to be a multiple of 32."""
_ON_CPU: Final = -1
"""The library's number of the processor."""


def import_exllamav2(patch: Any) -> types.ModuleType:
    """The library, with functions of torch in place of its compiled extension. ``patch``: pytest's monkeypatch."""
    extension = types.ModuleType("exllamav2_ext")
    vars(extension).update(
        count_match=_count_match,
        fast_fill_cpu_ones_bool=lambda mask: mask.fill_(True),
        logit_filter_exclusive=_filter,
        sample_basic=_sample,
        cache_rotate=_rotate,
        stloader_read=_read_tensor,
        rms_norm=rms_norm,
        rope_=rope_,
    )
    patch.setitem(sys.modules, "exllamav2_ext", extension)
    threads = torch.get_num_threads()
    import exllamav2
    import exllamav2.attn_params
    import exllamav2.generator

    torch.set_num_threads(threads)
    patch.setattr(torch.cuda, "synchronize", lambda *_: None)
    patch.setattr(exllamav2.attn_params, "safe_move_tensor", _stay)
    return exllamav2


def rms_norm(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, epsilon: float) -> None:
    """Of rows ``x`` ``[rows, hidden]`` into ``out``, as the compiled one: both as they lie in memory."""
    assert x.dim() == out.dim() == 2
    assert x.is_contiguous()
    assert out.is_contiguous()
    wide = x.float()
    out.copy_(wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon) * weight.float())


def rope_(
    x: torch.Tensor,
    sin: torch.Tensor,
    cos: torch.Tensor,
    past_len: int,
    num_heads: int,
    head_dim: int,
    offsets: torch.Tensor,
    neox_style: bool,
) -> None:
    """Turn ``x`` ``[rows, width, heads, dim]`` in place, as the compiled one: it reads ``x`` as it lies in memory, row
    ``i`` begins at position ``past_len + offsets[i]``."""
    assert neox_style
    assert x.is_contiguous()
    assert x.shape[2:] == (num_heads, head_dim)
    assert sin.dtype == cos.dtype == x.dtype
    assert offsets.dtype == torch.int32
    assert offsets.is_contiguous()
    places = past_len + offsets.long()[:, None] + torch.arange(x.shape[1])
    half = head_dim // 2
    s, c = (table[0, 0][places][:, :, None, :half].float() for table in (sin, cos))
    left, right = x[..., :half].float(), x[..., half:].float()
    x.copy_(torch.cat((left * c - right * s, right * c + left * s), dim=-1))


def _stay(tensor: torch.Tensor, device: Any, non_blocking: bool = False) -> torch.Tensor:
    assert device == _ON_CPU
    return tensor


def _read_tensor(filename: str, offset: int, size: int, tensor: torch.Tensor) -> None:
    raw = np.fromfile(filename, dtype=np.uint8, count=size, offset=offset)
    tensor.view(-1).view(torch.uint8).copy_(torch.from_numpy(raw))


def _count_match(page: torch.Tensor, ids: torch.Tensor, most: int) -> int:
    length = min(page.shape[-1], ids.shape[-1], most)
    same = (page[0, :length] == ids[0, :length]).long()
    return int(same.cumprod(0).sum())


def _rotate(pages: torch.Tensor, order: torch.Tensor, _buffer: torch.Tensor) -> None:
    pages[order.long()] = pages[order.long().roll(-1)]


def _filter(mask: torch.Tensor, allowed: list[list[int]]) -> None:
    for row, tokens in enumerate(allowed):
        keep = torch.zeros_like(mask[row])
        keep[tokens] = True
        mask[row] &= keep


def _sample(logits: torch.Tensor, _temperature: float, top_k: int, *rest: Any) -> list[float]:
    tokens, probabilities = rest[6], rest[7]
    mask = rest[10]
    assert top_k == 1, "greedy"
    scores = logits[:, 0].clone()
    if mask.numel() and mask.device.type != "meta":
        scores[~mask] = float("-inf")
    tokens[:, 0] = scores.argmax(dim=-1)
    probabilities.fill_(1.0)
    return []


def load_model(
    library: Any, folder: Path, *, chunk_tokens: int, max_seq_len: int, dtype: torch.dtype = torch.float32
) -> Any:
    """The library's model of a folder, on the processor.

    Args:
        library: :func:`import_exllamav2`.
        folder: of a Llama in safetensors.
        chunk_tokens: the most tokens of a pass.
        max_seq_len: the most positions.
        dtype: float16 is what the library computes in; in float32 results can be compared closely, and its norms are
            read by ``forward_torch``.
    """

    class OnCpu(library.ExLlamaV2):  # type: ignore[misc,name-defined]
        """Counts its passes, (rows, width) each, and sees that every row has pages for what it reads."""

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.passes: list[tuple[int, int]] = []
            for module in self.modules:
                module.set_device_idx(_ON_CPU)
                module.load()
            self.set_cache_map()
            self.constants = SimpleNamespace(**_rotary_tables(config, dtype))
            if dtype == torch.float32:
                for module in {*self.modules, *self.modules_dict.values()}:
                    _widen(module)

        def get_device_context(self, device_idx: int, scratch: bool = True) -> Any:
            assert device_idx == _ON_CPU
            return self.constants

        def forward_chunk(self, input_ids: torch.Tensor, *args: Any, **more: Any) -> Any:
            params = more["attn_params"]
            rows, width = input_ids.shape
            self.passes.append((rows, width))
            assert rows * width <= chunk_tokens
            assert params.block_index.shape[0] == params.cache_seqlens.shape[0] == rows
            assert params.block_index.shape[1] * PAGE >= params.max_cache_seqlen + width
            return super().forward_chunk(input_ids, *args, **more)

    config = library.ExLlamaV2Config(str(folder))
    config.max_input_len = chunk_tokens
    config.max_attention_size = chunk_tokens**2
    config.max_seq_len = max_seq_len
    config.no_flash_attn = False
    config.no_xformers = True
    return OnCpu(config)


def _rotary_tables(config: Any, dtype: torch.dtype) -> dict[str, list[torch.Tensor]]:
    """As ``ExLlamaV2DeviceContext.prepare_sincos``, which opens a CUDA stream beside it."""
    from exllamav2 import rope

    frequencies, factor = rope.get_rope_params("cpu", config, config.rotary_embedding_base)
    assert factor == 1.0
    angles = torch.arange(config.max_seq_len, dtype=torch.float32)[:, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)[None, None]
    return {"sin": [angles.sin().to(dtype)], "cos": [angles.cos().to(dtype)]}


def _widen(module: Any) -> None:
    """The weights of one module in float32, as the file has them: the library reads them in float16."""
    kind = type(module).__name__
    if kind == "ExLlamaV2Linear":
        module.linear.weight = _whole_weight(module, module.linear.weight)
    elif kind == "ExLlamaV2Embedding":
        module.embedding.weight = _whole_weight(module, module.embedding.weight)
    elif kind == "ExLlamaV2RMSNorm":
        module.weight = _whole_weight(module, module.weight)
        module.forward = module.forward_torch


def _whole_weight(module: Any, loaded: torch.Tensor) -> torch.nn.Parameter:
    from exllamav2.stloader import STFile

    config = module.model.config
    names = [f"{key}.weight" for key in (module.key, module.alt_key) if f"{key}.weight" in config.tensor_file_map]
    weight = STFile.open(config.tensor_file_map[names[0]], keymap=config.arch.keymap).get_tensor(names[0], "cpu")
    whole = torch.zeros(loaded.shape)
    whole[: weight.shape[0]] = weight
    assert torch.equal(whole.half(), loaded)
    return torch.nn.Parameter(whole, requires_grad=False)


class _Tokenizer:
    eos_token_id = -1

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary

    def get_vocab_size(self) -> int:
        return self._vocabulary

    def get_id_to_piece_list(self, _special: bool = False) -> list[str]:
        return ["x"] * self._vocabulary


def make_backend(
    library: Any,
    folder: Path,
    settings: ExllamaSettings,
    *,
    chunk_tokens: int = 512,
    dtype: torch.dtype = torch.float32,
    attention: Attention = "torch",
) -> tuple[PagedBackend, Any]:
    """:class:`el4ner.engines.exllama.v2.ExllamaV2` over :func:`load_model`: but for loading, all is its own."""
    from el4ner.engines.exllama.v2 import ExllamaV2

    class OnCpu(ExllamaV2):
        def __init__(self) -> None:
            PagedBackend.__init__(self, settings, device=0, chunk_tokens=chunk_tokens)
            self._device = torch.device("cpu")
            self._stopwatch = Stopwatch(("prefill", "decode", "rows"), self._device)
            self.identity = "exllamav2 on the processor"
            self._choose_attention(model.config, attention)
            self._take(model, _Tokenizer(model.config.vocab_size), Cache)

    class Cache(library.cache.ExLlamaV2Cache):  # type: ignore[misc,name-defined]
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            self.dtype = dtype

    model = load_model(library, folder, chunk_tokens=chunk_tokens, max_seq_len=settings.cache_tokens, dtype=dtype)
    return OnCpu(), model
