"""ExLlamaV3 1.6 as a backend: EXL3 weights, and paged attention of its own that needs no flash-attn."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from typing_extensions import override

from el4ner.config import ExllamaSettings
from el4ner.engines.capturing import give_memory_back
from el4ner.engines.constraint import TokenMask
from el4ner.engines.exllama.importing import import_library, version_of
from el4ner.engines.exllama.paged import LockedMask, PagedBackend
from el4ner.errors import ModelError

__all__ = ["ExllamaV3"]

_BLOCK: Final = "TransformerBlock"


class ExllamaV3(PagedBackend):
    """See :class:`el4ner.engines.exllama.backend.Backend`; arguments as :class:`.v2.ExllamaV2`.

    Raises:
        ModelError: the library is missing, or the model keeps a state that is no paged cache (linear attention, the
            library's sliding windows): rows cannot be read behind its prompts.
    """

    def __init__(self, folder: Path, settings: ExllamaSettings, *, device: int, chunk_tokens: int) -> None:
        super().__init__(settings, device=device, chunk_tokens=chunk_tokens)
        library = import_library("exllamav3")
        self._library = library
        config = library.Config.from_directory(str(folder))
        self.context_length = min(int(config.max_position_embeddings), self.cache_tokens)
        self.vocabulary = int(config.vocab_size)
        self.hidden_size = int(config.hidden_size)
        self.identity = f"exllamav3 {version_of('exllamav3')} cache {settings.cache_bits}"
        self._model: Any = library.Model.from_config(config)
        if self._model.get_recurrent_layers():
            raise ModelError(f"{folder}: engine 'exllamav3' cannot score with this architecture: use 'exllamav2'")
        bits = settings.cache_bits
        quantised = {} if bits == 16 else {"layer_type": library.CacheLayer_quant, "k_bits": bits, "v_bits": bits}
        # The cache comes first: the model allocates it when it is loaded.
        self._cache: Any = library.Cache(self._model, max_num_tokens=settings.cache_tokens, **quantised)
        try:
            self._model.load(device=str(self._device), progressbar=False, max_chunk_size=chunk_tokens)
        except BaseException:
            with contextlib.suppress(Exception):
                self._model.unload()
            raise
        blocks = [module for module in self._model.modules if type(module).__name__ == _BLOCK]
        self._kept: dict[int, torch.Tensor] = {}
        self._wanted = {len(blocks) // 2: blocks[len(blocks) // 2], len(blocks) - 1: blocks[-1]}
        for layer, block in self._wanted.items():
            block.forward = self._keeping(layer, block.forward)
        self._reading = False
        self._head = int(self._model.logit_layer_idx)
        self._tokenizer = library.Tokenizer.from_config(config)
        self._filter = _filter_class(library.Filter)
        self._greedy = library.ArgmaxSampler()
        self.restart()

    @override
    def restart(self) -> None:
        self._jobs.clear()
        if self._generator is not None:
            with contextlib.suppress(Exception):
                self._generator.close()
            self._generator = None
        gc.collect()
        give_memory_back()
        self._generator = self._library.Generator(
            self._model,
            self._cache,
            self._tokenizer,
            max_batch_size=self.max_jobs,
            max_chunk_size=self._chunk_tokens,
            max_q_size=1,
        )
        self._generator.pagetable.max_pages = self._prompt_pages
        self._generator.max_total_tokens = self.cache_tokens
        self._generator.pagetable.reset_page_table()

    @override
    def forget(self) -> None:
        self._generator.pagetable.reset_page_table()

    @override
    def close(self) -> None:
        self._jobs.clear()
        self._generator.close()
        self._generator = None
        self._model.unload()
        del self._model, self._cache, self._tokenizer, self._wanted
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
        filters = [] if mask is None else [self._filter(self._tokenizer, LockedMask(mask, self._lock))]
        return self._library.Job(
            input_ids=torch.tensor([tokens], dtype=torch.long),
            max_new_tokens=max_new_tokens,
            sampler=self._greedy,
            stop_conditions=list(end_tokens) or None,
            filters=filters,
            identifier=number,
        )

    def _pass(self, ids: torch.Tensor, table: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        middle, last = min(self._wanted), max(self._wanted)
        self._reading = True
        try:
            self._model.forward(
                ids,
                {
                    "attn_mode": "flash_attn",  # the library's name for paged attention, whatever kernel does it
                    "block_table": table,
                    "cache": self._cache,
                    "cache_seqlens": lengths,
                    "last_tokens_only": 1,  # of the head
                    "export_state_layers": {middle, last},  # makes these layers add their residual themselves
                },
            )
            return self._kept[middle], self._kept[last]
        finally:
            self._reading = False
            self._kept.clear()

    def _keeping(self, layer: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        """A layer's states are the next layer's input, which is changed in place: what is exported has to be copied."""

        def kept(x: torch.Tensor, params: dict[str, Any], *rest: Any, **more: Any) -> torch.Tensor:
            out: torch.Tensor = forward(x, params, *rest, **more)
            if self._reading:
                self._kept[layer] = out.clone()
            return out

        return kept

    def _copy_pages(self, sources: Sequence[int], targets: Sequence[int], tokens: Sequence[int]) -> None:
        source, target = torch.tensor(sources, device=self._device), torch.tensor(targets, device=self._device)
        for pages in self._cache.get_all_tensors():  # [pages, ...] each
            pages[target] = pages[source]

    def _norm(self, hidden: torch.Tensor) -> torch.Tensor:
        module = self._model.modules[self._head - 1]
        normed: torch.Tensor = module.forward(module.prepare_for_device(hidden[None], {}), {})[0]
        return normed

    def _logits(self, normed: torch.Tensor) -> torch.Tensor:
        module = self._model.modules[self._head]
        logits: torch.Tensor = module.forward(module.prepare_for_device(normed[None], {}), {})[0, :, : self.vocabulary]
        return logits.float()


def _filter_class(base: Any) -> Callable[[Any, LockedMask], Any]:
    """A filter of the library's own kind; its base class can only be had where the library can be imported."""

    class SpanFilter(base):  # type: ignore[misc]
        """Allows what a mask allows. Worked out while the GPU computes."""

        def __init__(self, tokenizer: Any, mask: LockedMask) -> None:
            super().__init__(tokenizer, None, None, eos_after_completed=False)
            self._mask = mask

        def reset(self) -> None:
            """Nothing to do: a filter is made for one answer."""

        def accept_token(self, token: int) -> None:
            self._mask.feed(int(token))

        def is_completed(self) -> bool:
            return False  # the end token is what ends an answer

        def get_next_logit_mask(self) -> torch.Tensor:
            mask = torch.full((1, self.vocab_size), float("-inf"), dtype=self.logits_dtype)
            mask[0, self._mask.allowed()] = 0
            return mask

    return SpanFilter
