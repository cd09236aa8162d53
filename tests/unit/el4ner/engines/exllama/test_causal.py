"""The causal self-check refuses a wrong mask, and says that it was the mask.

Over the library's own model, generator and pages on the processor (:mod:`tests.support.cpu_exllamav2`). The wrong mask
is the one of ``tests/gpu/test_faults_on_gpu.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from el4ner.config import ExllamaSettings, ModelSettings
from el4ner.engines.exllama import loading, paged_attention
from el4ner.engines.exllama.backend import Backend
from el4ner.engines.exllama.causal import NOT_CAUSAL
from el4ner.engines.exllama.exllama_engine import ExllamaEngine
from el4ner.engines.exllama.importing import Library
from el4ner.errors import ModelError
from tests.support.cpu_exllamav2 import make_backend
from tests.support.engine_conformance import SENTENCES, logprobs, score_request

MEMORY = 16 << 30
REFUSAL = r"^m: a prompt of 330 tokens .* nats apart .*: attention does not mask what comes later"


Make = Callable[[], Backend]


@pytest.fixture
def wrong(library: Any, folder: Path) -> Make:
    """A backend whose prompts see what comes later."""
    right = paged_attention.attention_with_cache

    def without_mask(*given: Any, **named: Any) -> Any:
        return right(*given, **{**named, "causal": False})

    def made() -> Backend:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                paged_attention, "attention_with_cache", without_mask
            )  # what is installed in the library's place
            return make_backend(library, folder, ExllamaSettings(cache_tokens=4096))[0]

    return made


@pytest.fixture
def right(library: Any, folder: Path) -> Make:
    return lambda: make_backend(library, folder, ExllamaSettings(cache_tokens=4096))[0]


@pytest.fixture
def load(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ExllamaEngine]:
    """:func:`el4ner.engines.exllama.loading.load` with these ways to attend, as if there were a GPU."""
    monkeypatch.setattr(loading, "import_library", lambda *_, **__: None)
    monkeypatch.setattr(loading, "device_index", lambda *_: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (MEMORY, MEMORY))

    def loader(ways: dict[str, Make], *, library: Library = "exllamav2", name: str = "m") -> ExllamaEngine:
        monkeypatch.setattr(loading, "_backends", lambda *_: list(ways.items()))
        settings = ModelSettings(source=str(folder), engine=library)
        return loading.load(name, folder, settings, library=library, cache_dir=tmp_path)

    return loader


Load = Callable[..., ExllamaEngine]


@pytest.mark.parametrize(("library_name", "warnings"), [("exllamav2", 0), ("exllamav3", 1)])
def test_an_engine_that_was_never_run_on_hardware_says_so_once(
    load: Load,
    right: Make,
    caplog: pytest.LogCaptureFixture,
    library_name: Library,
    warnings: int,
) -> None:
    loading._warn_experimental.cache_clear()
    for name in ("m", "n"):
        load({"own": right}, library=library_name, name=name).close()
    told = [vars(record) for record in caplog.records if record.levelno == logging.WARNING]
    assert [record["message"] for record in told] == ["engine-experimental"] * warnings
    assert all("never been run on hardware" in record["reason"] for record in told)


def broken() -> Backend:
    raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")


def out_of_memory() -> Backend:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_attention_without_a_causal_mask_is_refused_and_the_right_one_is_not(
    load: Load, wrong: Make, right: Make
) -> None:
    with pytest.raises(ModelError, match=REFUSAL) as refused:
        load({"torch": wrong})
    assert refused.value.code == NOT_CAUSAL
    (result,) = load({"torch": right}).score([score_request(SENTENCES[0])])
    assert all(score < 0 for score in logprobs(result))


def test_where_another_attention_is_right_it_is_taken(
    load: Load, wrong: Make, right: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="el4ner")
    engine = load({"flash": wrong, "torch": right})
    engine.check()
    refused, loaded = (vars(record) for record in caplog.records)
    assert (refused["message"], refused["attention"], refused["code"]) == ("attention-refused", "flash", NOT_CAUSAL)
    assert "does not mask what comes later" in refused["error"]
    assert (loaded["message"], loaded["attention"]) == ("engine-loaded", "torch")


def test_attention_that_fails_on_this_gpu_is_not_the_end(load: Load, right: Make) -> None:
    load({"flash": broken, "torch": right}).check()


def test_an_attention_that_fails_is_not_taken_for_one_without_a_mask(load: Load) -> None:
    with pytest.raises(ModelError, match=r"attention 'torch' fails: FlashAttention only supports") as refused:
        load({"torch": broken})
    assert refused.value.code == "model"


def test_every_refusal_is_told_and_the_last_one_decides_what_it_is(load: Load, wrong: Make) -> None:
    with pytest.raises(ModelError, match=r"'flash' fails: .*; m: a prompt of 330 tokens") as refused:
        load({"flash": broken, "torch": wrong})
    assert refused.value.code == NOT_CAUSAL


def test_memory_that_is_too_small_is_not_taken_for_a_wrong_attention(load: Load, right: Make) -> None:
    with pytest.raises(ModelError, match=r"does not fit GPU 0, .*: make models\.m\.exllama\.cache_tokens smaller"):
        load({"flash": out_of_memory, "torch": right})
