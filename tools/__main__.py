"""``python -m tools COMMAND``: what is made from the code, or checked."""

from __future__ import annotations

import datetime
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from tools.asyncapi import document, written
from tools.chart_schema import SCHEMA_FILE, chart_schema
from tools.schema_compat import announced_breaks, compare_sets, latest_release, load_set
from workers.messages.json_schemas import schemas_dir

app = typer.Typer(no_args_is_help=True, help="For whoever changes el4ner.")


@app.command("schemas")
def check_schemas(
    schemas: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Schemas to check. (default: schemas/)")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Schemas that were promised. (default: the last release's)")
    ] = None,
) -> None:
    """Say what the schemas break of what was released. Exit code 1 if it is anything that was not announced."""
    checked = schemas or schemas_dir()
    promised = against or latest_release(schemas_dir() / "released")
    announced = announced_breaks(promised.parent, promised.name)
    broken = [str(incompatibility) for incompatibility in compare_sets(load_set(promised), load_set(checked))]
    for incompatibility in broken:
        reason = announced.get(incompatibility)
        line = f"error: {incompatibility}" if reason is None else f"warning: {incompatibility} (announced: {reason})"
        typer.echo(line, err=True)
    if set(broken) - announced.keys():
        raise typer.Exit(1)
    typer.echo(f"compatible with {promised.name}" + (", but for what was announced" if broken else ""), err=True)


@app.command("asyncapi")
def write_asyncapi() -> None:
    """Make schemas/asyncapi.json anew, from the code."""
    (schemas_dir() / "asyncapi.json").write_bytes(written(document()))


@app.command("records")
def write_records() -> None:
    """Make schemas/avro and schemas/protobuf anew, from the JSON Schemas."""
    from tools.record_schemas import write_record_files

    write_record_files()


@app.command("chart")
def write_chart_schema() -> None:
    """Make the chart's schema of its ``config`` anew, from the settings."""
    SCHEMA_FILE.write_text(chart_schema(SCHEMA_FILE.read_text(encoding="utf-8")), encoding="utf-8")


@app.command("screenshots")
def write_screenshots(
    target: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to.")] = Path("docs/images"),
) -> None:
    """Capture the pictures of the page anew, from a stream of its own with real models and a real browser: minutes."""
    from tools.screenshots import capture

    for path in capture(target, lambda line: typer.echo(line, err=True)):
        typer.echo(f"{path.stat().st_size / 1000:.0f} kB {path}", err=True)


@app.command("release")
def release_version(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Three numbers, as in 0.2.0.")],
    uv: Annotated[str, typer.Option(metavar="PROGRAM", help="uv.")] = "uv",
    checks: Annotated[bool, typer.Option(help="Lint, schemas and site first.")] = True,
) -> None:
    """Make a release of a tree with a green CI: version, changelog, schemas, dist/. Tests and publishes nothing."""
    from tools.release import Release, ReleaseError, make_release

    commands = (("make", "lint"), (sys.executable, "-m", "tools", "schemas"), ("make", "docs")) if checks else ()
    release = Release(Path(__file__).parents[1], version, datetime.datetime.now(datetime.UTC).date(), uv, commands)
    try:
        dist = make_release(release, lambda line: typer.echo(line, err=True))
    except ReleaseError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    for path in sorted(dist.iterdir()):
        typer.echo(f"{path.stat().st_size / 1000:10,.0f} kB {path.relative_to(release.root)}", err=True)
    typer.echo("no test was run: go on only if CI is green for the commit before", err=True)
    typer.echo(
        f"now: git add --all && git commit -m 'Release {version}' && git tag v{version}, push both, and publish dist/",
        err=True,
    )


@app.command("extras")
def try_extras(
    only: Annotated[list[str] | None, typer.Argument(metavar="[EXTRA]…", help="Those alone. (default: all)")] = None,
    uv: Annotated[str, typer.Option(metavar="PROGRAM", help="uv.")] = "uv",
) -> None:
    """Build wheel and archive, and try each extra in a fresh environment, with versions of the lock file: minutes."""
    from tools.extras_trial import TRIALS, TrialError, build, tried

    known = {trial.name: trial for trial in TRIALS}
    if unknown := set(only or ()) - known.keys():
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: expected of {', '.join(known)}")
    with TemporaryDirectory(prefix="el4ner-extras-") as folder:
        try:
            built = build(Path(folder) / "dist", uv=uv)
            for name in only or known:
                # The archive, of which others build, has to have all that the wheel has: the base is tried from both.
                for package in built if name == "base" else built[:1]:
                    work = Path(folder) / f"{name}{package.suffix}"
                    tried(known[name], work, package, uv=uv, tell=lambda line: typer.echo(line, err=True))
                    shutil.rmtree(work)  # with CUDA's libraries it is gigabytes
        except TrialError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error


@app.command("evidence")
def write_evidence(
    target: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to. (default: el4ner/evidence/shipped)")
    ] = None,
) -> None:
    """Prepare the evidence of the shipped pools anew, in float32: minutes; what the cache folder has is not read."""
    from el4ner.evidence.prepared import SHIPPED
    from el4ner.models.prepare import default_cache_dir
    from tools.shipped_evidence import prepare_evidence
    from workers.cli.progress import TerminalProgress

    with TerminalProgress() as progress:
        size = prepare_evidence(target or SHIPPED.folder, cache_dir=default_cache_dir(), progress=progress)
    typer.echo(f"{size / 1e6:.2f} MB of evidence in {target or SHIPPED.folder}", err=True)


if __name__ == "__main__":
    app(prog_name="python -m tools")
