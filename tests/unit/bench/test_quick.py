"""The headline figures of bench/quick.py."""

import sys

from tests.support.paths import ROOT

sys.path.append(str(ROOT / "bench"))

from quick import stream_lines


def test_each_topology_stands_beside_the_bare_chain_of_as_many_hops() -> None:
    figures = {
        "method alone": {"documents_per_second": 800.0},
        "bare chain, four hops": {"documents_per_second": 6000.0, "p99_seconds": 0.5},
        "bare chain, one hop": {"documents_per_second": 9000.0, "p99_seconds": 0.1},
        "stages apart, 1 each": {"documents_per_second": 600.0, "p99_seconds": 1.25},
        "one hop, 1": {"documents_per_second": 900.0, "p99_seconds": 0.25},
    }
    apart, one_hop = (" ".join(line.split()) for line in stream_lines(figures))
    rest = "of the bare chain, p99 at half load"
    assert apart == f"documents a second 600 1/10.0 {rest} 1.25 s (stages apart, 1 each)"
    assert one_hop == f"documents a second 900 1/10.0 {rest} 0.25 s (one hop, 1)"
