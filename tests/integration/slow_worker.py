"""``python -m tests.integration.slow_worker STAGE… --config FILE``: ``python -m workers`` with a model that waits.

A batch with a document whose text says SLOWLY is answered when the file ``RELEASED`` is there; while it waits, there is
a file ``WAITS``. Both are named by environment variables.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

from el4ner.pipeline import Pipeline
from workers.__main__ import main


def _wait() -> None:
    tag = Pipeline.tag

    def waiting(self: Pipeline, batch: Any) -> Any:
        if any("SLOWLY" in document.text for document in batch):
            Path(os.environ["WAITS"]).touch()
            while not Path(os.environ["RELEASED"]).exists():
                threading.Event().wait(0.05)
        return tag(self, batch)

    Pipeline.tag = waiting  # type: ignore[method-assign]


if __name__ == "__main__":
    _wait()
    sys.exit(main())
