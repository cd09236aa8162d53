"""Pools that are read when their first document comes: what is read, by whom, and that answers are the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from el4ner import loader, sliced_reading
from el4ner.config import Settings, load_settings
from el4ner.engines.base import StateRequest, StateResult
from el4ner.errors import DocumentError, EngineError, PoolReadingError
from el4ner.evidence.calibration import FOLDER
from el4ner.evidence.reading import ReadingStoppedError, at_once, slices
from el4ner.loader import pipeline_from
from el4ner.pipeline import Pipeline
from el4ner.pools import Pool
from el4ner.tagger import Tagger
from el4ner.types import Document, TaggedDocument
from tests.support.doubles import ScriptedStateEngine, ToldProgress
from tests.unit.el4ner.evidence.test_prepared import NAMES, POOL, Member, sentence

TEXT = "Then Martha met Anna."
OTHER = replace(POOL, name="q", sentences=tuple(map(sentence, NAMES, NAMES[2:] + NAMES[:2])) + POOL.sentences[:8])

LARGE = replace(
    POOL,
    name="q",
    sentences=tuple(
        sentence(name, f"{other}{number}a")
        for number in range(6)
        for name, other in zip(NAMES, NAMES[3:], strict=False)
    ),
)


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


def readers_have_ended() -> bool:
    """Whether no thread reads a pool. One that has given its last answer may take a moment to end."""
    readers = [thread for thread in threading.enumerate() if thread.name == "pool"]
    for reader in readers:
        reader.join(10.0)
    return not any(reader.is_alive() for reader in readers)


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

    error: BaseException | None = None

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


def read_beside(pipeline: Pipeline, pool: str, between: Callable[[int], None]) -> None:
    """As a thread of its own has it read: ``between`` is called before each slice, with the number of those before."""
    asked = [0]

    def call(function: Callable[[], Any], /) -> Any:
        between(asked[0])
        asked[0] += 1
        return function()

    assert pipeline.use_read(pool, pipeline.read_beside(pool, call))


def test_between_the_slices_of_a_pool_documents_of_others_are_tagged_and_nothing_differs(tmp_path: Path) -> None:
    at_once = hosting(tmp_path / "1", *members(), at_first_use=False)
    pipeline, answers = hosting(tmp_path / "2", *members()), list[TaggedDocument]()
    tagged(pipeline, "p")
    read_beside(pipeline, "q", lambda _: answers.extend(tagged(pipeline, "p")))
    assert len(answers) >= 3, "words, and spans for each member"
    (expected,) = tagged(at_once, "p")
    assert all(answer.entities == expected.entities for answer in answers)
    assert pipeline.unread_pools == []
    assert tagged(pipeline, "q") == tagged(at_once, "q")
    assert pipeline.calibration("q") == at_once.calibration("q")
    assert pipeline.manifest("classify", "q") == at_once.manifest("classify", "q")


def test_who_asks_for_the_pool_meanwhile_is_told_instead_of_waiting_for_himself(tmp_path: Path) -> None:
    pipeline = hosting(tmp_path, *members())

    def asks(_: int) -> None:
        with pytest.raises(PoolReadingError, match="pool 'q' is being read"):
            pipeline.tag([Document("1", TEXT, "q")])
        assert pipeline.known([Document("1", TEXT, "q")]) == [None]

    read_beside(pipeline, "q", asks)
    assert tagged(pipeline, "q")


def test_reading_that_is_stopped_between_two_slices_goes_on_where_it_was(tmp_path: Path) -> None:
    engines, all_at_once = members(), members()
    hosting(tmp_path / "1", *all_at_once, pools={"q": LARGE}, at_first_use=False)
    pipeline = hosting(tmp_path / "2", *engines, pools={"q": LARGE})

    def stops_at(number: int) -> Callable[[int], None]:
        def stop(before: int) -> None:
            if before == number:
                raise ReadingStoppedError

        return stop

    for number in (1, 2, 3):  # the first is words that were read, the second some that were not
        with pytest.raises(ReadingStoppedError):
            read_beside(pipeline, "q", stops_at(number))
        assert pipeline.unread_pools == ["q"]
    read_beside(pipeline, "q", lambda _: None)
    assert pipeline.unread_pools == []
    assert read_by(*engines) == read_by(*all_at_once), "no sentence was read twice"


def test_who_waits_for_another_process_hears_when_that_has_kept_something_last(tmp_path: Path) -> None:
    pipeline, told = hosting(tmp_path, *members(), pools={"q": LARGE}), list[float]()

    def stop(before: int) -> None:
        if before == 1:
            raise ReadingStoppedError

    def meanwhile(kept: float) -> None:
        told.append(kept)
        raise ReadingStoppedError

    (folder,) = {path.parent for path in tmp_path.rglob(f"{LARGE.fingerprint}.lock")}

    def wait() -> None:
        with FileLock(folder / f"{LARGE.fingerprint}.lock"), pytest.raises(ReadingStoppedError):
            pipeline.read_beside("q", at_once, meanwhile)

    wait()
    with pytest.raises(ReadingStoppedError):
        read_beside(pipeline, "q", stop)
    wait()
    assert told == [0.0, max(path.stat().st_mtime for path in folder.glob("states-*.sqlite"))]
    assert told[1] > 0


def test_a_slice_is_bounded_in_sentences_and_in_what_has_to_be_read() -> None:
    texts = ["a" * length for length in range(40, 0, -1)]
    small = list(slices(texts, [1] * 40))
    assert [len(batch) for batch in small] == [16, 16, 8]
    assert sorted(place for batch in small for place in batch) == list(range(40))
    assert small[0] == list(range(39, 23, -1)), "the shortest first"
    assert [len(batch) for batch in slices(texts[:5], [9_000, 9_000, 20_000, 7_000, 9_000])] == [2, 1, 1, 1]
    assert list(slices([], [])) == []


class Watched(Member):
    """It notes who asks it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.threads: set[threading.Thread] = set()

    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:  # type: ignore[override]
        self.threads.add(threading.current_thread())
        return super().states(list(requests))


def test_a_program_with_one_thread_tags_documents_between_the_slices_of_a_pool(tmp_path: Path) -> None:
    at_once = Tagger(hosting(tmp_path / "1", *members(), at_first_use=False))
    engines = Watched("a"), Watched("b")
    tagger = Tagger(hosting(tmp_path / "2", *engines))
    (expected,) = at_once.tag([Document("1", TEXT, "p")])
    steps = 0
    for name in tagger.read_pools("p"):
        assert name == "p"
    for name in tagger.read_pools():
        assert name == "q"
        assert [*tagger.tag([Document("1", TEXT, "p")])] == [expected]
        steps += 1
    assert steps > 3
    assert {thread for engine in engines for thread in engine.threads} == {threading.current_thread()}
    assert tagger.unread_pools == []
    assert [*tagger.tag([Document("1", TEXT, "q")])] == [*at_once.tag([Document("1", TEXT, "q")])]


def test_a_document_of_the_pool_that_is_being_read_takes_the_steps_that_are_left(tmp_path: Path) -> None:
    tagger = Tagger(hosting(tmp_path, *members()))
    reading = tagger.read_pools("q", "p")
    assert next(reading) == "q"
    assert [*tagger.tag([Document("1", TEXT, "q")])]
    assert tagger.unread_pools == ["p"]
    assert next(reading) == "p"
    assert [*tagger.tag([Document("1", TEXT, "p")])]
    assert list(reading) == []


def test_reading_that_nobody_goes_on_with_is_kept_and_ends(tmp_path: Path) -> None:
    engines, all_at_once = members(), members()
    hosting(tmp_path / "1", *all_at_once, pools={"q": LARGE}, at_first_use=False)
    tagger = Tagger(hosting(tmp_path / "2", *engines, pools={"q": LARGE}))
    for _ in range(2):
        next(tagger.read_pools("q"))
    assert set(tagger.read_pools()) == {"q"}
    assert tagger.unread_pools == []
    assert read_by(*engines) == read_by(*all_at_once)
    with Tagger(hosting(tmp_path / "3", *members())) as left:
        next(left.read_pools())
    assert readers_have_ended()


def test_who_interrupts_a_slice_may_read_the_pool_again(tmp_path: Path) -> None:
    engines = Failing("a"), Member("b")
    tagger = Tagger(hosting(tmp_path, *engines))
    engines[0].error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        list(tagger.read_pools("q"))
    assert not tagger.pipeline.pools_read_beside
    assert readers_have_ended()
    engines[0].error = None
    assert set(tagger.read_pools("q")) == {"q"}


@pytest.mark.parametrize("begun", [True, False])
def test_an_interruption_while_the_reader_is_started_leaves_no_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    class Interrupted(threading.Thread):
        def start(self) -> None:
            if begun:
                super().start()
            raise KeyboardInterrupt

    with Tagger(hosting(tmp_path, *members(), pools={"q": LARGE})) as tagger:
        with monkeypatch.context() as patched:
            patched.setattr(sliced_reading.threading, "Thread", Interrupted)
            with pytest.raises(KeyboardInterrupt):
                next(tagger.read_pools("q"))
        assert not tagger.pipeline.pools_read_beside
        assert set(tagger.read_pools("q")) == {"q"}


def test_who_takes_no_further_step_waits_for_no_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Tagger(hosting(tmp_path, *members(), pools={"q": LARGE})) as tagger:
        (lock,) = tmp_path.rglob(f"{LARGE.fingerprint}.lock")
        with FileLock(lock):
            reading = tagger.read_pools("q")
            came = threading.Event()

            def interrupted(*_: Any) -> None:
                came.set()
                raise KeyboardInterrupt

            # Again until it comes: Python forgets a signal that arrives just before a lock is waited for.
            def interrupt(_: Path) -> float:
                if not came.is_set():
                    signal.pthread_kill(main_thread, signal.SIGINT)
                return 0.0

            main_thread = threading.get_ident()
            monkeypatch.setattr(loader, "last_kept", interrupt)
            before = signal.signal(signal.SIGINT, interrupted)
            try:
                with pytest.raises(KeyboardInterrupt):
                    next(reading)
            finally:
                signal.signal(signal.SIGINT, before)
            assert not tagger.pipeline.pools_read_beside
        assert set(tagger.read_pools()) == {"q"}


def test_what_a_member_raises_reaches_who_takes_the_steps(tmp_path: Path) -> None:
    engines = Failing("a"), Member("b")
    tagger = Tagger(hosting(tmp_path, *engines))
    engines[0].error = EngineError("no memory")
    with pytest.raises(PoolReadingError, match="no memory"):
        list(tagger.read_pools("q"))
    engines[0].error = None
    assert set(tagger.read_pools("q")) == {"q"}
