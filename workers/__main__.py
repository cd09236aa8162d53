"""``python -m workers STAGE… [--config FILE]``: run stages, or ``all``, in this process, as ``el4ner worker`` does."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from el4ner.engines.torch.lean_transformers import leave_out_unused_parts
from el4ner.errors import El4nerError
from workers.config import load_stream_settings
from workers.exit_status import EXIT_FAILED, EXIT_USAGE
from workers.printable import escaped
from workers.roles import ROLES, STAGED_ROLES
from workers.run import WorkerCrashedError, run_workers
from workers.shutdown.watchdog import Watchdog
from workers.telemetry.logs import configure_logging


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 after a signal, 1 after a crash, 2 if it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m workers", description="Run stages of the stream.")
    parser.add_argument("stages", nargs="+", choices=[*ROLES, "all"], help="what to run")
    parser.add_argument("--config", type=Path, help="the configuration file (TOML)")
    options = parser.parse_args(arguments)
    stages = STAGED_ROLES if "all" in options.stages else tuple(options.stages)
    leave_out_unused_parts()
    try:
        settings = load_stream_settings(options.config)
        configure_logging(settings.worker)
        # The watchdog stays until the process has ended: something may hang at the interpreter's exit, too.
        run_workers(settings, stages, watchdog=Watchdog(), status_of=_status_of)
    except WorkerCrashedError as error:
        logging.getLogger(__name__).exception("the workers end", extra={"code": error.code})
        return _status_of(error)
    except El4nerError as error:
        sys.stderr.write(f"{escaped(str(error))}\n")
        return _status_of(error)
    return 0


def _status_of(error: BaseException) -> int:
    cannot_start = isinstance(error, El4nerError) and not isinstance(error, WorkerCrashedError)
    return EXIT_USAGE if cannot_start else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
