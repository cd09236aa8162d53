"""``el4ner models``: the packaged weights."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from el4ner.errors import ModelError
from workers.cli.options import ConfigOption, EnsembleOption, OutputFormat, examples
from workers.cli.output import complain, results, table
from workers.cli.progress import TerminalProgress
from workers.cli.settings import configure_cli_logging, method_settings, overrides_of

if TYPE_CHECKING:
    from el4ner.config import Settings

__all__ = ["app", "sources_of"]

app = typer.Typer(
    name="models",
    no_args_is_help=True,
    help="The model weights that come as Python packages: what there is, and getting them ready.",
    epilog=examples("el4ner models list", "el4ner models prepare", "el4ner models prepare gemma3-270m --verify"),
)


@app.command("list")
def list_(
    *, output: Annotated[OutputFormat, typer.Option("--format", help="text, or JSON Lines.")] = OutputFormat.TEXT
) -> None:
    """List the packaged models: licence, size, and whether they are installed and prepared."""
    from el4ner.models.prepare import default_cache_dir, list_models

    models = list_models(default_cache_dir())
    if output is OutputFormat.JSON:
        from dataclasses import asdict

        from el4ner.serialize import dumps

        for model in models:
            line = {**asdict(model), "path": None if model.path is None else str(model.path)}
            sys.stdout.write(dumps(line).decode() + "\n")
        return
    shown = table("source", "purpose", "parameters", "MB", "licence", "package", "state", right={"parameters", "MB"})
    for model in models:
        state = "prepared" if model.prepared else "installed" if model.installed else "not installed"
        shown.add_row(
            model.source,
            model.purpose,
            f"{model.parameters / 1e6:.0f} M",
            f"{model.size_bytes / 1e6:.0f}",
            model.licence,
            model.distribution,
            state,
        )
    results().print(shown)


@app.command("prepare")
def prepare(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Packaged names or sources. (default: what the configuration uses)"),
    ] = None,
    *,
    ensemble: EnsembleOption = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte again and compare the checksums.")] = False,
    config: ConfigOption = None,
) -> None:
    """Convert weights into the cache, once, so that nothing has to wait for it later; print where they are."""
    from el4ner.models.catalogue import CATALOGUE, PREFIX
    from el4ner.models.prepare import default_cache_dir
    from el4ner.models.prepare import prepare as prepare_model
    from el4ner.models.prepare import verify as verify_model

    configure_cli_logging(ctx)
    if names:
        sources = [PREFIX + name if name in CATALOGUE else name for name in names]
    else:
        sources = sources_of(method_settings(ctx, config, overrides_of(ensemble=ensemble)))
    folder = default_cache_dir()
    damaged = 0
    with TerminalProgress() as progress:
        for source in sources:
            path = prepare_model(source, folder, progress)
            if verify and source.startswith(PREFIX):
                try:
                    verify_model(source, folder, progress)
                except ModelError as error:
                    damaged += 1
                    complain(str(error))
                    continue
            results().print(f"{source}\t{path}")
    if damaged:
        raise typer.Exit(1)


def sources_of(settings: Settings) -> list[str]:
    """The sources of every model that these settings load, members first."""
    members = [settings.models[name] for name in settings.ensemble.members]
    sources = [member.source for member in members if member.engine != "instant"]
    if settings.retrieval.kind in ("span", "sentence"):
        sources.append(settings.retrieval.embedder)
    return list(dict.fromkeys(sources))
