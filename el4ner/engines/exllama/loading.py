"""From a folder to an engine that has proved itself."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from el4ner.config import ModelSettings
from el4ner.engines.exllama.backend import Backend
from el4ner.engines.exllama.exllama_engine import ExllamaEngine
from el4ner.engines.exllama.importing import Library, device_index, import_library
from el4ner.engines.exllama.pages import PAGE
from el4ner.errors import ConfigError, El4nerError, ModelError

__all__ = ["load"]

log = logging.getLogger(__name__)
_CHUNK: Final = 4096
"""The most tokens of one forward pass: buffers of that size are held for each model."""


def load(name: str, path: Path, settings: ModelSettings, *, library: Library, cache_dir: Path) -> ExllamaEngine:
    """Load a folder of EXL2, GPTQ or plain safetensors (``exllamav2``), or of EXL3 or plain ones (``exllamav3``).

    What attends is chosen by ``exllama.attention``: ``auto`` takes flash-attn if it is there and works, else the
    kernel that torch brings, else plain torch, and of these only what passes the causal self-check (:mod:`.causal`).

    Raises:
        ModelError: in one line: no GPU, the library is missing or does not fit torch, an architecture that it does not
            know, weights that do not fit the GPU, a cache that is too small, or a model that fails the self-check
            (code ``attention-not-causal``).
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoTokenizer

    from el4ner.engines.capturing import give_memory_back
    from el4ner.engines.exllama.planning import check_fits
    from el4ner.models.architectures import check_architecture
    from el4ner.models.folder import folder_digest, listed_end_tokens
    from el4ner.models.legacy import legacy_folder
    from el4ner.models.safety import check_folder

    check_folder(path, shared=True)
    path = legacy_folder(path, cache_dir)
    import_library(library, cache_dir)
    if library == "exllamav3":
        _warn_experimental()
    check_architecture(path, library)
    device = device_index(name, settings.device)
    give_memory_back()
    free, _ = torch.cuda.mem_get_info(device)
    check_fits(path, settings, free, name)
    refused: list[tuple[str, str]] = []  # (message, code); an error itself would keep its model on the GPU
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        for attention, make in _backends(path, settings, library, device):
            engine: ExllamaEngine | None = None
            try:
                engine = ExllamaEngine(
                    name,
                    make(),
                    tokenizer,
                    fingerprint=folder_digest(path, cache_dir),
                    batch_seconds=settings.exllama.batch_seconds,
                    end_tokens=listed_end_tokens(path),
                    cache_bits=settings.exllama.cache_bits,
                )
                engine.check()
            except torch.OutOfMemoryError:
                raise
            except (ModelError, RuntimeError) as error:  # a kernel that does not know this GPU is a RuntimeError
                if isinstance(error, ModelError):
                    message, code = str(error), error.code
                else:
                    message, code = f"{path}: attention {attention!r} fails: {error}", ModelError.code
                refused.append((message, code))
                log.info(
                    "attention-refused",
                    extra={"engine": name, "attention": attention, "code": code, "error": message},
                )
                if engine is not None:
                    engine.close()
            else:
                log.info(
                    "engine-loaded",
                    extra={"engine": name, "library": library, "attention": attention, "device": device},
                )
                return engine
    except El4nerError:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{path}: does not fit GPU {device}, which has {free / 1e9:.1f} GB free: {str(error).splitlines()[0]}: "
            f"make models.{name}.exllama.cache_tokens smaller"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AssertionError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be loaded: {error}") from error
    # The last attention that was tried is the one that is always there: why it was refused is the reason.
    raise ModelError("; ".join(message for message, _ in refused), code=refused[-1][1])


@functools.cache
def _warn_experimental() -> None:
    """Once a process, however many members it has."""
    log.warning(
        "engine-experimental",
        extra={
            "library": "exllamav3",
            "reason": "EXL3 has never been run on hardware; docs/gpu.md says what would prove it",
        },
    )


def _backends(
    path: Path, settings: ModelSettings, library: Library, device: int
) -> list[tuple[str, Callable[[], Backend]]]:
    """What to try, in order: (attention, how to load)."""
    chunk = max(PAGE, min(settings.max_batch_tokens or _CHUNK, _CHUNK) // PAGE * PAGE)
    if library == "exllamav3":
        from el4ner.engines.exllama.v3 import ExllamaV3

        if settings.exllama.attention in ("flash", "varlen"):
            raise ConfigError("exllama.attention: exllamav3 chooses its attention itself: leave it 'auto'")
        return [("own", lambda: ExllamaV3(path, settings.exllama, device=device, chunk_tokens=chunk))]
    from el4ner.engines.exllama.paged_attention import Attention
    from el4ner.engines.exllama.v2 import ExllamaV2

    wanted = settings.exllama.attention
    kinds: tuple[Attention, ...] = ("flash", "varlen", "torch") if wanted == "auto" else (wanted,)

    def with_(kind: Attention) -> Callable[[], Backend]:
        return lambda: ExllamaV2(path, settings.exllama, device=device, chunk_tokens=chunk, attention=kind)

    return [(kind, with_(kind)) for kind in kinds]
