"""``python -m tests.integration.hanging_worker STAGE… --config FILE``: ``python -m workers`` with an engine that hangs.

Classification never comes back from a batch with a document whose text says HANG.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from el4ner.pipeline import Pipeline
from workers.__main__ import main


def _hang() -> None:
    classify = Pipeline.classify

    def hanging(self: Pipeline, batch: Any) -> Any:
        if any("HANG" in item.document.text for item in batch):
            threading.Event().wait()
        return classify(self, batch)

    Pipeline.classify = hanging  # type: ignore[method-assign]


if __name__ == "__main__":
    _hang()
    sys.exit(main())
