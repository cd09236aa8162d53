"""Preparing in other processes: what needs none gets none, and whoever cannot be helped finds out by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from el4ner.errors import ModelError
from el4ner.models import preparing_ahead
from el4ner.models.catalogue import CATALOGUE
from el4ner.models.locking import exclusive
from el4ner.models.prepare import prepare, prepared_folder
from el4ner.models.preparing_ahead import prepared_ahead

PACKAGED = "packaged:smollm2-135m-instruct"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What processes are started for; instead of each a program that ends at once."""
    sources: list[str] = []
    start = preparing_ahead._started

    def noted(source: str, folder: Path) -> object:
        sources.append(source)
        return start("packaged:nothing-of-the-kind", folder)

    monkeypatch.setattr(preparing_ahead, "_started", noted)
    monkeypatch.setattr(preparing_ahead.os, "sched_getaffinity", lambda _: {0, 1})
    return sources


def test_each_model_that_is_not_prepared_gets_a_process(started: list[str], tmp_path: Path) -> None:
    other = "packaged:gemma3-270m"
    with prepared_ahead([PACKAGED, other, PACKAGED], tmp_path):
        assert started == [PACKAGED, other]


def test_folders_hub_models_and_misspelt_names_get_none(started: list[str], tmp_path: Path) -> None:
    embedder = f"packaged:{next(name for name, model in CATALOGUE.items() if model.kind == 'folder')}"
    with prepared_ahead([str(tmp_path), "org/model", "packaged:no-such-model", embedder], tmp_path):
        assert not started
    with pytest.raises(ModelError, match="no-such-model"):
        prepare("packaged:no-such-model", tmp_path)


def test_one_processor_prepares_nothing_beside_its_work(
    started: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing_ahead.os, "sched_getaffinity", lambda _: {0})
    with prepared_ahead([PACKAGED], tmp_path):
        assert not started


def test_processes_are_ended_with_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = []
    start = preparing_ahead._started

    def noted(source: str, folder: Path) -> object:
        processes.append(start(source, folder))
        return processes[-1]

    monkeypatch.setattr(preparing_ahead, "_started", noted)
    monkeypatch.setattr(preparing_ahead.os, "sched_getaffinity", lambda _: {0, 1})
    with pytest.raises(KeyboardInterrupt), prepared_ahead([PACKAGED], tmp_path):
        raise KeyboardInterrupt
    assert [process.poll() is not None for process in processes] == [True]


def test_a_model_that_somebody_prepares_gets_no_second_process(started: list[str], tmp_path: Path) -> None:
    lock = prepared_folder(CATALOGUE["smollm2-135m-instruct"], tmp_path).with_suffix(".lock")
    with exclusive(lock), prepared_ahead([PACKAGED], tmp_path):
        assert not started
    with prepared_ahead([PACKAGED], tmp_path):
        assert started == [PACKAGED]
