"""ExLlamaV2 0.3.2 as a backend. The library is archived: this version is pinned, and does not change any more."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from el4ner.config import ExllamaSettings
from el4ner.engines.capturing import give_memory_back
from el4ner.engines.constraint import TokenMask
from el4ner.engines.device_copies import to_device
from el4ner.engines.exllama.importing import import_library, version_of
from el4ner.engines.exllama.paged import LockedMask, PagedBackend
from el4ner.engines.exllama.paged_attention import Attention, choose
from el4ner.engines.exllama.pages import PAGE
from el4ner.engines.exllama.passes import Pass
from el4ner.engines.exllama.prefill import read_prompts
from el4ner.engines.exllama.torch_attention import HeadShape, attending
from el4ner.engines.sdpa import without_cudnn
from el4ner.errors import ModelError

__all__ = ["ExllamaV2"]

_CACHES: Final = {16: "ExLlamaV2Cache", 8: "ExLlamaV2Cache_Q8", 6: "ExLlamaV2Cache_Q6", 4: "ExLlamaV2Cache_Q4"}
_LAYERS: Final = ("ExLlamaV2Attention", "ExLlamaV2ParallelDecoder")
"""Modules that a layer begins with."""


class ExllamaV2(PagedBackend):
    """See :class:`el4ner.engines.exllama.backend.Backend`.

    Args:
        folder: a model in EXL2, GPTQ or plain safetensors, of an architecture that the library knows.
        settings: sizes.
        device: the GPU's number.
        chunk_tokens: the most tokens of one forward pass, a multiple of a page.
        attention: what attends.

    Raises:
        ModelError: the library is missing, or the attention that was asked for cannot be used with this model.
    """

    def __init__(
        self, folder: Path, settings: ExllamaSettings, *, device: int, chunk_tokens: int, attention: Attention
    ) -> None:
        super().__init__(settings, device=device, chunk_tokens=chunk_tokens)
        library = import_library("exllamav2")
        config = library.ExLlamaV2Config(str(folder))
        self.context_length = min(int(config.max_seq_len), self.cache_tokens)
        config.max_seq_len = min(int(config.max_seq_len), settings.cache_tokens)
        config.max_input_len = chunk_tokens
        config.max_attention_size = chunk_tokens**2
        config.no_flash_attn = False
        config.no_xformers = True
        self._choose_attention(config, attention)
        self.identity = f"exllamav2 {version_of('exllamav2')} cache {settings.cache_bits} attention {attention}"
        model = library.ExLlamaV2(config)
        try:
            model.load([0.0] * device + [99_999.0])  # GB that may be used of each GPU
            self._take(model, library.ExLlamaV2Tokenizer(config), getattr(library, _CACHES[settings.cache_bits]))
        except BaseException:
            with contextlib.suppress(Exception):
                model.unload()
            raise

    def _choose_attention(self, config: Any, attention: Attention) -> None:
        """
        Raises:
            ModelError: it cannot be used here, or with this model.
        """
        arch = config.arch.lm
        shape = HeadShape(
            int(config.num_attention_heads),
            int(config.num_key_value_heads),
            int(config.head_dim),
            float(config.attn_logit_softcapping or 0.0),
            bool(arch.swa or arch.alternating_swa),
        )
        try:
            self._attend = choose(attention, shape, self._device)
        except ImportError as error:
            raise ModelError(f"exllama.attention = {attention!r}: {error}") from error

    def _take(self, model: Any, tokenizer: Any, cache_class: Any) -> None:
        """Make a loaded model this backend's own, with a cache and a generator."""
        import exllamav2.attn
        import exllamav2.generator

        config = model.config
        self._params = exllamav2.attn.ExLlamaV2Attention.PagedParams
        self._generators = exllamav2.generator
        self._model = model
        self._softcap = float(config.final_logit_softcapping or 0.0)
        self.vocabulary = int(config.vocab_size)
        self.hidden_size = int(config.hidden_size)
        self._last = int(model.head_layer_idx) - 1
        self._middle = self._module_behind_middle()
        self._library_forward = model.forward_chunk
        self._library_embed = model.modules[0].forward
        model.forward_chunk = self._forward
        model.modules[0].forward = self._embed
        self._cache, self._states = self._make_cache(cache_class)
        self._tokenizer = tokenizer
        self._filter = _filter_class(exllamav2.generator.filters.ExLlamaV2Filter)
        self._greedy = exllamav2.generator.ExLlamaV2Sampler.Settings.greedy()
        self.restart()

    def _make_cache(self, cache_class: Any) -> tuple[Any, list[torch.Tensor]]:
        """The library's cache, and the tensors that it is made of: all layers in one, so that pages of all of them are
        copied at once. ``[layers, tokens, numbers of a token]`` each."""
        self._on_its_stream()  # which does not wait for what another one zeroes
        tokens = (self._prompt_pages + len(self._scratch)) * PAGE
        cache = cache_class(self._model, batch_size=1, max_seq_len=tokens, lazy=True)
        for place in self._model.get_cache_devices():
            cache.touch_device(place)
        kinds = [("key_states", cache.shape_wk, cache.dtype), ("value_states", cache.shape_wv, cache.dtype)]
        if cache.has_scales:
            kinds += [("key_scales", cache.shape_s, torch.float16), ("value_scales", cache.shape_s, torch.float16)]
        states = []
        for name, shape, dtype in kinds:
            layers = torch.zeros((cache.num_hidden_layers, *shape), dtype=dtype, device=self._device)
            setattr(cache, name, list(layers.unbind()))
            states.append(layers.flatten(3).squeeze(1))
        return cache, states

    @override
    def restart(self) -> None:
        self._jobs.clear()
        if self._generator is not None:
            for pool in (getattr(self._generator, "sampling_pool", None), self._generator.filter_pool):
                if pool is not None:
                    pool.shutdown(wait=False, cancel_futures=True)
            self._generator = None
        gc.collect()
        give_memory_back()
        self._generator = self._generators.ExLlamaV2DynamicGenerator(
            self._model,
            self._cache,
            self._tokenizer,
            max_batch_size=self.max_jobs,
            max_chunk_size=self._chunk_tokens,
            max_q_size=1,
            paged=True,
        )
        if self._device.type == "cuda":  # what is copied there is waited for, step by step
            self._generator.logits_pinned = self._generator.logits_pinned.pin_memory()
        self._generator.max_pages = self._prompt_pages
        self._generator.max_total_tokens = self.cache_tokens
        self.forget()

    @override
    def forget(self) -> None:
        self._generator.reset_page_table()
        # Never put pages in order: that moves the whole cache about, and nothing here is faster for it.
        self._generator.last_defrag_serial = math.inf

    @override
    def close(self) -> None:
        self._jobs.clear()
        self._generator = None
        del self._model.forward_chunk, self._model.modules[0].forward
        self._model.unload()
        del self._model, self._cache, self._states, self._tokenizer, self._library_forward, self._library_embed
        gc.collect()
        give_memory_back()

    def _make_job(
        self,
        tokens: tuple[int, ...],
        max_new_tokens: int,
        number: int | None = None,
        end_tokens: Sequence[int] = (),
        mask: TokenMask | None = None,
    ) -> Any:
        filters = [] if mask is None else [self._filter(self._model, self._tokenizer, LockedMask(mask, self._lock))]
        return self._generators.ExLlamaV2DynamicJob(
            input_ids=torch.tensor([tokens], dtype=torch.long),
            max_new_tokens=max_new_tokens,
            gen_settings=self._greedy,
            stop_conditions=list(end_tokens) or None,
            filters=filters,
            identifier=number,
        )

    def _pass(self, ids: torch.Tensor, table: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        result = self._model.forward_chunk(
            ids,
            cache=self._cache,
            attn_params=self._numbers(ids, table, lengths),
            last_id_only=True,  # of the head, which is not needed here; the states are of all places
            extract_state_indices=[self._middle, self._last],
        )
        return result["states"][self._middle], result["states"][self._last]

    def _prefill(self, jobs: Sequence[Any], results: list[dict[str, Any]]) -> None:
        read_prompts(
            jobs,
            self._generator.all_pages,
            read=self._store,
            copy=self._copy_tokens,
            chunk_tokens=self._chunk_tokens,
            scratch=self._scratch[0],
        )

    def _store(self, ids: torch.Tensor, table: torch.Tensor, lengths: torch.Tensor) -> None:
        self._model.forward_chunk(
            ids, cache=self._cache, attn_params=self._numbers(ids, table, lengths), preprocess_only=True
        )

    def _numbers(self, ids: torch.Tensor, table: torch.Tensor, lengths: torch.Tensor) -> Any:
        return self._params(
            batch_size=ids.shape[0],
            block_index=table,
            cache_seqlens=lengths,
            max_cache_seqlen=int(lengths.max()),
            page_size=PAGE,
            q_len=ids.shape[1],
        )

    def _forward(self, input_ids: torch.Tensor, *, attn_params: Any, **named: Any) -> Any:
        """The library's ``forward_chunk``, with the numbers of the pass where the layers need them."""
        self._on_its_stream()
        numbers = Pass(
            attn_params.block_index,
            attn_params.cache_seqlens,
            input_ids.shape[1],
            page=attn_params.page_size,
            device=self._device,
        )
        attn_params.block_index = numbers.table
        attn_params.cache_seqlens = numbers.before
        attn_params.cache_seqlens_after = numbers.after
        with without_cudnn(), attending(self._attend, numbers):
            return self._library_forward(input_ids, attn_params=attn_params, **named)

    def _embed(self, ids: torch.Tensor, **named: Any) -> torch.Tensor:
        """Embeddings are in the host's memory. The library copies what it finds there by itself, but with a wait."""
        embedded: torch.Tensor = self._library_embed(ids, **named)
        pinned = embedded.pin_memory() if self._device.type == "cuda" else embedded
        return pinned.to(self._device, non_blocking=True)

    def _on_its_stream(self) -> None:
        """The library launches on a stream of its own, in whatever thread it is called."""
        import exllamav2.device

        exllamav2.device.set_device_streams()

    def _copy_pages(self, sources: Sequence[int], targets: Sequence[int], tokens: Sequence[int]) -> None:
        places = [np.arange(count) for count in tokens]
        self._copy_tokens(
            *(
                np.concatenate([page * PAGE + place for page, place in zip(pages, places, strict=True)])
                for pages in (sources, targets)
            )
        )

    def _copy_tokens(self, sources: NDArray[np.int64], targets: NDArray[np.int64]) -> None:
        self._on_its_stream()
        source, target = to_device(np.stack([sources, targets]), self._device)
        for states in self._states:
            states.index_copy_(1, target, states.index_select(1, source))

    def _norm(self, hidden: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self._model.modules[self._last].forward(hidden[None])[0]
        return normed

    def _logits(self, normed: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model.modules[self._last + 1].forward(normed[None])[0, :, : self.vocabulary]
        logits = logits.float()
        return torch.tanh(logits / self._softcap) * self._softcap if self._softcap else logits

    def _module_behind_middle(self) -> int:
        """The same place as in the transformers engine."""
        begins = [index for index, module in enumerate(self._model.modules) if type(module).__name__ in _LAYERS]
        layer = len(begins) // 2 + 1
        return begins[layer] if layer < len(begins) else self._last


def _filter_class(base: Any) -> Callable[[Any, Any, LockedMask], Any]:
    """A filter of the library's own kind; its base class can only be had where the library can be imported."""

    class SpanFilter(base):  # type: ignore[misc]
        """Allows what a mask allows. Worked out while the GPU computes."""

        def __init__(self, model: Any, tokenizer: Any, mask: LockedMask) -> None:
            super().__init__(model, tokenizer)
            self._mask = mask

        def begin(self, prefix_str: str) -> None:
            """Nothing to do: a filter is made for one answer."""

        def feed(self, token: Any) -> None:
            self._mask.feed(int(token))

        def next(self) -> tuple[list[int], list[int]]:
            return self._mask.allowed(), []

        def use_background_worker(self) -> bool:
            return True

    return SpanFilter
