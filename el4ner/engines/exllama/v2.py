"""ExLlamaV2 0.3.2 as a backend. The library is archived: this version is pinned, and does not change any more."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from el4ner.config import ExllamaSettings
from el4ner.engines.constraint import TokenMask
from el4ner.engines.exllama.attention import Attention, install
from el4ner.engines.exllama.backend import PAGE
from el4ner.engines.exllama.importing import import_library, version_of
from el4ner.engines.exllama.paged import LockedMask, PagedBackend
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
        try:
            install(attention)
        except ImportError as error:
            raise ModelError(f"exllama.attention = {attention!r}: {error}") from error
        import exllamav2.attn
        import exllamav2.generator

        self._params = exllamav2.attn.ExLlamaV2Attention.PagedParams
        self._generators = exllamav2.generator
        config = library.ExLlamaV2Config(str(folder))
        self.context_length = min(int(config.max_seq_len), self.cache_tokens)
        config.max_seq_len = min(int(config.max_seq_len), settings.cache_tokens)
        config.max_input_len = chunk_tokens
        config.max_attention_size = chunk_tokens**2
        config.no_flash_attn = False
        config.no_xformers = True
        _check_attention(config, attention)
        self._softcap = float(config.final_logit_softcapping or 0.0)
        self.vocabulary = int(config.vocab_size)
        self.hidden_size = int(config.hidden_size)
        self.identity = f"exllamav2 {version_of('exllamav2')} cache {settings.cache_bits} attention {attention}"
        self._model: Any = library.ExLlamaV2(config)
        try:
            self._model.load([0.0] * device + [99_999.0])  # GB that may be used of each GPU
            cache_class = getattr(library, _CACHES[settings.cache_bits])
            self._cache: Any = cache_class(self._model, batch_size=1, max_seq_len=settings.cache_tokens)
        except BaseException:
            with contextlib.suppress(Exception):
                self._model.unload()
            raise
        self._last = int(self._model.head_layer_idx) - 1
        self._middle = self._module_behind_middle()
        self._tokenizer = library.ExLlamaV2Tokenizer(config)
        self._filter = _filter_class(exllamav2.generator.filters.ExLlamaV2Filter)
        self._greedy = exllamav2.generator.ExLlamaV2Sampler.Settings.greedy()
        self.restart()

    def restart(self) -> None:
        """See :class:`~el4ner.engines.exllama.backend.Backend`."""
        self._jobs.clear()
        if self._generator is not None:
            for pool in (getattr(self._generator, "sampling_pool", None), self._generator.filter_pool):
                if pool is not None:
                    pool.shutdown(wait=False, cancel_futures=True)
            self._generator = None
        gc.collect()
        torch.cuda.empty_cache()
        self._generator = self._generators.ExLlamaV2DynamicGenerator(
            self._model,
            self._cache,
            self._tokenizer,
            max_batch_size=self.max_jobs,
            max_chunk_size=self._chunk_tokens,
            max_q_size=1,
            paged=True,
        )
        self._generator.max_pages = self._prompt_pages
        self._generator.max_total_tokens = self.cache_tokens
        self._generator.reset_page_table()

    def forget(self) -> None:
        """See :class:`~el4ner.engines.exllama.backend.Backend`."""
        self._generator.reset_page_table()

    def close(self) -> None:
        """See :class:`~el4ner.engines.exllama.backend.Backend`."""
        self._jobs.clear()
        self._generator = None
        self._model.unload()
        del self._model, self._cache, self._tokenizer
        gc.collect()
        torch.cuda.empty_cache()

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
            attn_params=self._params(
                batch_size=ids.shape[0],
                block_index=table,
                cache_seqlens=lengths,
                max_cache_seqlen=int(lengths.max()),
                page_size=PAGE,
                q_len=ids.shape[1],
            ),
            last_id_only=True,  # of the head, which is not needed here; the states are of all places
            extract_state_indices=[self._middle, self._last],
        )
        return result["states"][self._middle], result["states"][self._last]

    def _copy_pages(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        source, target = torch.tensor(sources, device=self._device), torch.tensor(targets, device=self._device)
        cache = self._cache
        tensors = [*cache.key_states, *cache.value_states]
        if cache.has_scales:
            tensors += [*cache.key_scales, *cache.value_scales]
        for tensor in tensors:
            pages = tensor.view(tensor.shape[1] // PAGE, PAGE, *tensor.shape[2:])
            pages[target] = pages[source]

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


def _check_attention(config: Any, attention: Attention) -> None:
    """The library only warns where flash-attn would leave out what a model needs.

    Raises:
        ModelError: it would.
    """
    import exllamav2.attn as attn

    arch = config.arch.lm
    if config.attn_logit_softcapping and not attn.has_flash_attn_with_softcap:
        raise ModelError(f"exllama.attention = {attention!r}: this flash-attn cannot cap logits, as the model needs it")
    if (arch.swa or arch.alternating_swa) and not attn.has_flash_attn_with_window:
        raise ModelError(f"exllama.attention = {attention!r}: this flash-attn has no windows, as the model needs them")


def _filter_class(base: Any) -> Callable[[Any, Any, LockedMask], Any]:
    """A filter of the library's own kind; its base class can only be had where the library can be imported."""

    class Spans(base):  # type: ignore[misc]
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

    return Spans
