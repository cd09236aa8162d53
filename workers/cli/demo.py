"""``el4ner demo``: the whole stream on this machine, from services to summary."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workers.cli.demo_page import again
from workers.cli.demo_process import DemoError
from workers.cli.demo_stack import Stack, running_stack
from workers.cli.models import sources_of
from workers.cli.options import ConfigOption, EnsembleOption, examples
from workers.cli.output import complain, results, table, tell
from workers.cli.progress import TerminalProgress
from workers.cli.settings import configure_cli_logging, overrides_of, stream_settings
from workers.cli.standard_output import results_file
from workers.cli.tail import show_tagged
from workers.roles import PIPELINE

if TYPE_CHECKING:
    from workers.config import StreamSettings
    from workers.inputs.documents import NewDocument

__all__ = ["EXAMPLES", "demo"]

EXAMPLES = examples(
    "el4ner demo",
    "el4ner demo --limit 10 --ensemble smollm2",
    "el4ner demo --documents my.jsonl",
    "el4ner demo --one-hop",
    "el4ner demo --ui",
    "KAFKA_BOOTSTRAP_SERVERS=broker:9092 REDIS_URL=redis://cache:6379/0 el4ner demo",
)


def demo(
    ctx: typer.Context,
    *,
    documents: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="JSON Lines, CSV or text. (default: the news and logs that ship with el4ner)"
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N documents.")] = None,
    ensemble: EnsembleOption = None,
    k: Annotated[
        int,
        typer.Option("--k", "-k", min=1, help="Examples that the models see with a sentence, where prompts show any."),
    ] = 3,
    patience: Annotated[
        float, typer.Option(min=1, metavar="S", help="Give up when no document has come out for S seconds.")
    ] = 300.0,
    one_hop: Annotated[
        bool,
        typer.Option("--one-hop", help="As `el4ner worker pipeline` does it: without the stages' topics in between."),
    ] = False,
    ui: Annotated[
        bool,
        typer.Option("--ui", help="Show it in a browser (`el4ner ui`), and go on with the same texts until Ctrl-C."),
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder with the logs and Kafka's data.")] = False,
    config: ConfigOption = None,
) -> None:
    """Stream a sample of news and log lines through Kafka and real models on this machine, and watch what comes out.

    Prepares the models (the first time), starts Kafka and a Redis-compatible cache, creates topics of its own, starts
    the workers, sends the documents, shows each as it comes out, sums up, and stops everything that it started.
    KAFKA_BOOTSTRAP_SERVERS and REDIS_URL, where set, are used instead, and the demo's topics are deleted at the end.

    All four stages run in one process of their own, which loads each model once: on a small machine a process per stage
    would load them three times over and compete for the same cores. In production they scale apart: `el4ner worker`.
    With --one-hop that process is `el4ner worker pipeline`: a document's outcome is one hop and one transaction away.
    With --ui the page says where it is. Correct an entity there: when its text comes again, it is right.

    Exit code 1 if a document is missing, came out twice, or could not be tagged.
    """
    began = time.monotonic()
    settings = stream_settings(ctx, config, {**overrides_of(ensemble=ensemble), "retrieval": {"k": k}})
    batch = _read(documents, limit)
    configure_cli_logging(ctx)
    missing = _missing_models(settings)
    from_file = [] if (file := config or ctx.obj.config) is None else ["--config", str(file)]
    options = [*([] if ensemble is None else ["--ensemble", ensemble]), *from_file]
    page_options = from_file if ui else None
    with (
        _prepared_meanwhile(missing),
        running_stack(settings, PIPELINE if one_hop else "all", options, keep=keep, page_options=page_options) as stack,
    ):
        started = time.monotonic() - began
        tell(f"streaming {len(batch)} documents")
        streaming = time.monotonic()
        _stream(stack, batch, patience)
        seconds = time.monotonic() - streaming
        if ui:
            _stream_again(stack, batch)
            return
        stack.stop_worker()
        good = _sum_up(stack, batch, prepared=missing, started=started, seconds=seconds)
        if not good:
            stack.keep()
    if not good:
        raise typer.Exit(1)


def _read(file: Path | None, limit: int | None) -> list[NewDocument]:
    from workers.inputs.documents import InputError, format_of, read_documents

    source = Path(str(resources.files("el4ner") / "samples" / "demo.jsonl")) if file is None else file
    if not source.is_file():
        raise typer.BadParameter(f"{source}: there is no such file", param_hint="--documents")
    # Equal lines of a log are as many documents; equal ids would be one.
    documents = list(read_documents(source, format=format_of(source), distinct=True))[:limit]
    twice = [name for name, count in Counter(document.id for document in documents).items() if count > 1]
    if twice or not documents:
        raise InputError(f"{source}: {f'the id {twice[0]!r} is there twice' if twice else 'has no documents'}")
    return documents


def _missing_models(settings: StreamSettings) -> list[str]:
    """Packaged ones that are installed and have yet to be prepared. What comes from a hub is fetched now."""
    from el4ner.models.catalogue import PREFIX, packaged
    from el4ner.models.prepare import default_cache_dir, prepare, resolve

    folder = default_cache_dir()
    missing = [source for source in sources_of(settings) if resolve(source, folder) is None]
    for source in missing:
        if source.startswith(PREFIX):
            packaged(source).locate()  # that it is not installed should be said at once
            continue
        tell(f"fetching {source} (once)")
        with TerminalProgress() as progress:
            prepare(source, folder, progress)
    return [source for source in missing if source.startswith(PREFIX)]


@contextlib.contextmanager
def _prepared_meanwhile(sources: Sequence[str]) -> Iterator[None]:
    """While services and workers start; the workers wait for what is not ready then."""
    from el4ner.models.prepare import default_cache_dir
    from el4ner.models.preparing_ahead import prepared_ahead

    folder = default_cache_dir()
    if sources:
        tell(f"preparing {', '.join(sources)} in {folder} (once), beside the services")
    with prepared_ahead(sources, folder):
        yield


def _stream(stack: Stack, batch: Sequence[NewDocument], patience: float) -> None:
    """Send the documents and show each as it comes out, until all are there."""
    from workers.produce import produce_documents
    from workers.tail import tail_documents

    produce_documents(stack.settings, batch, source="demo")
    awaited = {document.id for document in batch}
    console = results()
    last = time.monotonic()

    def over() -> bool:
        stack.check_worker()
        if time.monotonic() - last > patience:
            raise DemoError(
                f"no document has come out for {patience:g} s; {len(awaited)} are missing: {stack.log_hint}"
            )
        return not awaited

    for tagged in tail_documents(stack.settings, start="earliest", stop=over):
        last = time.monotonic()
        awaited.discard(tagged.value["id"])
        done = len(batch) - len(awaited)
        show_tagged(tagged.value, console, prefix=f"[{done:{len(str(len(batch)))}}/{len(batch)}] ")
        if not awaited:
            return


def _stream_again(stack: Stack, batch: Sequence[NewDocument]) -> None:
    """For whoever looks at the page: the documents as new ones, until Ctrl-C."""
    from workers.produce import produce_documents

    tell("the same documents come again, one a second, as new ones; Ctrl-C ends it")
    with contextlib.suppress(KeyboardInterrupt):
        produce_documents(stack.settings, again(batch, stack.check_worker), source="demo")


def _sum_up(
    stack: Stack, batch: Sequence[NewDocument], *, prepared: Sequence[str], started: float, seconds: float
) -> bool:
    """The workers have stopped: read the whole topic again, count, and say what was found. True: all is well."""
    from el4ner.errors import MessageError
    from workers.tail import tagged_until_now

    problems: list[str] = []
    seen: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for tagged in tagged_until_now(stack.settings):
        seen[tagged.value["id"]] += 1
        types.update(entity["type"] for entity in tagged.value["entities"])
        if tagged.status != "complete":
            problems.append(f"document {tagged.value['id']} is {tagged.status}")
        try:
            _ = tagged.document  # raises if an offset is wrong
        except MessageError as error:
            problems.append(f"document {tagged.value['id']}: {error}")
    problems += [f"document {document.id} is missing" for document in batch if not seen[document.id]]
    problems += [f"document {name} came out {count} times" for name, count in seen.items() if count > 1]
    dead = stack.dead_letters()
    known, looked_up = stack.answer_counters()

    console = results()
    shown = table("type", "entities", right={"entities"})
    for label, count in sorted(types.items(), key=lambda item: (-item[1], item[0])):
        shown.add_row(label, str(count))
    console.print()
    console.print(shown)
    console.print()
    lines = {
        "documents": f"{len(seen)} of {len(batch)}, {seen.total() - len(seen)} twice, {dead} dead letters",
        "entities": str(types.total()),
        "models": "were prepared meanwhile" if prepared else "were prepared already",
        "start-up": f"{started:.1f} s (services, topics, workers with their models)",
        "stream": f"{seconds:.1f} s, {len(seen) / seconds:.2f} documents/s",
        "answers": f"{known} of {looked_up} looked up in Redis were there ({known / max(1, looked_up):.0%})",
    }
    for name, text in lines.items():
        console.print(f"{name:<10} {text}")
    results_file().flush()
    for problem in problems:
        complain(problem)
    return not problems and not dead
