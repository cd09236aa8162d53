"""``el4ner pool``: look at demonstration pools before they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from el4ner.errors import ConfigError, PoolError
from workers.cli.options import ConfigOption, OutputFormat, PoolErrorsOption, examples
from workers.cli.output import complain, results, table
from workers.cli.pool_exchange import export_pool, import_pool
from workers.cli.pool_queue import queue_pool
from workers.cli.pool_teach import add_example, log_examples, remove_example
from workers.cli.progress import TerminalProgress
from workers.cli.settings import configure_cli_logging, method_settings, work_offline_if_local
from workers.cli.standard_output import results_file

if TYPE_CHECKING:
    from el4ner.pools import Pool
    from el4ner.pools.check import PoolReport

__all__ = ["app"]

app = typer.Typer(
    name="pool",
    no_args_is_help=True,
    help="Demonstration pools: the labelled sentences that show the models what an entity is.",
    epilog=examples(
        "el4ner pool check news",
        "el4ner pool check my-pool/",
        "el4ner pool import project-7.json --from labelstudio --output pools/contracts",
        "el4ner pool export pools/contracts --to doccano --output contracts.jsonl",
        'el4ner pool add news --text "Shares of Jordan rose." --entity Jordan=organization',
        "el4ner pool log news",
        "el4ner pool queue news tagged.jsonl --limit 20",
        "el4ner pool index --config el4ner.toml",
    ),
)
app.command("import")(import_pool)
app.command("export")(export_pool)
app.command("queue")(queue_pool)
app.command("add")(add_example)
app.command("remove")(remove_example)
app.command("log")(log_examples)

_SHOWN = 50


@app.command("check")
def check(
    ctx: typer.Context,
    pools: Annotated[
        list[str], typer.Argument(metavar="NAME|PATH...", help="A shipped or configured name, a folder or a file.")
    ],
    *,
    on_error: PoolErrorsOption = None,
    output: Annotated[OutputFormat, typer.Option("--format", help="text, or JSON Lines.")] = OutputFormat.TEXT,
    config: ConfigOption = None,
) -> None:
    """Read pools, count what is in them, and report what is wrong or odd, by file and line. Exit code 1 for errors.

    A path is read as [pools] of the configuration says, and as the folder's pool.toml does.
    """
    from el4ner.pools import load_pool, reading_of
    from el4ner.pools.check import check_pool

    settings = method_settings(ctx, config).pools
    configure_cli_logging(ctx)
    reading = reading_of(settings)
    errors = 0
    for source in pools:
        try:
            path = settings.paths.get(source, source)
            report = check_pool(load_pool(path, reading=reading, on_error=None if on_error is None else on_error.value))
        except PoolError as error:
            errors += 1
            complain(str(error))
            continue
        errors += report.errors
        if output is OutputFormat.JSON:
            _show_json(report)
        else:
            _show(report)
    if errors:
        raise typer.Exit(1)


@app.command("index")
def index(
    ctx: typer.Context,
    pools: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME|PATH]...", help="(default: every pool of the configuration)")
    ] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Build it anew even if it is there.")] = False,
    config: ConfigOption = None,
) -> None:
    """Embed the pools' spans and sentences into their retrieval indexes, so that no worker has to; print the files."""
    settings = method_settings(ctx, config)
    retrieval = settings.retrieval
    if retrieval.kind not in ("span", "sentence"):
        raise ConfigError(f"retrieval.kind: {retrieval.kind!r} retrieval has no index")
    from el4ner.models.prepare import default_cache_dir, prepare
    from el4ner.participation import shows_demonstrations
    from el4ner.pools import load_pool, reading_of

    if not shows_demonstrations(settings):
        complain(
            "no prompt shows demonstrations by this configuration: no worker will read an index", severity="warning"
        )
    configured = settings.pools.paths
    reading = reading_of(settings.pools)
    loaded = [load_pool(configured.get(name, name), reading=reading) for name in pools or configured]
    configure_cli_logging(ctx)
    work_offline_if_local(settings)
    from el4ner.retrieval import PoolIndex, SentenceTransformerEmbedder

    folder = default_cache_dir()
    with TerminalProgress() as progress:
        embedder = SentenceTransformerEmbedder(prepare(retrieval.embedder, folder, progress))
        for pool in loaded:
            path = PoolIndex.path(pool, embedder, folder / "index")
            if force:
                path.unlink(missing_ok=True)
            progress.start(f"{pool.name}: index", 0 if path.exists() else _texts(pool))
            PoolIndex.open(pool, embedder, folder / "index", progress=progress.advance)
            progress.done()
            results().print(f"{pool.name}\t{path}")


def _texts(pool: Pool) -> int:
    """About how many texts are embedded: entity-free sentences have some phrases instead of spans."""
    sentences = len({sentence.text for sentence in pool.sentences})
    return sentences + len({span.text for sentence in pool.sentences for span, _ in sentence.spans})


def _show(report: PoolReport) -> None:
    console = results()
    share = report.entity_free / report.sentences
    console.print(
        f"{report.name} ({report.fingerprint}): {report.sentences} sentences, {report.entity_free} ({share:.0%}) "
        f"without entities, {sum(report.mentions.values())} mentions"
    )
    shown = table("type", "mentions", right={"mentions"})
    for label, count in report.mentions.items():
        shown.add_row(label, str(count))
    console.print(shown)
    if report.left_out:
        mistakes = [sentence for sentence in report.left_out if sentence.mistake]
        console.print(f"left out: {len(report.left_out)} sentences, {len(mistakes)} of them wrong")
        for sentence in report.left_out[:_SHOWN]:
            complain(f"{sentence.where}: left out: {sentence.reason}", severity="warning")
    for finding in report.findings[:_SHOWN]:
        complain(f"{finding.where}: {finding.message}", severity=finding.severity)
    if len(report.findings) > _SHOWN:
        complain(f"{len(report.findings) - _SHOWN} more; --format json shows them all", severity="warning")


def _show_json(report: PoolReport) -> None:
    from dataclasses import asdict

    from el4ner.serialize import dumps

    line: dict[str, Any] = {**asdict(report), "mentions": dict(report.mentions), "errors": report.errors}
    results_file().write(dumps(line).decode() + "\n")
