from __future__ import annotations

from pathlib import Path

import pytest

from el4ner.config import ModelSettings
from el4ner.engines import placing
from el4ner.engines.exllama.planning import CONTEXT_BYTES, Gpu, member
from el4ner.engines.exllama.weight_files import weight_bytes
from el4ner.engines.placing import place
from el4ner.errors import ConfigError
from el4ner.models.shapes import read_config, shape_of
from tests.support.tiny_models import tiny_llama

GB = 1 << 30


def gpus(monkeypatch: pytest.MonkeyPatch, *free_gb: float) -> None:
    found = [Gpu(index, "card", 8 * GB, int(free * GB)) for index, free in enumerate(free_gb)]
    monkeypatch.setattr(placing, "gpus_found", lambda: found)


@pytest.fixture
def models(tmp_path: Path) -> dict[str, ModelSettings]:
    source = str(tiny_llama(tmp_path / "llama"))
    return {
        "a": ModelSettings(source=source, engine="exllamav2"),
        "b": ModelSettings(source=source, engine="exllamav2"),
        "plain": ModelSettings(source=source),
    }


def test_members_are_spread_where_one_gpu_has_no_room_for_all(
    models: dict[str, ModelSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = Path(models["a"].source)
    each = member("a", shape_of(read_config(folder), folder / "config.json"), weight_bytes(folder), models["a"])
    for_one = (CONTEXT_BYTES + each.reserve_bytes + 1.5 * each.footprint.total) / GB
    gpus(monkeypatch, for_one, for_one)
    devices = {name: one.device for name, one in place(models, cache_dir=tmp_path).items()}
    assert {devices["a"], devices["b"]} == {"cuda:0", "cuda:1"}
    assert devices["plain"] == "auto"
    gpus(monkeypatch, 8.0, 8.0)
    devices = {name: one.device for name, one in place(models, cache_dir=tmp_path).items()}
    assert devices == {"a": "cuda:0", "b": "cuda:0", "plain": "auto"}


def test_a_gpu_that_is_named_is_kept(
    models: dict[str, ModelSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpus(monkeypatch, 8.0, 8.0)
    models["a"] = models["a"].model_copy(update={"device": "cuda:1"})
    placed = place(models, cache_dir=tmp_path)
    assert (placed["a"].device, placed["b"].device) == ("cuda:1", "cuda:0")


def test_what_fits_nowhere_is_said_before_anything_is_loaded(
    models: dict[str, ModelSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpus(monkeypatch, 0.3)
    with pytest.raises(ConfigError, match="models"):
        place(models, cache_dir=tmp_path)


def test_without_a_gpu_nothing_is_planned(
    models: dict[str, ModelSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpus(monkeypatch)
    assert place(models, cache_dir=tmp_path) == models
