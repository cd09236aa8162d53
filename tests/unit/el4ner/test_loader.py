"""Loading an ensemble of which a process has only some members: who is loaded, when, and what for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from el4ner import loader
from el4ner.config import Settings, load_settings
from el4ner.loader import load_members
from el4ner.pools import Pool
from el4ner.types import DocumentAnswers
from tests.support.doubles import ScriptedStateEngine
from tests.unit.el4ner.stages.test_pool_evidence import DOCUMENT, pool
from tests.unit.el4ner.stages.test_proposed_boundaries import LINES, sees_names


class Watched(ScriptedStateEngine):
    """Says in a diary when it is loaded, first read with, and closed."""

    def __init__(self, name: str, diary: list[str]) -> None:
        super().__init__(name, show=sees_names().show)
        self.diary = diary
        diary.append(f"{name} loaded")

    def states(self, requests: Any) -> Any:
        if self.diary[-1] != f"{self.name} reads":
            self.diary.append(f"{self.name} reads")
        return super().states(requests)

    def close(self) -> None:
        self.diary.append(f"{self.name} closed")


def settings(**method: Any) -> Settings:
    return load_settings(
        Settings,
        environ={},
        overrides={
            "ensemble": {"members": ["a", "b"]},
            "models": {name: {"source": "none", "engine": "transformers"} for name in "ab"},
            "pools": {"default": "p", "paths": {"p": "none"}},
            "retrieval": {"kind": "random"},
            "method": {"repeats": "off", **method},
        },
    )


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of engines that are watched; the pool is a small one."""
    written: list[str] = []
    hosts(monkeypatch, pool())
    monkeypatch.setattr(loader, "place", lambda wanted, **_: wanted)
    monkeypatch.setattr(loader, "load_engine", lambda name, *_, **__: Watched(name, written))
    return written


def hosts(monkeypatch: pytest.MonkeyPatch, hosted: Pool) -> None:
    pools: Mapping[str, Pool] = {"p": hosted}
    monkeypatch.setattr(loader, "load_pools", lambda _: pools)


def test_who_reads_boundaries_elsewhere_is_here_for_the_pool_alone_and_gone_before_the_others_come(
    diary: list[str], tmp_path: Path
) -> None:
    with load_members(settings(), ["a"], stages=["classify"], cache_dir=tmp_path) as members:
        assert list(members.engines) == ["a"]
        assert diary == ["b loaded", "b reads", "b closed", "a loaded", "a reads"]
    assert diary[-1] == "a closed"
    diary.clear()
    with load_members(settings(), ["a"], stages=["classify"], cache_dir=tmp_path):
        assert diary == ["b loaded", "b closed", "a loaded"], "what was read is on disk"


def test_whoever_hosts_the_reader_of_boundaries_loads_it_once(diary: list[str], tmp_path: Path) -> None:
    with load_members(settings(), ["b"], stages=["extract", "classify"], cache_dir=tmp_path) as members:
        assert diary == ["b loaded", "b reads"]
        (found,) = members.extract([DOCUMENT])
        (said,) = members.answer([found])  # type: ignore[list-item]
        assert isinstance(said, DocumentAnswers)
        assert [speaker.name for speaker in said.speakers] == ["boundaries", "b"]


@pytest.mark.parametrize("method", [{"proposals": ["chunks", "lexicon"]}, {"evidence": []}, {"mode": "paper"}], ids=str)
def test_nobody_is_loaded_whom_nothing_needs(diary: list[str], tmp_path: Path, method: dict[str, Any]) -> None:
    with load_members(settings(**method), ["a"], stages=["classify"], cache_dir=tmp_path):
        assert "b loaded" not in diary


def test_for_log_lines_nobody_reads_boundaries(
    diary: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts(monkeypatch, LINES)
    with load_members(settings(), ["a"], stages=["classify"], cache_dir=tmp_path):
        assert "b loaded" not in diary


def test_where_the_pool_cannot_be_read_the_reader_is_closed(
    diary: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise OSError("the disk is full")

    monkeypatch.setattr(loader, "make_proposers", broken)
    with pytest.raises(OSError, match="disk is full"):
        load_members(settings(), ["a"], stages=["classify"], cache_dir=tmp_path)
    assert diary == ["b loaded", "b closed"]
