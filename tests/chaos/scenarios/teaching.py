"""What may happen to workers while their pools are taught."""

from __future__ import annotations

import contextlib

import orjson

from el4ner.pools import load_pools
from el4ner.pools.examples import PoolExample
from el4ner.pools.taught import taught_pool
from el4ner.types import Span
from tests.chaos.fleet import Place
from tests.chaos.run import Check, Run, documents
from workers.messages.pool_examples import ExampleKey
from workers.roles import stages_of
from workers.teaching.topic_examples import send_examples

__all__ = ["teaching"]

ROUNDS = 12


def teaching(run: Run) -> Check | None:
    """Workers are killed and added while examples are taught and withdrawn: all end on one pool, and none is lost."""
    settings = run.stream.settings
    name = settings.pools.default
    base = load_pools(settings.pools)[name]
    taught: dict[ExampleKey, PoolExample] = {}
    run.deploy()
    run.load(documents(run.random, 5_000), per_second=100)
    run.wait_tagged(200)
    for number in range(ROUNDS):
        new = {ExampleKey(name, each.digest): each for each in (_example(f"Zork{number}{part}witz") for part in "abc")}
        gone = run.random.sample(sorted(taught, key=str), min(len(taught), run.random.randint(0, 2)))
        if run.random.random() < 0.7:
            victims = [place for role in run.roles for place in run.fleet.of(role) if place.alive]
            run.fault()
            run.fleet.kill(run.random.choice(victims))
        else:
            run.fleet.add(run.random.choice(run.roles))
        send_examples(settings.kafka, [*new.items(), *((key, None) for key in gone)])
        taught = {key: example for key, example in (taught | new).items() if key not in gone}
        run.pause(run.random.uniform(0.2, 2.0))
    expected = taught_pool(base, taught.values()).pool.fingerprint

    def go_by_it() -> bool:
        places = [place for role in run.roles for place in run.fleet.of(role) if stages_of([role])]
        return all(place.ready and _taught(place) == expected for place in places)

    run.wait_ready()
    run.wait(go_by_it, "all workers to go by what was taught", seconds=60)
    return None


def _example(surface: str) -> PoolExample:
    return PoolExample(f"{surface} spoke to them.", ((Span(0, len(surface), surface), "person"),), {}, "chaos", 1)


def _taught(place: Place) -> str | None:
    """The pool's fingerprint as the worker said last."""
    fingerprint = None
    for line in place.log.read_bytes().splitlines():
        if b"the pool is taught" in line:
            with contextlib.suppress(orjson.JSONDecodeError):
                fingerprint = orjson.loads(line)["fingerprint"]
    return fingerprint
