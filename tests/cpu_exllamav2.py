"""ExLlamaV2 itself, without a GPU: its own generator, page table, sampler and cache over a tiny Llama in torch.

What the library compiles for CUDA is replaced: five helpers of its generator and sampler, and the forward pass, which
here is a Llama written out, with attention over pages by :mod:`el4ner.engines.exllama.attention`. Everything that the
backend relies on beyond the library's documented interface is the library's own code.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from el4ner.config import ExllamaSettings
from el4ner.engines.exllama.attention import attention_with_cache, install
from el4ner.engines.exllama.backend import PAGE
from el4ner.engines.exllama.paged import PagedBackend


def import_exllamav2(patch: Any) -> types.ModuleType:
    """The library, with helpers in place of its compiled extension. ``patch``: pytest's monkeypatch."""
    extension = types.ModuleType("exllamav2_ext")
    vars(extension).update(
        count_match=_count_match,
        fast_fill_cpu_ones_bool=lambda mask: mask.fill_(True),
        logit_filter_exclusive=_filter,
        sample_basic=_sample,
        cache_rotate=_rotate,
    )
    patch.setitem(sys.modules, "exllamav2_ext", extension)
    threads = torch.get_num_threads()
    import exllamav2
    import exllamav2.generator

    torch.set_num_threads(threads)
    patch.setattr(torch.cuda, "synchronize", lambda *_: None)
    return exllamav2


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


class TinyModel:
    """A Llama as ExLlamaV2 has its models: modules in a row, states in the library's cache."""

    def __init__(self, folder: Path, chunk_tokens: int, max_seq_len: int) -> None:
        self.llama: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        shape = self.llama.config
        self.config = SimpleNamespace(
            vocab_size=shape.vocab_size,
            max_input_len=chunk_tokens,
            max_batch_size=1,
            max_seq_len=max_seq_len,
            no_flash_attn=False,
            num_key_value_heads=shape.num_key_value_heads,
            num_hidden_layers=shape.num_hidden_layers,
            head_dim=shape.head_dim,
            arch=SimpleNamespace(lm=SimpleNamespace(mrope=False)),
        )
        self.cache_map = dict.fromkeys(range(shape.num_hidden_layers), "cpu")
        self.passes: list[tuple[int, int]] = []

    def forward_chunk(
        self,
        input_ids: torch.Tensor,
        cache: Any,
        attn_params: Any,
        *,
        preprocess_only: bool = False,
        last_id_only: bool = False,
        extract_state_indices: tuple[int, ...] = (),
        **_: Any,
    ) -> dict[str, Any]:
        """Module 0 is the embedding; ``i`` is layer ``i - 1``; then the norm, then the head."""
        rows, width = input_ids.shape
        self.passes.append((rows, width))
        lengths, table = attn_params.cache_seqlens, attn_params.block_index
        assert table.shape[1] * PAGE >= int(lengths.max()) + width
        model = self.llama.model
        x = model.embed_tokens(input_ids)
        positions = lengths.long()[:, None] + torch.arange(width)
        rope = model.rotary_emb(x, positions)
        states: dict[int, torch.Tensor] = {}
        for index, layer in enumerate(model.layers):
            if index + 1 in extract_state_indices:
                states[index + 1] = x.clone()
            x = self._layer(layer, index, x, rope, cache, lengths, table)
        if len(model.layers) + 1 in extract_state_indices:
            states[len(model.layers) + 1] = x.clone()
        if preprocess_only:
            return {"states": states}
        logits = self.llama.lm_head(model.norm(x[:, -1:] if last_id_only else x))
        padded = torch.full((*logits.shape[:2], -(-logits.shape[-1] // 32) * 32), -65504.0)
        padded[..., : logits.shape[-1]] = logits
        return {"logits": padded, "states": states}

    def _layer(
        self, layer: Any, index: int, x: torch.Tensor, rope: Any, cache: Any, lengths: Any, table: Any
    ) -> torch.Tensor:
        from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

        attention, dim = layer.self_attn, self.config.head_dim
        normed = layer.input_layernorm(x)
        q, k, v = (
            project(normed).view(*x.shape[:2], -1, dim).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        q, k = apply_rotary_pos_emb(q, k, *rope)
        keys, values = (
            states[index].view(-1, PAGE, *states[index].shape[2:]) for states in (cache.key_states, cache.value_states)
        )
        attended = attention_with_cache(
            q.transpose(1, 2),
            keys,
            values,
            k.transpose(1, 2),
            v.transpose(1, 2),
            cache_seqlens=lengths,
            block_table=table,
            causal=True,
        )
        x = x + attention.o_proj(attended.flatten(2))
        return x + layer.mlp(layer.post_attention_layernorm(x))


class _Tokenizer:
    eos_token_id = -1

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary

    def get_vocab_size(self) -> int:
        return self._vocabulary

    def get_id_to_piece_list(self, _special: bool = False) -> list[str]:
        return ["x"] * self._vocabulary


def make_backend(
    library: Any, folder: Path, settings: ExllamaSettings, *, chunk_tokens: int = 512
) -> tuple[PagedBackend, TinyModel]:
    """:class:`el4ner.engines.exllama.v2.ExllamaV2` but for loading, the last norm and the head."""
    from el4ner.engines.exllama.v2 import ExllamaV2, _filter_class

    class OnCpu(ExllamaV2):
        def __init__(self) -> None:
            PagedBackend.__init__(self, settings, device=0, chunk_tokens=chunk_tokens)
            install("torch")
            self._device = torch.device("cpu")
            self._params = library.attn.ExLlamaV2Attention.PagedParams
            self._generators = library.generator
            self._model = model
            self._cache = FullPrecision(model, batch_size=1, max_seq_len=settings.cache_tokens)
            self._tokenizer = _Tokenizer(model.config.vocab_size)
            self._filter = _filter_class(library.generator.filters.ExLlamaV2Filter)
            self._greedy = library.generator.ExLlamaV2Sampler.Settings.greedy()
            self._last = model.config.num_hidden_layers + 1
            self._middle = min(model.config.num_hidden_layers // 2 + 2, self._last)
            self.vocabulary = model.config.vocab_size
            self.hidden_size = model.llama.config.hidden_size
            self.identity = "exllamav2 on the processor"
            self.restart()

        def close(self) -> None:
            self._generator = None

        def _norm(self, hidden: torch.Tensor) -> torch.Tensor:
            normed: torch.Tensor = model.llama.model.norm(hidden)
            return normed

        def _logits(self, normed: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = model.llama.lm_head(normed)
            return logits

    class FullPrecision(library.cache.ExLlamaV2Cache):  # type: ignore[misc,name-defined]
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            self.key_states = [states.float() for states in self.key_states]
            self.value_states = [states.float() for states in self.value_states]

    model = TinyModel(folder, chunk_tokens, settings.cache_tokens)
    return OnCpu(), model
