"""``el4ner eval``: how good the tags are on a labelled data set, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workers.cli.options import (
    ConfigOption,
    EnsembleOption,
    ModeOption,
    PoolErrorsOption,
    examples,
    json_file,
    refuse_unwritable,
)
from workers.cli.output import results, table, tell
from workers.cli.pool_sizes import measure, refuse_for_one_run, show
from workers.cli.progress import Counter, TerminalProgress
from workers.cli.settings import configure_cli_logging, method_settings, overrides_of, work_offline_if_local
from workers.cli.standard_output import results_file, writable

if TYPE_CHECKING:
    from el4ner.config import Settings
    from el4ner.evaluation import Dataset, EvaluationResult
    from el4ner.evaluation.sentence_records import SentenceRecord

__all__ = ["EXAMPLES", "evaluate"]

EXAMPLES = examples(
    "el4ner eval crossner/politics --limit 100 --seed 0",
    "el4ner eval wnut17 --mode paper --ensemble smollm2 --json paper.json",
    "el4ner eval wnut17 --compare paper.jsonl --report scored.html",
    "el4ner eval my-data --split dev -k 4 --retrieval sentence --json - | jq .f1",
    "el4ner eval my-data --pool-sizes 5,10,20,50,all --pool-seeds 5 --report curve.html",
)


class Retrieval(StrEnum):
    """How demonstrations are found."""

    SPAN = "span"
    SENTENCE = "sentence"
    RANDOM = "random"
    NONE = "none"


def evaluate(
    ctx: typer.Context,
    dataset: Annotated[
        Path, typer.Argument(help="A folder with train, dev and test files in CoNLL columns (BIO or BIOES).")
    ],
    *,
    limit: Annotated[int | None, typer.Option(min=1, help="Take that many sentences. (default: all)")] = None,
    seed: Annotated[int, typer.Option(help="Which ones: the same seed draws the same sentences.")] = 0,
    split: Annotated[str, typer.Option(help="The split that is tagged; demonstrations come from train.")] = "test",
    mode: ModeOption = None,
    ensemble: EnsembleOption = None,
    k: Annotated[int | None, typer.Option("--k", "-k", min=1, help="Demonstrations a sentence. (default: 5)")] = None,
    retrieval: Annotated[Retrieval | None, typer.Option(help="How they are found. (default: the file's)")] = None,
    on_error: PoolErrorsOption = None,
    batch: Annotated[int, typer.Option(min=1, help="Sentences that are tagged at a time.")] = 8,
    json: Annotated[
        str | None, typer.Option("--json", metavar="OUT", help="Write the figures there as JSON; - writes only that.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="Write all that is known about the run as a page; with --pool-sizes FILE.svg is the plot alone.",
        ),
    ] = None,
    records: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what became of each sentence, as JSON Lines.")
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The records of another run on the same sentences: is the difference chance?"
        ),
    ] = None,
    pool_sizes: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,…,all",
            help="How good are the tags with so many labelled sentences: one evaluation for each part of the pool.",
        ),
    ] = None,
    pool_seeds: Annotated[
        int, typer.Option(min=1, help="With --pool-sizes: how many parts of each size are drawn.")
    ] = 3,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what an earlier run has measured.")] = False,
    config: ConfigOption = None,
) -> None:
    """Tag a labelled data set and compare: strict micro precision, recall and F1, by type, and tokens and seconds.

    An entity is right when both of its boundaries and its type are. The data set's train split is the pool. Intervals
    are 95 % bootstrap intervals over sentences. What was measured is kept: the same command goes on where it was
    interrupted, and runs with equal settings share their sentences.
    """
    out = json_file(json)
    for option, file in (("--json", out), ("--report", report), ("--records", records)):
        refuse_unwritable(option, file)
    overrides = overrides_of(ensemble=ensemble, mode=mode)
    chosen = {"k": k, "kind": retrieval and retrieval.value}
    overrides["retrieval"] = {key: value for key, value in chosen.items() if value is not None}
    if on_error is not None:
        overrides["pools"] = {"on_error": on_error.value}
    settings = method_settings(ctx, config, overrides)
    configure_cli_logging(ctx)
    from el4ner.evaluation import compare_with, load_dataset
    from el4ner.pools import reading_of

    sizes = _sizes(pool_sizes, compare=compare, records=records)
    loaded = load_dataset(dataset, split=split, limit=limit, seed=seed, reading=reading_of(settings.pools))
    if sizes is not None:
        from el4ner.evaluation.pool_subsets import subsets_of

        subsets = subsets_of(loaded.pool, sizes, pool_seeds)
        curve = measure(_for_measuring(settings, dataset, loaded), loaded, subsets, batch, fresh=fresh)
        figures = {**curve.as_json(), "pool_seeds": pool_seeds, "seed": seed, "limit": limit}
        _say(json, out, figures, lambda: show(curve))
        if report is not None:
            from el4ner.evaluation.curve_report import write_curve_report

            write_curve_report(report, curve)
            tell(f"report written to {report}")
        return
    # Before any model is loaded: hours later would be late to learn that the file does not fit.
    other_run = None if compare is None else _other_run(compare, loaded)
    result = _run(_for_measuring(settings, dataset, loaded), loaded, batch, fresh=fresh)
    if compare is not None and other_run is not None:
        result = compare_with(result, other_run, name=str(compare))
    _say(json, out, {**result.as_json(), "seed": seed, "limit": limit}, lambda: _show(result))
    _write(result, report, records)


def _sizes(pool_sizes: str | None, **for_one_run: Path | None) -> tuple[int | None, ...] | None:
    """Of ``--pool-sizes``; None without it."""
    if pool_sizes is None:
        return None
    from el4ner.evaluation import EvaluationError
    from el4ner.evaluation.pool_subsets import read_sizes

    refuse_for_one_run(**for_one_run)
    try:
        return read_sizes(pool_sizes)
    except EvaluationError as error:
        raise typer.BadParameter(str(error), param_hint="--pool-sizes") from error


def _say(json: str | None, out: Path | None, figures: Mapping[str, Any], show: Callable[[], None]) -> None:
    """The figures where ``--json`` wants them, and the table where it does not take its place."""
    from el4ner.serialize import dumps

    if json == "-":
        results_file().write(dumps(figures).decode() + "\n")
    else:
        show()
    if out is not None:
        writable(out).write_bytes(dumps(figures) + b"\n")
        tell(f"figures written to {out}")


def _other_run(file: Path, dataset: Dataset) -> list[SentenceRecord]:
    from el4ner.evaluation import EvaluationError, read_records
    from el4ner.evaluation.pairing import check_same_sentences

    records = read_records(file)
    try:
        check_same_sentences(dataset.labelled(), [(record.text, record.gold) for record in records])
    except EvaluationError as error:
        raise EvaluationError(f"{file}: {error}") from error
    return records


def _write(result: EvaluationResult, report: Path | None, records: Path | None) -> None:
    from el4ner.evaluation import write_records
    from el4ner.evaluation.report import write_report

    if report is not None:
        write_report(report, result)
        tell(f"report written to {report}")
    if records is not None:
        write_records(records, result.records)
        tell(f"records written to {records}")


def _for_measuring(settings: Settings, folder: Path, dataset: Dataset) -> Settings:
    """With the train split as the only pool, and nothing taken over from sentences before: a figure must not depend on
    the order, nor on where an interrupted run went on."""
    # load_dataset has made sure that there is exactly one.
    train = next(file for file in sorted(folder.iterdir()) if file.stem == "train" and file.is_file())
    name = dataset.pool.name
    return settings.model_copy(
        update={
            "pools": settings.pools.model_copy(update={"default": name, "paths": {name: str(train)}}),
            "method": settings.method.model_copy(update={"repeats": "off"}),
        }
    )


def _run(settings: Settings, dataset: Dataset, batch: int, *, fresh: bool) -> EvaluationResult:
    work_offline_if_local(settings)
    from el4ner.evaluation import evaluate as run
    from el4ner.evaluation.store import FOLDER
    from el4ner.loader import load_pipeline
    from el4ner.models.prepare import default_cache_dir

    with TerminalProgress() as progress:
        pipeline = load_pipeline(settings, progress=progress)
    with pipeline, Counter(f"{dataset.name} {dataset.split}", len(dataset.sentences)) as counter:
        return run(
            dataset,
            pipeline,
            clock=time.perf_counter,
            batch_size=batch,
            progress=counter.advance,
            cache=default_cache_dir() / FOLDER,
            fresh=fresh,
        )


def _show(result: EvaluationResult) -> None:
    from el4ner.evaluation.terminal_report import after_table, before_table, interval

    console = results()
    for line in before_table(result):
        console.print(line)
    numbers = ("precision", "recall", "F1", "95 % interval", "entities")
    shown = table("", *numbers, right=numbers)
    rows = [
        ("all, strict", result.scores.strict, interval(result.intervals.f1)),
        ("all, boundaries only", result.scores.spans, ""),
        *(
            (label, scores, interval(result.type_intervals[label].f1))
            for label, scores in result.scores.per_type.items()
        ),
    ]
    for label, scores, ends in rows:
        shown.add_row(
            label, f"{scores.precision:.3f}", f"{scores.recall:.3f}", f"{scores.f1:.3f}", ends, str(scores.support)
        )
    console.print(shown)
    strict = result.intervals
    console.print(f"95 % intervals: precision {interval(strict.precision)}, recall {interval(strict.recall)}")
    for line in after_table(result):
        console.print(line)
