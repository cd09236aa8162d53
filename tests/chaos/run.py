"""One scenario being played: its topics, load, workers and faults, and the account that is given in the end."""

from __future__ import annotations

import contextlib
import math
import random
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import orjson
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from tests.chaos.clients import Feed, Message, Watch, emitted, ends, read_all
from tests.chaos.fleet import Fleet, Place
from tests.chaos.reaper import Reaper
from tests.chaos.tally import Identity, Tally, tally
from tests.integration.stream_harness import Stream
from tests.support.cluster import KafkaCluster
from workers.local.clients import connect
from workers.topics import Topic, app_id

__all__ = ["ONE_HOP", "STAGES", "LateError", "Outcome", "Run", "Scenario", "World", "document", "documents", "message"]

STAGES: Final = ("extract", "classify", "validate", "aggregate")
ONE_HOP: Final = ("pipeline",)
READERS: Final = ("redact", "entities")
"""Roles that read tagged documents."""
COUNTING_SECONDS: Final = 30.0
"""What is kept back for stopping, reading and counting, of a scenario's time."""

_FIRST = ("Zoë", "Ada", "𝔉red", "Mira", "Otto", "Ines", "Juan", "Kofi")
_LAST = ("Schröder", "Müller", "Okafor", "Ito", "García", "Novák", "Berg", "Singh")
_PLACE = ("Zürich", "York", "Łódź", "Lyon", "Accra", "Quito", "Oslo", "Lima")


class LateError(AssertionError):
    """Something did not happen in time; the message says what was waited for."""


@dataclass
class World:
    """What all scenarios share: the cluster, who ends it all if the suite is killed, and how slow the machine is: all
    time limits are for the reference machine (:mod:`tests.chaos.plan`) and are so many times longer here."""

    cluster: KafkaCluster
    reaper: Reaper
    slowness: float = 1.0

    def start(self, *nodes: int) -> None:
        """Start the brokers that do not run (all of them, or ``nodes``), so that the reaper knows them."""
        try:
            self.cluster.start(nodes or None)
        finally:
            for node in self.cluster.running:
                if (process := self.cluster.process(node)) is not None:
                    self.reaper.watch(process)

    def heal(self) -> None:
        """Whatever a scenario left behind: every broker runs and has everything."""
        self.start()
        self.cluster.wait_in_sync()


@dataclass(frozen=True)
class Outcome:
    """What can be read in the end. ``tagged``: values of tagged-documents by (id, revision), None for a deletion."""

    tagged: Mapping[Identity, Mapping[str, Any] | None]
    dead_letters: Sequence[Any]


Check = Callable[[Outcome], None]
"""Raises ``AssertionError`` for what must not be."""


@dataclass(frozen=True)
class Scenario:
    """``act`` does everything up to the point where nothing is broken any more; what it returns is checked then.

    ``seconds``: all of it has to be over by then. It is several times what it takes on the reference machine when that
    has nothing else to do. ``roles``: the workers of the topology that is broken.
    """

    name: str
    act: Callable[[Run], Check | None]
    seconds: float
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    roles: Sequence[str] = STAGES


class Run:
    """A context manager: at its end nothing of the scenario runs any more."""

    def __init__(self, scenario: Scenario, world: World, seed: int, folder: Path) -> None:
        self.scenario = scenario
        self.roles = scenario.roles
        self.world = world
        self.cluster = world.cluster
        self.random = random.Random(f"{scenario.name}:{seed}")
        self.folder = folder
        self.faults: list[float] = []
        self.problems: list[str] = []
        self.statuses: Collection[str] = ("complete",)
        """What a tagged document may be, unless the scenario's own check says otherwise."""
        self.undecided: set[Identity] = set()
        """Documents that may or may not have a result of the usual kind: the scenario's own check looks at them."""
        self._feeds: list[Feed] = []
        self._resources = contextlib.ExitStack()
        self._deadline = time.monotonic() + (scenario.seconds - COUNTING_SECONDS) * world.slowness
        sections = {name: dict(table) for name, table in scenario.sections.items()}
        sections["kafka"] = {"replication": len(world.cluster.nodes), **sections.get("kafka", {})}
        sections["redis"] = {"enabled": False, **sections.get("redis", {})}
        self.stream = Stream(
            self.cluster.bootstrap, "redis://127.0.0.1:1/0", f"c{uuid.uuid4().hex[:8]}.", folder, sections
        )
        self.bootstrap = self.cluster.bootstrap

    def __enter__(self) -> Self:
        self.stream.create_topics()
        self.fleet = Fleet(self.stream.config, self.folder, self.world.reaper)
        self.watch = Watch(self.bootstrap, self.stream.name(Topic.TAGGED_DOCUMENTS)).start()
        self._resources.callback(self.watch.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for feed in self._feeds:
                feed.close()
            # Before the rest: what a scenario has put between workers and brokers they need to stop in order.
            self.fleet.close()
        finally:
            self._resources.close()

    def keep(self, resource: Any) -> Any:
        """A context manager's resource, until the scenario ends."""
        return self._resources.enter_context(resource)

    # --- what a scenario does ---

    def deploy(self, **workers: int) -> list[Place]:
        """So many workers of each role (one each if nothing is said); returns when all are ready."""
        places = [self.fleet.add(role) for role in self.roles for _ in range(workers.get(role, 1) if workers else 1)]
        self.wait_ready()
        return places

    def load(self, messages: Iterable[Message], *, per_second: float) -> Feed:
        """Send documents from now on, beside everything else."""
        return self.attach(Feed(self.bootstrap, self.stream.name(Topic.DOCUMENTS), messages, per_second=per_second))

    def attach(self, feed: Feed) -> Feed:
        """Start a feed of the scenario's own; what it has sent is expected to come out."""
        self._feeds.append(feed.start())
        return feed

    def kill(self, stage: str) -> None:
        """``kill -9`` of a worker that runs the stage, whatever else it runs; it is started again."""
        self.fleet.kill(self.fleet.of(stage if stage in self.roles else self.roles[0])[0])

    def fault(self) -> None:
        """Now something is broken; recovery is measured from here."""
        self.faults.append(time.monotonic())

    def pause(self, seconds: float) -> None:
        """Let the world go on for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._look()
            time.sleep(min(0.05, max(0.0, end - time.monotonic())))

    def wait(self, condition: Callable[[], Any], what: str, *, seconds: float | None = None) -> None:
        """Until ``condition()``; fails after ``seconds``, or when the scenario's time is up."""
        end = self._deadline
        if seconds is not None:
            end = min(end, time.monotonic() + seconds * self.world.slowness)
        while not condition():
            if time.monotonic() > end:
                raise LateError(f"waited for {what}")
            self._look()
            time.sleep(0.05)

    def wait_ready(self, *, seconds: float = 90.0) -> None:
        """Until every worker has its partitions."""
        if not self.comes(lambda: all(place.ready for place in self.fleet), seconds=seconds):
            raise LateError(f"waited for {[place.name for place in self.fleet if not place.ready]} to be ready")

    def wait_tagged(self, count: int) -> None:
        """Until so many documents came out."""
        if not self.comes(lambda: len(self.watch.seen) >= count, seconds=math.inf):
            raise LateError(f"waited for {count} tagged documents; there are {len(self.watch.seen)}")

    def wait_more(self, count: int) -> None:
        """Until so many more documents came out."""
        self.wait_tagged(len(self.watch.seen) + count)

    def comes(self, condition: Callable[[], Any], *, seconds: float) -> bool:
        """Whether ``condition()`` holds within ``seconds``."""
        try:
            self.wait(condition, "", seconds=seconds)
        except LateError:
            return False
        return True

    def complain(self, problem: str) -> None:
        """Something is wrong that need not end the scenario."""
        self.problems.append(problem)

    def _look(self) -> None:
        for feed in self._feeds:
            if feed.failure is not None:
                raise LateError(f"the load could not be sent: {feed.failure!r}") from feed.failure

    # --- the account ---

    @property
    def sent(self) -> list[Identity]:
        """What went in."""
        return [identity for feed in self._feeds for identity in feed.sent]

    def settle(self) -> None:
        """Until everything that went in came out, and nobody has anything left to do."""
        self.wait(lambda: all(feed.done for feed in self._feeds), "all documents to be accepted by the brokers")
        self._look()
        expected = set(self.sent)

        def missing() -> set[Identity]:
            return expected - self.watch.seen

        try:
            self.wait(lambda: not missing(), "")
        except LateError:
            some = ", ".join(f"{name}/{revision}" for name, revision in sorted(missing())[:5])
            raise LateError(
                f"waited for the results of {len(missing())} of {len(expected)} documents, such as {some}; "
                f"what the groups have not committed: {self.behind() or 'nothing'}"
            ) from None
        # What a crash makes a stage repeat would show as a second result: it has to have run through.
        quiet = 0

        def idle() -> bool:
            nonlocal quiet
            quiet = quiet + 1 if not self.behind() else 0
            return quiet >= 2

        try:
            self.wait(idle, "")
        except LateError:
            raise LateError(f"waited for everything to be committed; not committed: {self.behind()}") from None
        # Whoever was restarted last may still be starting; a process is told to stop in order when it can.
        self.wait_ready()

    def behind(self) -> dict[str, int]:
        """Messages that a stage's group has not committed, of the topics that it commits anything of; by group."""
        found: dict[str, int] = {}
        first = {
            "extract": Topic.DOCUMENTS,
            "classify": Topic.SPAN_CANDIDATES,
            "validate": Topic.TYPED_ENTITIES,
            "aggregate": Topic.VALIDATION_VERDICTS,
        }
        if self.roles == ONE_HOP:
            # It reads in the group of extract, and nobody reads what else there is.
            first = {"extract": Topic.DOCUMENTS}
        first |= {reader: Topic.TAGGED_DOCUMENTS for reader in READERS if self.fleet.of(reader)}
        try:
            with contextlib.closing(connect(KafkaAdminClient, bootstrap_servers=self.bootstrap)) as admin:
                for stage, topic in first.items():
                    group = app_id(self.stream.settings.kafka, stage)
                    listed = admin.list_group_offsets({group: None})[group]
                    committed = {(tp.topic, tp.partition): max(0, offset.offset) for tp, offset in listed.items()}
                    names = {name for name, _ in committed} | {self.stream.name(topic)}
                    behind = sum(end - committed.get(place, 0) for place, end in ends(self.bootstrap, names).items())
                    if behind:
                        found[stage] = behind
        except KafkaError as error:
            return {f"unknown ({error})": 1}
        return found

    def outcome(self) -> tuple[Outcome, Tally]:
        """Everything that a new consumer reads, from the beginning."""
        records = read_all(self.bootstrap, self.stream.name(Topic.TAGGED_DOCUMENTS))
        identities = [emitted(record).document for record in records]
        values = [None if record.value is None else orjson.loads(record.value) for record in records]
        letters = read_all(self.bootstrap, self.stream.name(Topic.DEAD_LETTERS))
        return Outcome(dict(zip(identities, values, strict=True)), letters), tally(self.sent, identities)


def document(random_: random.Random, number: int, run: str = "d") -> dict[str, Any]:
    """A text with a few names, some of them behind astral characters."""
    text = (
        f"😀 {number}: {random_.choice(_FIRST)} {random_.choice(_LAST)} flew to {random_.choice(_PLACE)}"
        f" with {random_.choice(_FIRST)} {random_.choice(_LAST)}."
    )
    return {"id": f"{run}-{number}", "text": text, "metadata": {"number": number}}


def message(value: Mapping[str, Any], **options: Any) -> Message:
    """A document as a message."""
    return Message((value["id"], value.get("revision", 0)), value["id"].encode(), orjson.dumps(value), **options)


def documents(random_: random.Random, count: int, run: str = "d") -> Iterator[Message]:
    """Messages for :meth:`Run.load`."""
    return (message(document(random_, number, run)) for number in range(count))
