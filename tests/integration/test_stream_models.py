"""The stream with the real ensemble: what the demo shows, and killed in the middle."""

from __future__ import annotations

from importlib import resources

import orjson
import pytest

from tests.integration.stream_harness import STAGES, Stream, wait_until
from tests.integration.test_stream import assert_exact, lag

pytestmark = [
    pytest.mark.integration,
    pytest.mark.models,
    pytest.mark.slow,  # every time: the same with instant engines, and the demo with these
    pytest.mark.long,
    pytest.mark.timeout(1200),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]

DEFAULT = {"ensemble": {"preset": "default"}, "retrieval": {"kind": "span", "k": 2}, "worker": {"batch_documents": 4}}


@pytest.mark.parametrize("stream", [DEFAULT], indirect=True)
def test_kill_9_of_each_worker_over_the_real_ensemble(stream: Stream) -> None:
    """All of the shipped sample, through two real models in three processes, each of which is killed once."""
    lines = (resources.files("el4ner") / "samples" / "demo.jsonl").read_bytes().splitlines()
    sent = [orjson.loads(line) for line in lines]
    assert len(sent) >= 60
    stream.create_topics()
    running = {stage: stream.start(stage) for stage in STAGES}
    for worker in running.values():
        worker.wait_ready(timeout=500)  # the first time, a pool is read with every member
    stream.produce_documents(sent)
    for round_, stage in enumerate(STAGES):
        stream.wait_tagged(4 + 8 * round_, timeout=400)
        running[stage].kill()
        running[stage] = stream.start(stage)
    stream.wait_tagged(len(sent), timeout=600)
    wait_until(lambda: lag(stream) == 0, timeout=120, what="all committed")
    assert_exact(stream.tagged(), sent)
