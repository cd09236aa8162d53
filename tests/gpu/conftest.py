"""Models and engines of the tests that need a GPU. Without one each of them is skipped and says why.

What ``bench/gpu/run.py`` has made is used if these variables name it; each has a default:

``EL4NER_GPU_SMALL``
    a folder of a small Llama in 16 bits: the packaged SmolLM2
``EL4NER_GPU_SMALL_OF``
    what it was made of; "random weights": tests that need trained ones are skipped
``EL4NER_GPU_SMALL_EXL2``
    the same at 4 bits: what ``el4ner models quantize packaged:smollm2-135m-instruct`` made
``EL4NER_GPU_SMALL_EXL3``
    the same in EXL3 at 4 bits: what ``… --format exl3`` made
``EL4NER_GPU_ENGINES``
    engines that may be imported, with spaces between: those that are installed. (Importing a library compiles it.)
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from el4ner.config import ExllamaSettings, ModelSettings
from el4ner.engines.base import Engine
from el4ner.engines.registry import load_engine
from el4ner.models.prepare import default_cache_dir, prepare, resolve

SMALL = "packaged:smollm2-135m-instruct"
EXL2 = f"quantized:{SMALL}@4.0bpw"
EXL3 = f"{EXL2}-exl3"

Load = Callable[..., Any]


def why_not(engine: str) -> str | None:
    """Why ``engine`` cannot be tried here; None: it can."""
    import torch

    if not torch.cuda.is_available():
        return f"there is no CUDA GPU here (torch {torch.__version__})"
    allowed = os.environ.get("EL4NER_GPU_ENGINES")
    if allowed is not None and engine not in allowed.split():
        return f"{engine} is not among EL4NER_GPU_ENGINES ({allowed})"
    if importlib.util.find_spec(engine) is None:
        return f"{engine} is not installed"
    return None


@pytest.fixture(scope="session")
def need() -> Callable[[str], None]:
    """Skip, with the reason, unless an engine can be tried here."""

    def needed(engine: str) -> None:
        reason = why_not(engine)
        if reason is not None:
            pytest.skip(reason)

    return needed


@pytest.fixture(scope="session")
def small(need: Callable[[str], None]) -> Path:
    """A small Llama in 16 bits."""
    need("transformers")
    given = os.environ.get("EL4NER_GPU_SMALL")
    return Path(given) if given else prepare(SMALL, default_cache_dir())


@pytest.fixture(scope="session")
def trained(small: Path) -> Path:
    """The same, with weights that were trained."""
    made_of = os.environ.get("EL4NER_GPU_SMALL_OF", SMALL)
    if made_of.startswith("random weights"):
        pytest.skip(f"the small model has {made_of}: trained ones are needed")
    return small


@pytest.fixture(scope="session")
def small_exl2(need: Callable[[str], None]) -> Path:
    """The same at 4 bits."""
    need("exllamav2")
    given = os.environ.get("EL4NER_GPU_SMALL_EXL2")
    folder = Path(given) if given else resolve(EXL2, default_cache_dir())
    if folder is None:
        pytest.skip(f"there is no EXL2 model: el4ner models quantize {SMALL} --bits 4.0")
    return folder


@pytest.fixture(scope="session")
def small_exl3(need: Callable[[str], None]) -> Path:
    """The same at 4 bits in EXL3."""
    need("exllamav3")
    given = os.environ.get("EL4NER_GPU_SMALL_EXL3")
    folder = Path(given) if given else resolve(EXL3, default_cache_dir())
    if folder is None:
        pytest.skip(f"there is no EXL3 model: el4ner models quantize {SMALL} --bits 4.0 --format exl3")
    return folder


@pytest.fixture(scope="module")
def load(need: Callable[[str], None]) -> Iterator[Load]:
    """``load(engine, folder, name=…, **exllama settings)``; what it loaded is closed at the end of the module."""
    loaded: list[Engine] = []

    def loader(engine: str, folder: Path, *, name: str = "member", dtype: str = "auto", **exllama: Any) -> Engine:
        need(engine)
        settings = ModelSettings.model_validate(
            {
                "source": str(folder),
                "engine": engine,
                "device": "cuda",
                "dtype": dtype,
                "exllama": ExllamaSettings.model_validate({"cache_tokens": 16_384, **exllama}),
            }
        )
        made = load_engine(name, settings, cache_dir=default_cache_dir())
        loaded.append(made)
        return made

    yield loader
    for one in loaded:
        one.close()
