"""``el4ner schemas``: the messages' contract, for programs."""

from __future__ import annotations

import typer

from workers.cli.options import examples
from workers.cli.standard_output import results_file
from workers.messages.json_schemas import schemas_dir

__all__ = ["app"]

app = typer.Typer(
    name="schemas",
    no_args_is_help=True,
    help="The messages' contract: print the AsyncAPI document.",
    epilog=examples("el4ner schemas asyncapi > asyncapi.json"),
)


@app.callback()
def _schemas() -> None:
    """Without it, typer would take the one command for the whole group."""


@app.command("asyncapi")
def asyncapi() -> None:
    """Print the AsyncAPI 3.0 document of the topics."""
    results_file().buffer.write((schemas_dir() / "asyncapi.json").read_bytes())
    results_file().buffer.flush()
