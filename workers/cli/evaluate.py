"""``el4ner eval``: how good the tags are on a labelled data set, and what they cost."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workers.cli.options import ConfigOption, EnsembleOption, ModeOption, examples
from workers.cli.output import results, table, tell
from workers.cli.progress import Counter, TerminalProgress
from workers.cli.settings import configure_cli_logging, method_settings, overrides_of, work_offline_if_local

if TYPE_CHECKING:
    from el4ner.config import Settings
    from el4ner.evaluation import Dataset, EvaluationResult

__all__ = ["EXAMPLES", "evaluate"]

EXAMPLES = examples(
    "el4ner eval crossner/politics --limit 100 --seed 0",
    "el4ner eval wnut17 --mode paper --ensemble smollm2 --json paper.json",
    "el4ner eval my-data --split dev -k 4 --retrieval sentence --json - | jq .f1",
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
    batch: Annotated[int, typer.Option(min=1, help="Sentences that are tagged at a time.")] = 8,
    json: Annotated[
        str | None, typer.Option("--json", metavar="OUT", help="Write the figures there as JSON; - writes only that.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Tag a labelled data set and compare: strict micro precision, recall and F1, by type, and tokens and seconds.

    An entity is right when both of its boundaries and its type are. The data set's train split is the pool.
    """
    out = None if json in (None, "-") else Path(str(json))
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise typer.BadParameter(f"{out}: cannot be written", param_hint="--json")
    overrides = overrides_of(ensemble=ensemble, mode=mode)
    chosen = {"k": k, "kind": retrieval and retrieval.value}
    overrides["retrieval"] = {key: value for key, value in chosen.items() if value is not None}
    settings = method_settings(ctx, config, overrides)
    from el4ner.evaluation import load_dataset

    loaded = load_dataset(dataset, split=split, limit=limit, seed=seed)
    result = _run(ctx, _with_train_as_pool(settings, dataset, loaded), loaded, batch)
    figures = {**result.as_json(), "seed": seed, "limit": limit}
    from el4ner.serialize import dumps

    if json == "-":
        sys.stdout.write(dumps(figures).decode() + "\n")
        return
    _show(result, loaded)
    if out is not None:
        out.write_bytes(dumps(figures) + b"\n")
        tell(f"figures written to {out}")


def _with_train_as_pool(settings: Settings, folder: Path, dataset: Dataset) -> Settings:
    from el4ner.config import PoolsSettings

    # load_dataset has made sure that there is exactly one.
    train = next(file for file in sorted(folder.iterdir()) if file.stem == "train" and file.is_file())
    name = dataset.pool.name
    return settings.model_copy(update={"pools": PoolsSettings(default=name, paths={name: str(train)})})


def _run(ctx: typer.Context, settings: Settings, dataset: Dataset, batch: int) -> EvaluationResult:
    configure_cli_logging(ctx)
    work_offline_if_local(settings)
    from el4ner.evaluation import evaluate as run
    from el4ner.pipeline import Pipeline

    with TerminalProgress() as progress:
        pipeline = Pipeline.from_settings(settings, progress=progress)
    with pipeline, Counter(f"{dataset.name} {dataset.split}", len(dataset.sentences)) as counter:
        return run(dataset, pipeline, clock=time.perf_counter, batch_size=batch, progress=counter.advance)


def _show(result: EvaluationResult, dataset: Dataset) -> None:
    figures: dict[str, Any] = result.as_json()
    console = results()
    settings, retrieval = result.settings, result.settings["retrieval"]
    console.print(
        f"{dataset.name} {dataset.split}: {result.sentences} sentences, {settings['method']['mode']} mode, "
        f"{' + '.join(settings['ensemble']['members'])}, {retrieval['kind']} retrieval, k = {retrieval['k']}"
    )
    figures_of = ("precision", "recall", "F1", "entities")
    shown = table("", *figures_of, right=figures_of)
    rows = [("all, strict", result.scores.strict), ("all, boundaries only", result.scores.spans)]
    for label, scores in [*rows, *result.scores.per_type.items()]:
        shown.add_row(label, f"{scores.precision:.3f}", f"{scores.recall:.3f}", f"{scores.f1:.3f}", str(scores.support))
    console.print(shown)
    console.print(f"candidate recall {result.candidate_recall:.3f}: gold entities whose boundaries were considered")
    stages = ", ".join(f"{stage} {seconds / result.sentences:.3f}" for stage, seconds in result.seconds.items())
    console.print(f"{figures['seconds_per_sentence']:.3f} seconds a sentence ({stages})")
    console.print(
        f"{figures['tokens_per_sentence']:.0f} tokens a sentence, of which {figures['cached_tokens_per_sentence']:.0f} "
        f"from the prefix cache and {figures['new_tokens_per_sentence']:.0f} generated"
    )
