"""The command line with ExLlamaV2 on the processor (:mod:`tests.support.cpu_exllamav2`), where everything goes wrong
once.

As a program: ``python -m tests.support.cpu_gpu_command tag …``, as ``el4ner tag …``. The first attention is refused.
Reading prompts, and writing answers, each runs out of memory once and fails once. The library prints to standard
output, as the real one does when it compiles: in Python, to the descriptor, and from a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from el4ner.config import ModelSettings
from el4ner.engines import placing
from el4ner.engines.exllama import loading
from el4ner.engines.exllama.backend import Backend
from el4ner.engines.exllama.exllama_engine import ExllamaEngine
from el4ner.engines.exllama.planning import Gpu
from el4ner.errors import ModelError
from tests.support.cpu_exllamav2 import import_exllamav2, make_backend
from workers.cli import main

MEMORY = 16 << 30
PRINTED = "Loading exllamav2_ext extension (JIT)..."


def print_as_the_library_does(*_: object, **_more: object) -> None:
    print(PRINTED)  # noqa: T201
    os.write(1, f"{PRINTED}\n".encode())
    subprocess.run(["echo", PRINTED], check=True)


def fail_twice(call: Callable[..., Any]) -> Callable[..., Any]:
    """``call``, which before that runs out of memory, and the next time fails otherwise."""
    faults = [RuntimeError("CUDA error: launch failed"), torch.OutOfMemoryError("CUDA out of memory")]

    def failing(*args: Any) -> Any:
        print_as_the_library_does()
        if faults:
            raise faults.pop()
        return call(*args)

    return failing


def put_on_the_processor(patch: pytest.MonkeyPatch) -> None:
    library = import_exllamav2(patch)

    def backends(
        path: Path, settings: ModelSettings, _library: object, _device: object
    ) -> list[tuple[str, Callable[[], Backend]]]:
        def refused() -> Backend:
            raise ModelError("exllama.attention 'flash': flash-attn is not installed")

        def ready() -> Backend:
            return make_backend(library, path, settings.exllama)[0]

        return [("flash", refused), ("torch", ready)]

    load = loading.load

    def load_with_faults(*args: Any, **more: Any) -> ExllamaEngine:
        engine = load(*args, **more)
        backend: Any = engine._backend
        backend.step = fail_twice(backend.step)
        backend.hold = fail_twice(backend.hold)
        return engine

    patch.setattr(loading, "load", load_with_faults)
    patch.setattr(loading, "_backends", backends)
    patch.setattr(loading, "import_library", print_as_the_library_does)
    patch.setattr(loading, "device_index", lambda *_: 0)
    patch.setattr(torch.cuda, "mem_get_info", lambda *_: (MEMORY, MEMORY))
    patch.setattr(placing, "gpus_found", lambda: [Gpu(0, "card", MEMORY, MEMORY)])


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as monkeypatch:
        put_on_the_processor(monkeypatch)
        sys.argv[0] = "el4ner"
        main()
