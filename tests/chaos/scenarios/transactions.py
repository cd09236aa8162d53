"""What a producer of documents may do that writes in transactions."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from kafka import KafkaProducer

from tests.chaos.clients import Feed, Message
from tests.chaos.reaper import ROOT
from tests.chaos.run import Check, Outcome, Run, document, message
from workers.local.clients import connect
from workers.topics import Topic

__all__ = ["transactional_producer"]

COUNT: Final = 4_000
PER_SECOND: Final = 90
MOST_IN_ONE: Final = 40
ABORTED_SHARE: Final = 0.3
TIMEOUT_MS: Final = 8_000
"""After which the brokers abort the transaction of a producer that is gone; they look every ten seconds."""

_LEAVES_IT_OPEN: Final = """
import sys, time
from kafka import KafkaProducer
bootstrap, topic, partitions, timeout = sys.argv[1:]
whose = {"transactional_id": f"{topic}-killed", "transaction_timeout_ms": int(timeout)}
producer = KafkaProducer(bootstrap_servers=bootstrap, **whose)
producer.init_transactions()
producer.begin_transaction()
for number in range(40):
    name = f"never-{number}"
    value = b'{"id": "%s", "text": "Ada Lovelace went to York."}' % name.encode()
    producer.send(topic, key=name.encode(), value=value, partition=number % int(partitions)).get(timeout=30)
print("open", flush=True)
time.sleep(600)
"""


class TransactionalFeed(Feed):
    """Sends messages in transactions of 1 to 40, and takes some of them back: those are no documents."""

    def __init__(self, *args: Any, random_: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.taken_back: set[str] = set()
        self._random = random_

    def _run(self) -> None:
        try:
            with contextlib.closing(
                connect(KafkaProducer, bootstrap_servers=self._bootstrap, transactional_id=f"{self._topic}-feed")
            ) as client:
                client.init_transactions()
                self._send(client)
        except BaseException as error:  # told to whoever waits for this thread
            self.failure = error

    def _send(self, client: Any) -> None:
        messages = iter(self._messages)
        begun = time.monotonic()
        number = 0
        while group := list(itertools.islice(messages, self._random.randint(1, MOST_IN_ONE))):
            aborted = self._random.random() < ABORTED_SHARE
            client.begin_transaction()
            for one in group:
                if self._stop.wait(max(0.0, begun + number * self._interval - time.monotonic())):
                    client.abort_transaction()
                    return
                number += 1
                client.send(self._topic, key=one.key, value=one.value)
            client.flush()
            if aborted:
                client.abort_transaction()
                self.taken_back.update(one.identity[0] for one in group if one.identity is not None)
            else:
                client.commit_transaction()
                self.sent += [one.identity for one in group if one.identity is not None]


def _leave_open(run: Run) -> None:
    """A producer is killed with its transaction open on every partition, which holds back all that comes after it."""
    arguments = [run.bootstrap, run.stream.name(Topic.DOCUMENTS), str(run.stream.settings.kafka.partitions)]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _LEAVES_IT_OPEN, *arguments, str(TIMEOUT_MS)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout as output:
        try:
            assert output.readline() == b"open\n", "the producer that is to be killed did not begin"
        finally:
            process.kill()
            process.wait()


def transactional_producer(run: Run) -> Check | None:
    """Documents in transactions, a third aborted, one left open by a producer that is killed; workers killed."""
    run.deploy()
    messages: Iterator[Message] = (message(document(run.random, number)) for number in range(COUNT))
    feed = TransactionalFeed(
        run.bootstrap, run.stream.name(Topic.DOCUMENTS), messages, per_second=PER_SECOND, random_=run.random
    )
    run.attach(feed)
    run.wait_tagged(200)
    # Killed while everything flows, and while nothing can be read on.
    run.fault()
    run.kill("extract")
    run.wait_more(200)
    run.fault()
    _leave_open(run)
    seen = len(run.watch.seen)
    run.pause(1.0)
    for stage in ("extract", "aggregate"):
        run.kill(stage)
    # When the brokers have aborted it, all that was held back comes.
    run.wait_tagged(seen + 300)
    run.fault()
    run.kill("validate")
    run.wait(lambda: feed.done, "all transactions to be over")
    run.pause(1.0)

    def check(outcome: Outcome) -> None:
        assert len(feed.taken_back) > 200, f"only {len(feed.taken_back)} documents were taken back"
        came = {name for name, _ in outcome.tagged}
        assert not (wrong := came & feed.taken_back), f"taken back and tagged all the same: {sorted(wrong)[:5]}"
        assert not (wrong := {name for name in came if name.startswith("never-")}), f"never committed: {sorted(wrong)}"

    return check
