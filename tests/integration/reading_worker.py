"""``python -m tests.integration.reading_worker STAGE… --config FILE``: ``python -m workers`` with members that show
states without a model, and a pool ``large`` whose reading waits.

Behind three slices of it there is a file ``WAITS``, and the fourth is read when the file ``RELEASED`` is there; what
members were shown is in the file ``SHOWN``, a line each. All are named by environment variables.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from el4ner import loader
from el4ner.engines.base import StateRequest, StateResult
from tests.unit.el4ner.evidence.test_prepared import Member
from workers.__main__ import main
from workers.stages.pool_reader import PoolReader

FREE = 3


class ShownMember(Member):
    """Writes down what it is shown."""

    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:  # type: ignore[override]
        results = super().states(list(requests))
        with Path(os.environ["SHOWN"]).open("a", encoding="utf-8") as out:
            for request in requests:
                text = request.prompt.user.strip().splitlines()[-1]
                out.write(f"{self.name} {request.middle_only} {len(request.tails)} {text}\n")
        return results


def _wait() -> None:
    call, slices = PoolReader._call, [0]

    def waiting(self: PoolReader, function: Callable[[], Any], /) -> Any:
        if self.reading == "large":
            slices[0] += 1
            if slices[0] > FREE:
                Path(os.environ["WAITS"]).touch()
                while not Path(os.environ["RELEASED"]).exists():
                    threading.Event().wait(0.05)
        return call(self, function)

    PoolReader._call = waiting  # type: ignore[method-assign]


if __name__ == "__main__":
    loader.prepared_ahead = lambda *_: contextlib.nullcontext()  # type: ignore[assignment]
    loader.load_engine = lambda name, *_, **__: ShownMember(name)  # type: ignore[assignment]
    _wait()
    sys.exit(main())
