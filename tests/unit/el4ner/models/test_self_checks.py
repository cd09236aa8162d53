"""Which self-checks are made, and which are remembered."""

from pathlib import Path

import pytest

from el4ner.engines.torch.attention_plans import RowsPlan
from el4ner.engines.torch.transformers_engine import TransformersEngine
from el4ner.errors import ModelError
from el4ner.models import self_checks
from el4ner.models.self_checks import CHECK_ALWAYS, REMEMBERED, check_key, has_passed, processor, remember_passed
from tests.support.tiny_models import tiny_llama


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of engines that were checked."""
    names: list[str] = []
    original = TransformersEngine._check

    def check(engine: TransformersEngine) -> None:
        names.append(engine.name)
        original(engine)

    monkeypatch.setattr(TransformersEngine, "_check", check)
    return names


def load(name: str, folder: Path, cache: Path) -> None:
    TransformersEngine.load(name, folder, dtype="float32", device="cpu", cache_dir=cache).close()


def test_a_model_is_checked_once_on_a_machine(tmp_path: Path, checked: list[str]) -> None:
    folder = tiny_llama(tmp_path / "model")
    load("first", folder, tmp_path)
    load("second", folder, tmp_path)
    assert checked == ["first"]
    load("another cache", folder, tmp_path / "other")
    load("another model", tiny_llama(tmp_path / "deeper", layers=3), tmp_path)
    assert checked == ["first", "another cache", "another model"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"passed": 7}', b'{"passed": [1, null]}', b"\xff\x00"])
def test_where_the_memory_is_damaged_the_check_is_made_again(
    tmp_path: Path, checked: list[str], content: bytes
) -> None:
    folder = tiny_llama(tmp_path / "model")
    (tmp_path / REMEMBERED).write_bytes(content)
    load("first", folder, tmp_path)
    load("second", folder, tmp_path)
    assert checked == ["first"]


def test_every_start_checks_where_that_is_asked_for(
    tmp_path: Path, checked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_llama(tmp_path / "model")
    monkeypatch.setenv(CHECK_ALWAYS, "always")
    load("first", folder, tmp_path)
    load("second", folder, tmp_path)
    assert checked == ["first", "second"]


def test_another_processor_or_other_code_is_another_check(
    tmp_path: Path, checked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_llama(tmp_path / "model")
    engine = "el4ner.engines.torch.transformers_engine"
    load("first", folder, tmp_path)
    with monkeypatch.context() as changed:
        changed.setattr(f"{engine}.processor", lambda: "another")
        load("processor", folder, tmp_path)
    with monkeypatch.context() as changed:
        changed.setattr(f"{engine}._own_code", lambda: "another")
        load("code", folder, tmp_path)
    with monkeypatch.context() as changed:
        changed.setattr(f"{engine}.transformers_version", "another")
        load("version", folder, tmp_path)
    load("last", folder, tmp_path)
    assert checked == ["first", "processor", "code", "version"]


def test_what_failed_is_never_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_llama(tmp_path / "model")
    original = RowsPlan.attend
    with monkeypatch.context() as broken:
        broken.setattr(RowsPlan, "attend", lambda plan, layer, *rest: original(plan, layer, *rest) * (layer != 1))
        for _ in range(2):
            with pytest.raises(ModelError, match="differ"):
                load("broken", folder, tmp_path)
    assert not (tmp_path / REMEMBERED).exists()


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    remember_passed("key", blocked)
    assert not has_passed("key", blocked, environ={})


def test_only_so_many_are_kept_and_the_newest_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_checks, "_MOST", 3)
    keys = [check_key(number) for number in range(5)]
    for key in keys:
        remember_passed(key, tmp_path)
    assert [has_passed(key, tmp_path, environ={}) for key in keys] == [False, False, True, True, True]


def test_the_processor_is_its_model_and_instructions_and_not_its_speed(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    text = "processor\t: 0\nmodel name\t: A\ncpu MHz\t\t: 2100.0\nflags\t\t: avx2\n\nprocessor\t: 1\nmodel name\t: A\n"
    info.write_text(text)
    first = processor(info)
    info.write_text(text.replace("2100", "800"))
    assert processor(info) == first != ""
    info.write_text(text.replace("avx2", "avx2 amx_bf16"))
    assert processor(info) != first
    assert processor(tmp_path / "missing") == ""
