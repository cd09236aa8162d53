"""Pools that are read when their first document comes: what is read, by whom, and that answers are the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from el4ner.config import Settings, load_settings
from el4ner.engines.base import StateRequest, StateResult
from el4ner.errors import DocumentError, EngineError, PoolReadingError
from el4ner.evidence.calibration import FOLDER
from el4ner.loader import pipeline_from
from el4ner.pipeline import Pipeline
from el4ner.pools import Pool
from el4ner.types import Document, TaggedDocument
from tests.support.doubles import ScriptedStateEngine, ToldProgress
from tests.unit.el4ner.evidence.test_prepared import NAMES, POOL, Member, sentence

TEXT = "Then Martha met Anna."
OTHER = replace(POOL, name="q", sentences=tuple(map(sentence, NAMES, NAMES[2:] + NAMES[:2])) + POOL.sentences[:8])


def settings(**method: Any) -> Settings:
    return load_settings(
        Settings,
        environ={},
        overrides={
            "ensemble": {"members": ["a", "b"], "proposer": "a"},
            "models": {name: {"source": "none"} for name in "ab"},
            "pools": {"default": "p", "paths": {"p": "none", "q": "none"}},
            "method": method,
        },
    )


def hosting(
    cache: Path,
    *engines: ScriptedStateEngine,
    pools: Mapping[str, Pool] | None = None,
    at_first_use: bool = True,
    progress: Any = None,
    **method: Any,
) -> Pipeline:
    members = {engine.name: engine for engine in engines}
    hosted = pools or {"p": POOL, "q": OTHER}
    return pipeline_from(
        settings(**method),
        members,
        hosted,
        None,
        cache_dir=cache,
        at_first_use=at_first_use,
        progress=progress or ToldProgress(),
    )


def members() -> tuple[Member, Member]:
    return Member("a"), Member("b")


def read_by(*engines: ScriptedStateEngine) -> int:
    """Tails that the engines were asked to read."""
    return sum(len(request.tails) for engine in engines for request in engine.shown)


def tagged(pipeline: Pipeline, *pools: str) -> list[TaggedDocument]:
    found = pipeline.tag([Document(str(number), TEXT, pool) for number, pool in enumerate(pools)])
    assert all(isinstance(each, TaggedDocument) for each in found)
    return found  # type: ignore[return-value]


def test_a_pool_is_read_when_its_first_document_comes_and_no_other_is(tmp_path: Path) -> None:
    progress, engines = ToldProgress(), members()
    pipeline = hosting(tmp_path, *engines, progress=progress)
    assert read_by(*engines) == 0
    assert pipeline.unread_pools == ["p", "q"]
    assert not pipeline.mixes
    tagged(pipeline, "q")
    assert pipeline.unread_pools == ["p"]
    assert list(pipeline.mixes) == ["q"]
    assert progress.labels
    assert all("pool q" in label for label in progress.labels)
    tagged(pipeline, "q", "p")
    assert pipeline.unread_pools == []


def test_pools_are_read_in_the_order_of_their_first_documents(tmp_path: Path) -> None:
    progress = ToldProgress()
    pipeline = hosting(tmp_path, *members(), progress=progress)
    pipeline.read_pools([Document(pool, TEXT, pool) for pool in ("q", "p", "q")])
    read = [label.partition("pool ")[2][:1] for label in progress.labels]
    assert list(dict.fromkeys(read)) == ["q", "p"]


def test_what_was_read_before_is_ready_at_once(tmp_path: Path) -> None:
    tagged(hosting(tmp_path, *members()), "q")
    engines = members()
    assert hosting(tmp_path, *engines).unread_pools == ["p"]
    assert read_by(*engines) == 0


def test_answers_and_who_gave_them_are_the_same_whenever_the_pool_was_read(tmp_path: Path) -> None:
    first = hosting(tmp_path / "first", *members(), at_first_use=False)
    later = hosting(tmp_path / "later", *members())
    assert first.unread_pools == []
    assert tagged(later, "q", "p", "q") == tagged(first, "q", "p", "q")
    for pool in ("p", "q"):
        for stage in ("extract", "classify", "validate"):
            assert later.manifest(stage, pool) == first.manifest(stage, pool)  # type: ignore[arg-type]
        assert later.calibration(pool) == first.calibration(pool)


def test_whoever_watches_a_call_hears_of_every_batch_that_is_read(tmp_path: Path) -> None:
    pipeline, heard = hosting(tmp_path, *members()), [0]

    def progressed() -> None:
        heard[0] += 1

    pipeline.report_progress(progressed)
    tagged(pipeline, "p")
    reading = heard[0]
    tagged(pipeline, "p")
    assert reading > heard[0] - reading + 2, "words and spans of the pool, a batch at a time"


def test_where_members_answer_in_context_pools_are_read_at_the_start(tmp_path: Path) -> None:
    pipeline = hosting(tmp_path, *members(), pools={"p": POOL}, evidence=["neighbours", "in_context"])
    assert pipeline.unread_pools == []


def test_of_an_edited_pool_only_what_the_edit_changed_is_read(tmp_path: Path) -> None:
    tagged(hosting(tmp_path, *members()), "p")
    new = sentence("Anna", "Greta")
    edited = replace(POOL, sentences=(*POOL.sentences[:-1], replace(new, text=new.text)))
    engines, all_of_it = members(), members()
    pools = {"p": edited}
    hosting(tmp_path, *engines, pools=pools, at_first_use=False)
    hosting(tmp_path / "empty", *all_of_it, pools=pools, at_first_use=False)
    read = {request.prompt.user for engine in engines for request in engine.shown}
    assert len(read) <= 2, "the new sentence, for its words and for its spans"
    assert all(new.text in user for user in read)
    assert read_by(*engines) * 8 < read_by(*all_of_it)


class Failing(Member):
    """It cannot read until it is mended."""

    error: Exception | None = None

    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:  # type: ignore[override]
        if self.error is not None:
            raise self.error
        return super().states(list(requests))


@pytest.mark.parametrize(
    "error",
    [EngineError("no memory"), DocumentError("it is too long"), OSError("no room"), KeyError(1)],
)
def test_a_pool_that_cannot_be_read_is_no_document_s_fault_and_is_tried_again(tmp_path: Path, error: Exception) -> None:
    engines = Failing("a"), Member("b")
    pipeline = hosting(tmp_path, *engines)
    engines[0].error = error
    for _ in range(2):
        with pytest.raises(PoolReadingError, match="pool 'q' cannot be read") as raised:
            pipeline.tag([Document("1", TEXT, "q")])
        assert raised.value.transient
        assert pipeline.unread_pools == ["p", "q"]
    engines[0].error = None
    pipeline.read_pools([Document("1", TEXT, "q"), Document("2", TEXT, "unknown")])
    assert pipeline.unread_pools == ["p"]
    assert tagged(pipeline, "q")


def test_waiting_for_another_process_that_reads_the_pool_counts_as_progress(tmp_path: Path) -> None:
    pipeline = hosting(tmp_path, *members())
    lock = FileLock(tmp_path / FOLDER / f"{POOL.fingerprint}.lock")
    lock.acquire()
    pipeline.report_progress(lock.release)
    tagged(pipeline, "p")


_KILLED = """
import os, signal, sys
from pathlib import Path
from tests.unit.el4ner.test_pools_at_first_use import Dying, hosting
from tests.unit.el4ner.evidence.test_prepared import Member, POOL
hosting(Path(sys.argv[1]), Dying("a"), Member("b"), pools={"p": POOL}, at_first_use=False)
"""


class Dying(Member):
    """Its process is killed when it is asked for spans: behind the words."""

    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:  # type: ignore[override]
        if not requests[0].middle_only:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().states(list(requests))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal")
def test_reading_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path)], cwd=Path(__file__).parents[3], check=False, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL
    engines = members()
    hosting(tmp_path, *engines, pools={"p": POOL}, at_first_use=False)
    assert not any(request.middle_only for request in engines[0].shown), "its words were read"
    assert read_by(*engines) > 0
