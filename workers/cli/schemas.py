"""``el4ner schemas``: the messages' contract, for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workers.cli.options import examples
from workers.cli.output import complain, results_file, tell

__all__ = ["app"]

app = typer.Typer(
    name="schemas",
    no_args_is_help=True,
    help="The schemas of the messages: check them against a release, print the AsyncAPI document.",
    epilog=examples("el4ner schemas check", "el4ner schemas asyncapi > asyncapi.json"),
)


@app.command("check")
def check(
    schemas: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Schemas to check. (default: those of this el4ner)")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Schemas that were promised. (default: the last release's)")
    ] = None,
) -> None:
    """Say what the schemas break of what was released. Exit code 1 if it is anything that was not announced."""
    from workers.schema_compat import announced_breaks, compare_sets, latest_release, load_set
    from workers.schemas import schemas_dir

    checked = schemas or schemas_dir()
    promised = against or latest_release(schemas_dir() / "released")
    announced = announced_breaks(promised.parent, promised.name)
    broken = [str(incompatibility) for incompatibility in compare_sets(load_set(promised), load_set(checked))]
    for incompatibility in broken:
        if incompatibility in announced:
            complain(f"{incompatibility} (announced: {announced[incompatibility]})", severity="warning")
        else:
            complain(incompatibility)
    if set(broken) - announced.keys():
        raise typer.Exit(1)
    tell(f"compatible with {promised.name}" + (", but for what was announced" if broken else ""))


@app.command("asyncapi")
def asyncapi() -> None:
    """Print the AsyncAPI 3.0 document of the topics, made from the code."""
    from workers.asyncapi import document, written

    results_file().buffer.write(written(document()))
    results_file().buffer.flush()
