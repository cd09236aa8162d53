"""What the method's calls ask of a GPU, counted on the processor: launches, copies, waits, of a tiny model.

    python bench/launches.py [--engine exllamav2] [--engine transformers] [--prompts 32] [--tokens 700]
                             [--continuations 60] [--layers 4] [--attention varlen] [--gathered] [--places] [--json OUT]

Prompts of one call begin alike (instruction and demonstrations) and end with a sentence of their own. Each engine reads
them anew; then the same call again, with the prompts in its cache. `--places` shows where the host waits and copies.

Launches are operations that are no views; one may be several kernels or, compiled, a part of one. Of ExLlamaV2 the
library's own forward pass is run, in 16 bits: at 4 bits each layer's own matrices take 3 launches in place of some 20.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pytest
import torch
from counting import DeviceCounts
from transformers import AutoTokenizer

from el4ner.config import ExllamaSettings
from el4ner.engines.base import GenerateRequest, Prompt, ScoreItem, ScoreRequest, StateRequest
from el4ner.engines.exllama import varlen
from el4ner.engines.exllama.exllama_engine import ExllamaEngine
from el4ner.engines.torch.transformers_engine import TransformersEngine
from tests.support import flash_kernel
from tests.support.cpu_exllamav2 import SHAPE, import_exllamav2, make_backend
from tests.support.tiny_models import tiny_llama

CANDIDATES: Final = (" person", " location", " organisation", " none", " miscellaneous")
ENGINES: Final = ("exllamav2", "transformers")
NEW_TOKENS: Final = 16
SHARED: Final = 0.7
"""Of a prompt's tokens: instruction and demonstrations."""

Requests = dict[str, Callable[[Any], object]]


def requests(prompts: int, tokens: int, continuations: int) -> Requests:
    """The calls by name. A token is a letter."""
    shared = "The mayor of Lisbon met the crew of the harbour office. " * 100
    shared = shared[: int(tokens * SHARED)]
    asked = []
    for number in range(prompts):
        own = f" {number}: Angela Merkel met Emmanuel Macron in Paris on {number % 28 + 1} May. " * 20
        length = tokens - len(shared) - 40 + (number * 37) % 60 - 30
        asked.append(Prompt("", shared + own[:length]))
    spans = tuple(f'\n"{name}" is a' for name in _surfaces(continuations // len(CANDIDATES)))
    items = tuple(ScoreItem(span, CANDIDATES) for span in spans)
    return {
        "score": lambda engine: engine.score([ScoreRequest(prompt, items) for prompt in asked]),
        "states": lambda engine: engine.states([StateRequest(prompt, spans) for prompt in asked]),
        "generate": lambda engine: engine.generate([GenerateRequest(prompt, NEW_TOKENS) for prompt in asked]),
    }


def _surfaces(count: int) -> list[str]:
    names = ("Angela Merkel", "Paris", "Macron", "May", "the harbour office", "Lisbon")
    return [f"{names[index % len(names)]}{index // len(names) or ''}" for index in range(count)]


@contextmanager
def exllamav2(folder: Path, counts: DeviceCounts, options: argparse.Namespace) -> Iterator[Any]:
    """The library itself on the processor, with its tensors told to be on the device."""
    with pytest.MonkeyPatch.context() as patch:
        library = import_exllamav2(patch)
        if options.attention == "varlen":
            flash_kernel.install(patch, pages=not options.gathered)
        settings = ExllamaSettings(cache_tokens=options.cache_tokens)
        backend, model = make_backend(
            library, folder, settings, chunk_tokens=4096, dtype=torch.float16, attention=options.attention
        )
        # A kernel that is counted need not be right, and the stand-in that is right is slow.
        patch.setattr(varlen, "flash_forward", counts.one_launch("flash_forward", lambda q, *_, **__: q.clone()))
        patch.setattr(torch.cuda, "synchronize", lambda *_: counts.wait("torch.cuda.synchronize"))
        patch.setattr(library.generator.dynamic, "cuda_sync_active", lambda: counts.wait("cuda_sync_active"))
        patch.setattr(
            library.attn_params, "safe_move_tensor", lambda tensor, device, non_blocking=False: _moved(counts, tensor)
        )
        extension = library.ext.exllamav2_ext
        for name in ("rms_norm", "rope_", "cache_rotate"):
            patch.setattr(extension, name, counts.one_launch(name, getattr(extension, name)))
        for name in ("count_match", "sample_basic", "logit_filter_exclusive", "fast_fill_cpu_ones_bool"):
            patch.setattr(extension, name, counts.uncounted(getattr(extension, name)))
        for name in ("__init__", "append"):  # tokens, which stay on the host
            patch.setattr(library.util.SeqTensor, name, counts.uncounted(getattr(library.util.SeqTensor, name)))
        embed = model.modules[0].forward

        def embedding(*given: Any, **named: Any) -> torch.Tensor:
            return _moved(counts, embed(*given, **named))

        patch.setattr(model.modules[0], "forward", embedding)
        layers = [module for module in model.modules_dict.values() if module is not model.modules[0]]
        weights = [layer.weight if hasattr(layer, "weight") else layer.linear.weight for layer in layers]
        counts.on_device([*weights, *model.constants.sin, *model.constants.cos])
        counts.on_device([*backend._cache.key_states, *backend._cache.value_states])  # type: ignore[attr-defined]
        engine = ExllamaEngine(
            "exllamav2",
            backend,
            AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
            fingerprint="x",
            batch_seconds=3600.0,
        )
        yield engine, engine.forget_prompts
        engine.close()


def _moved(counts: DeviceCounts, tensor: torch.Tensor) -> torch.Tensor:
    """As the library's own: from the host it copies on a stream of its own and waits for the whole device."""
    if counts.is_on_device(tensor):
        return tensor
    moved = tensor.clone()
    counts.on_device([moved])
    counts.copy("by safe_move_tensor", waits=True)
    return moved


@contextmanager
def transformers(folder: Path, counts: DeviceCounts, options: argparse.Namespace) -> Iterator[Any]:
    """The engine as on a GPU, where rows attend together and a recorded step is one launch; or row by row."""

    class OneLaunch:
        def record(self, work: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
            result = work()
            replay = counts.one_launch("a recorded step", lambda: result.copy_(work()))
            return lambda: (replay(), None)[1], result

    with tempfile.TemporaryDirectory() as cache:
        engine = TransformersEngine.load(
            "transformers",
            folder,
            device="cpu",
            dtype="float32",
            max_batch_tokens=16_384 if options.attend == "together" else 4096,
            cache_dir=Path(cache),
            attend=options.attend,
            recorder=OneLaunch() if options.attend == "together" else None,
        )
        model = engine._model._model
        counts.on_device([*model.parameters(), *model.buffers()])
        yield engine, engine.forget_prompts
        engine.close()


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """By call, first time and again: what :meth:`DeviceCounts.take` has, and seconds."""
    calls = requests(options.prompts, options.tokens, options.continuations)
    counted: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        counts = DeviceCounts("el4ner", "exllamav2", "transformers")
        path = tiny_llama(Path(folder) / "llama", layers=options.layers, max_position_embeddings=4096, **SHAPE)
        with {"exllamav2": exllamav2, "transformers": transformers}[name](path, counts, options) as (engine, forget):
            for call, run in calls.items():
                forget()
                for times in ("first", "again"):
                    started = time.perf_counter()
                    with counts:
                        run(engine)
                    seconds = time.perf_counter() - started
                    counted[f"{call}, {times}"] = {**counts.take(), "seconds": seconds}
    return counted


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", action="append", choices=ENGINES)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=700)
    parser.add_argument("--continuations", type=int, default=60)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--cache-tokens", type=int, default=65_536)
    parser.add_argument("--attention", default="varlen", choices=("varlen", "torch"), help="of exllamav2")
    parser.add_argument("--gathered", action="store_true", help="varlen as with torch before 2.12")
    parser.add_argument("--attend", default="together", choices=("together", "rows"), help="of transformers")
    parser.add_argument("--places", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    results = {}
    for name in options.engine or ENGINES:
        results[name] = measure(name, options)
        print(f"\n{name}: {options.prompts} prompts, {options.layers} layers; of one sentence")
        print(f"{'call':<18}{'launches':>10}{'copies':>10}{'waits':>10}{'launches of the call':>24}")
        for call, found in results[name].items():
            each = [found[key] / options.prompts for key in ("launches", "copies", "waits")]
            print(f"{call:<18}" + "".join(f"{value:>10.1f}" for value in each) + f"{found['launches']:>24,}")
            if options.places:
                for place, count in list(found["places"].items())[:20]:
                    print(f"    {count:>6} {place}")
                print("   ", ", ".join(f"{name} {count}" for name, count in list(found["operations"].items())[:14]))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
