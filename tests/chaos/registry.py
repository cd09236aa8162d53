"""All scenarios by name, in the order in which the suite plays them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.chaos.run import ONE_HOP, Check, Run, Scenario
from tests.chaos.scenarios import brokers, cache, documents, messages, processes, readers, teaching, transactions

__all__ = ["SCENARIOS"]

_SESSION: Final = {"kafka": {"session_timeout_seconds": processes.SESSION_SECONDS}}


def _one_hop(
    name: str,
    act: Callable[[Run], Check | None],
    seconds: float,
    sections: Mapping[str, Mapping[str, Any]] | None = None,
) -> Scenario:
    """A scenario of ``el4ner worker pipeline``."""
    return Scenario(f"one-hop-{name}", act, seconds, {**_SESSION, **(sections or {})}, ONE_HOP)


SCENARIOS: Final[Mapping[str, Scenario]] = {
    scenario.name: scenario
    for scenario in (
        Scenario("kill-workers", processes.kill_workers, 420, _SESSION),
        Scenario("scale", processes.scale, 180, _SESSION),
        Scenario("paused-consumer", processes.paused_consumer, 210, _SESSION),
        Scenario("broker-restart", brokers.broker_restart, 210, _SESSION),
        Scenario("all-brokers", brokers.all_brokers, 240, _SESSION),
        Scenario("network-cut", brokers.network_cut, 210, _SESSION),
        Scenario("network-cut-closed", brokers.network_cut_closed, 210, _SESSION),
        Scenario("redis", cache.redis_away, 180, {**_SESSION, **cache.SECTIONS}),
        Scenario("redis-answers", cache.redis_away, 180, {**_SESSION, **cache.ANSWERS}),
        Scenario("broken-documents", documents.broken_documents, 150, {**_SESSION, **documents.BROKEN_SECTIONS}),
        Scenario("engine-faults", documents.engine_faults, 240, {**_SESSION, **documents.FAULT_SECTIONS}),
        Scenario("stage-messages", messages.stage_messages, 180, _SESSION),
        Scenario("transactional-producer", transactions.transactional_producer, 210, _SESSION),
        Scenario("disk-full", processes.disk_full, 180, _SESSION),
        Scenario("clock-jump", processes.clock_jump, 210, _SESSION),
        Scenario("rolling-upgrade", messages.rolling_upgrade, 240, _SESSION),
        _one_hop("kill-workers", processes.kill_workers, 420),
        _one_hop("scale", processes.scale, 180),
        _one_hop("paused-consumer", processes.paused_owner, 210),
        _one_hop("broker-restart", brokers.broker_restart, 210),
        _one_hop("all-brokers", brokers.all_brokers, 240),
        _one_hop("network-cut", brokers.network_cut, 210),
        _one_hop("network-cut-closed", brokers.network_cut_closed, 210),
        _one_hop("broken-documents", documents.broken_documents, 150, documents.BROKEN_SECTIONS),
        _one_hop("engine-faults", documents.engine_faults, 240, documents.FAULT_SECTIONS),
        _one_hop("transactional-producer", transactions.transactional_producer, 210),
        _one_hop("disk-full", processes.disk_full, 180),
        Scenario("teaching", teaching.teaching, 240, _SESSION),
        _one_hop("teaching", teaching.teaching, 240),
        Scenario("redaction", readers.redaction, 240, {**_SESSION, **readers.REDACTION_SECTIONS}, ONE_HOP),
        Scenario("entities", readers.entities, 240, {**_SESSION, **readers.ENTITIES_SECTIONS}, ONE_HOP),
        Scenario("both-topologies", processes.both_topologies, 240, _SESSION),
    )
}
