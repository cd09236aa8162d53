"""``el4ner calibrate``: how a pool's evidence is weighed for an ensemble, and whether validation pays."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from el4ner.errors import ConfigError
from el4ner.types import Mode
from workers.cli.calibrate_text import show_calibration, show_trial
from workers.cli.options import ConfigOption, EnsembleOption, examples, json_file, refuse_unwritable
from workers.cli.output import complain, tell
from workers.cli.progress import TerminalProgress
from workers.cli.settings import (
    configure_cli_logging,
    method_settings,
    overrides_of,
    with_pools,
    work_offline_if_local,
)
from workers.cli.standard_output import results_file, writable

if TYPE_CHECKING:
    from el4ner.config import Settings
    from el4ner.evaluation.validation import Trial
    from el4ner.evidence import Evidence
    from el4ner.pipeline import Pipeline

__all__ = ["EXAMPLES", "calibrate"]

EXAMPLES = examples(
    "el4ner calibrate",
    "el4ner calibrate my-pool/ --validation",
    "el4ner calibrate news --config el4ner.toml --json - | jq '.pools[0].figures.f1'",
)


def calibrate(
    ctx: typer.Context,
    pools: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME|PATH]...", help="Pools. (default: every pool of the configuration)"),
    ] = None,
    *,
    ensemble: EnsembleOption = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Estimate again, even if what is stored is current.")] = False,
    validation: Annotated[
        bool, typer.Option("--validation", help="Also find out which kind of validation pays: minutes more.")
    ] = False,
    json: Annotated[
        str | None, typer.Option("--json", metavar="OUT", help="Write it there as JSON; - writes only that.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Read pools with every member, and estimate from the pools alone what each kind of evidence is worth.

    Each pool sentence is judged as if it were not in the pool. The result is a file that every command and worker uses;
    what needs it makes it too, so this is to look at it, to have it ready, or to make it anew. It is current until the
    pool, the models, the prompts or the kinds of evidence change.
    """
    out = json_file(json)
    refuse_unwritable("--json", out)
    settings = with_pools(method_settings(ctx, config, overrides_of(ensemble=ensemble)), pools or [])
    _refuse_what_has_no_weights(settings)
    configure_cli_logging(ctx)
    work_offline_if_local(settings)
    from el4ner.evidence.calibration import FOLDER, calibration_file
    from el4ner.loader import load_pipeline
    from el4ner.models.prepare import default_cache_dir
    from el4ner.serialize import dumps

    folder = default_cache_dir() / FOLDER
    before = _written(folder)
    calibrations = []
    with TerminalProgress() as progress:
        pipeline = load_pipeline(settings, progress=progress, calibrate_anew=fresh)
    with pipeline:
        for pool in settings.pools.paths:
            evidence = _evidence(pipeline, pool)
            file = calibration_file(folder, evidence.calibration.key)
            current = before.get(file) == _written(folder)[file]
            if json != "-":
                show_calibration(pool, evidence, file, current=current, adaptive=settings.method.adaptive)
            enough = evidence.calibration.figures is not None
            trial = _trial(pipeline, pool) if validation and enough else None
            if validation and not enough:
                complain(f"{pool}: the pool says too little to choose a kind of validation by", severity="warning")
            if json != "-" and trial is not None:
                show_trial(pool, trial)
            calibrations.append(_as_json(pipeline, pool, evidence, file, trial, current=current))
    if json == "-":
        results_file().write(dumps({"pools": calibrations}).decode() + "\n")
    if out is not None:
        writable(out).write_bytes(dumps({"pools": calibrations}) + b"\n")
        tell(f"calibration written to {out}")


def _refuse_what_has_no_weights(settings: Settings) -> None:
    method = settings.method
    why = None
    if method.mode is Mode.PAPER:
        why = "method.mode is paper, where members vote on types: only scored mode weighs evidence"
    elif not method.evidence:
        why = "method.evidence is empty: types go by the mean of the members' answers in context"
    elif method.weights == "even":
        why = "method.weights is even: all kinds of evidence count the same"
    if why is not None:
        raise ConfigError(f"there is nothing to calibrate: {why}")


def _evidence(pipeline: Pipeline, pool: str) -> Evidence:
    evidence = pipeline.evidence(pool)
    if evidence is None:
        raise ConfigError(
            f"there is nothing to calibrate: no member of the ensemble ({', '.join(pipeline.engines)}) shows its "
            "hidden states, so types go by the mean of the members' answers in context; add in_context to "
            "method.evidence to weigh these, or set method.encoder to embedder"
        )
    return evidence


def _trial(pipeline: Pipeline, pool: str) -> Trial | None:
    from el4ner.evaluation.validation import try_validation

    with TerminalProgress() as progress:
        return try_validation(pipeline, pool, clock=time.perf_counter, progress=progress)


def _written(folder: Path) -> dict[Path, int]:
    """When each calibration was written: one that is made anew is a new file of the same name."""
    return {file: file.stat().st_mtime_ns for file in folder.glob("calibration-*.json")}


def _as_json(
    pipeline: Pipeline, pool: str, evidence: Evidence, file: Path, trial: Trial | None, *, current: bool
) -> dict[str, Any]:
    calibration = evidence.calibration
    return {
        "pool": pool,
        "pool_fingerprint": pipeline.pools[pool].fingerprint,
        "file": str(file),
        "fingerprint": calibration.fingerprint,
        "from_file": current,
        **calibration.as_json(),
        # What each step's weights are of: a step has those of its own source and of the steps before.
        "features": [{"source": source.name, "kind": kind} for source in evidence.sources for kind in source.features],
        "validation": None if trial is None else trial.as_json(),
    }
