"""Playing a scenario from beginning to end: heal, act, settle, stop, count, judge, and keep what explains a failure."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from el4ner.errors import El4nerError
from tests.chaos.clients import read_all
from tests.chaos.run import Check, LateError, Outcome, Run, Scenario, World
from tests.chaos.tally import Identity, Record, Tally, recovery_seconds
from workers.local.clients import connect
from workers.messages import json_schemas
from workers.topics import Topic, changelog_name

__all__ = ["folder_of", "play"]

log = logging.getLogger(__name__)

TRACED: Final = 20
"""So many lost or repeated documents are looked up in every topic."""


def folder_of(scenario: str, seed: int, build: Path) -> Path:
    """Where the logs of a scenario lie: the next seed does not take them away."""
    return build / f"{scenario}-{seed}"


def play(scenario: Scenario, world: World, *, seed: int, build: Path, keep: bool = False) -> tuple[Record, list[str]]:
    """The record, and what was wrong. Logs stay in ``build/<scenario>-<seed>`` if anything was, or with ``keep``."""
    folder = folder_of(scenario.name, seed, build)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    world.heal()
    check: Check | None = None
    # What is counted is what is there when everybody has stopped.
    with Run(scenario, world, seed, folder) as run:
        problems = run.problems
        begun = time.monotonic()
        try:
            check = scenario.act(run)
            acted = time.monotonic()
            run.settle()
            log.info("%s: played %.0f s, settled %.0f s", scenario.name, acted - begun, time.monotonic() - acted)
        except (LateError, El4nerError) as error:
            problems.append(f"after {time.monotonic() - begun:.0f} s: {error}")
        if not problems and (unclean := {name: status for name, status in run.fleet.close().items() if status != 0}):
            problems.append(f"workers that had nothing left to do did not stop in order: {unclean}")
        restarts = {place.name: place.exits for place in run.fleet.places if place.exits}
        (folder / "exits.json").write_bytes(orjson.dumps(restarts, option=orjson.OPT_INDENT_2))
    world.heal()
    outcome, counted = run.outcome()
    problems += _judge(run, outcome, counted)
    if check is not None:
        try:
            check(outcome)
        except AssertionError as error:
            problems.append(str(error))
    record = Record(
        scenario=scenario.name,
        documents_in=counted.documents_in,
        documents_out=counted.documents_out,
        lost=len(counted.lost),
        duplicated=counted.duplicated,
        recovery_seconds=_rounded(recovery_seconds(run.faults, run.watch.emitted)),
        seed=seed,
        status="failed" if problems else "ok",
    )
    if problems or keep:
        _trace(run, [*counted.lost, *counted.repeated][:TRACED])
        (folder / "problems.txt").write_text("".join(f"{problem}\n" for problem in problems))
        (folder / "timeline.txt").write_text(_timeline(run))
        for node in world.cluster.nodes:
            for file in world.cluster.logs(node):
                if file.exists():
                    shutil.copy(file, folder / f"broker-{node}-{file.name}")
    else:
        shutil.rmtree(folder)
    _remove_topics(run)
    return record, problems


def _timeline(run: Run) -> str:
    """Results a second and partition, with the faults among them."""
    begun = min([*run.faults, *(one.at for one in run.watch.emitted)], default=0.0)
    counts = Counter((int(one.at - begun), one.partition) for one in run.watch.emitted)
    faults = Counter(int(fault - begun) for fault in run.faults)
    partitions = sorted({partition for _, partition in counts})
    seconds = range(max([*faults, *(second for second, _ in counts)], default=-1) + 1)
    lines = ["second  " + "".join(f"{partition:>6}" for partition in partitions)]
    lines += [
        f"{second:>6}  "
        + "".join(f"{counts[second, partition] or '.':>6}" for partition in partitions)
        + "  fault" * faults[second]
        for second in seconds
    ]
    return "\n".join(lines) + "\n"


def _trace(run: Run, whose: Sequence[Identity]) -> None:
    """Where the messages about some documents lie, topic by topic: ``traces.json`` beside the logs."""
    names = {identity[0].encode(): identity[0] for identity in whose}
    traces: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in names.values()}
    topics = [
        *(run.stream.name(topic) for topic in (Topic.DOCUMENTS, Topic.SPAN_CANDIDATES, Topic.TYPED_ENTITIES)),
        *(run.stream.name(topic) for topic in (Topic.VALIDATION_VERDICTS, Topic.TAGGED_DOCUMENTS, Topic.DEAD_LETTERS)),
        changelog_name(run.stream.settings.kafka),
    ]
    for topic in topics if names else ():
        for record in read_all(run.bootstrap, topic, committed=False):
            if record.key in names:
                traces[names[record.key]].setdefault(topic, []).append(
                    {
                        "partition": record.partition,
                        "offset": record.offset,
                        "timestamp": record.timestamp,
                        "value": None if record.value is None else record.value.decode(errors="replace")[:2_000],
                    }
                )
    (run.folder / "traces.json").write_bytes(orjson.dumps(traces, option=orjson.OPT_INDENT_2))


def _judge(run: Run, outcome: Outcome, counted: Tally) -> list[str]:
    problems = []
    for what, found in (
        ("lost", counted.lost),
        ("came out more than once", tuple(counted.repeated)),
        ("came out and never went in", counted.strangers),
    ):
        if found:
            problems.append(f"{len(found)} documents {what}, such as {', '.join(map(str, found[:5]))}")
    values = {who: value for who, value in outcome.tagged.items() if value is not None and who not in run.undecided}
    statuses = Counter(value["status"] for value in values.values())
    if unexpected := {status: count for status, count in statuses.items() if status not in run.statuses}:
        who = next(value for value in values.values() if value["status"] in unexpected)
        problems.append(
            f"documents are {unexpected}, such as {who['id']} with {who['error']}, missing {who['missing']}"
        )
    for value in (value for value in outcome.tagged.values() if value is not None):
        try:
            json_schemas.validate(Topic.TAGGED_DOCUMENTS.value, value)
        except El4nerError as error:
            problems.append(f"{value.get('id')!r} is not as its schema says: {error}")
            break
        wrong = [one for one in value["entities"] if value["text"][one["start"] : one["end"]] != one["text"]]
        if wrong:
            problems.append(f"{value['id']!r} has an entity that is not in its text: {wrong[0]}")
            break
    return problems


def _remove_topics(run: Run) -> None:
    """Nobody reads them any more, and thirteen scenarios' partitions are a load for three small brokers."""
    with (
        contextlib.suppress(KafkaError),
        contextlib.closing(connect(KafkaAdminClient, bootstrap_servers=run.bootstrap)) as admin,
    ):
        admin.delete_topics([name for name in admin.list_topics() if name.startswith(run.stream.prefix)])


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
