"""What may happen to brokers, and to the way there."""

from __future__ import annotations

from tests.chaos.proxy import Proxy
from tests.chaos.run import ONE_HOP, STAGES, Check, Run, documents
from workers.local.ports import LOOPBACK

__all__ = ["all_brokers", "broker_restart", "network_cut", "network_cut_closed"]

CUT_SECONDS = 30.0


def broker_restart(run: Run) -> Check | None:
    """The active controller is killed and restarted, then another broker, under load."""
    run.deploy()
    run.load(documents(run.random, 7_000), per_second=110)
    run.wait_tagged(200)
    controller = run.cluster.controller()
    others = [node for node in run.cluster.nodes if node != controller]
    for node in (controller, run.random.choice(others)):
        assert node is not None, "the cluster has no controller"
        run.pause(run.random.uniform(0.5, 2.0))
        run.fault()
        run.cluster.kill(node)
        run.pause(run.random.uniform(1.0, 4.0))
        run.world.start(node)
        # Not two at once: what is acknowledged by two may then be on none that runs.
        run.cluster.wait_in_sync()
    return None


def all_brokers(run: Run) -> Check | None:
    """All brokers are killed at once and restarted; later they are stopped in order and restarted."""
    run.deploy()
    run.load(documents(run.random, 7_000), per_second=100)
    run.wait_tagged(200)
    for how in (lambda: run.cluster.kill(*run.cluster.nodes), run.cluster.stop):
        run.pause(run.random.uniform(0.5, 2.0))
        run.fault()
        how()
        run.pause(run.random.uniform(0.5, 3.0))
        run.world.heal()
        run.wait_more(200)
    return None


def network_cut(run: Run) -> Check | None:
    """One of two aggregators and one of two stage workers are cut off for 30 s; what they sent arrives late. In one hop
    it is one of two workers."""
    return _cut(run, held=True)


def network_cut_closed(run: Run) -> Check | None:
    """As ``network-cut``, with connections that break and cannot be made."""
    return _cut(run, held=False)


def _cut(run: Run, *, held: bool) -> Check | None:
    ports, targets = run.cluster.detour_ports, run.cluster.detour_targets
    proxy: Proxy = run.keep(Proxy({ports[node]: targets[node] for node in run.cluster.nodes}))
    detour = {"EL4NER_KAFKA__BOOTSTRAP_SERVERS": ",".join(f"{LOOPBACK}:{port}" for port in ports.values())}
    cut_off = run.roles if run.roles == ONE_HOP else (run.random.choice(STAGES[:-1]), STAGES[-1])
    for role in run.roles:
        run.fleet.add(role)
    for role in cut_off:
        run.fleet.add(role, environ=detour)
    run.wait_ready()
    run.load(documents(run.random, 6_000), per_second=100)
    run.wait_tagged(300)
    run.pause(run.random.uniform(0.5, 2.0))
    run.fault()
    (proxy.hold if held else proxy.cut)()
    run.pause(CUT_SECONDS)
    (proxy.release if held else proxy.mend)()
    run.pause(5.0)
    return None
