"""``el4ner models``: the weights, what they take on a GPU, making smaller ones, and the GPU engines' own needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from el4ner.errors import ModelError
from workers.cli.models_gpu import gpu
from workers.cli.models_memory import memory_of
from workers.cli.options import ConfigOption, EnsembleOption, OutputFormat, examples
from workers.cli.output import complain, results, table
from workers.cli.progress import TerminalProgress
from workers.cli.settings import GlobalOptions, configure_cli_logging, method_settings, overrides_of
from workers.cli.standard_output import results_file

if TYPE_CHECKING:
    from el4ner.config import Settings
    from el4ner.models.prepare import ModelInfo
    from workers.cli.models_memory import Memory

__all__ = ["app", "sources_of"]


app = typer.Typer(
    name="models",
    no_args_is_help=True,
    help="The model weights: what there is, what fits a GPU, and getting them and the GPU ready.",
    epilog=examples(
        "el4ner models list",
        "el4ner models list --ensemble gpu-24gb --gpu-gb 24",
        "el4ner models prepare gemma3-270m --verify",
        "el4ner models quantize microsoft/phi-4 --bits 4.0",
        "el4ner models gpu",
        "el4ner models gpu --build --arch 9.0",
    ),
)
app.command("gpu")(gpu)


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    ensemble: EnsembleOption = None,
    gpu_gb: Annotated[
        list[float] | None,
        typer.Option(
            "--gpu-gb", metavar="GB", min=0.5, help="Plan for a GPU of this size instead of those here; once for each."
        ),
    ] = None,
    output: Annotated[OutputFormat, typer.Option("--format", help="text, or JSON Lines.")] = OutputFormat.TEXT,
    config: ConfigOption = None,
) -> None:
    """List the packaged and the quantised models: licence, size, whether they are prepared.

    With a preset, a configuration or a GPU's size, also what the ensemble's GPU members take, and whether they fit.
    """
    from el4ner.engines.exllama.planning import gpus_found, gpus_of
    from el4ner.models.prepare import default_cache_dir, list_models

    configure_cli_logging(ctx)
    cache_dir = default_cache_dir()
    gpus = gpus_of(gpu_gb) if gpu_gb else gpus_found()
    global_options: GlobalOptions = ctx.obj
    asked = ensemble is not None or bool(gpu_gb) or config is not None or global_options.config is not None
    memory = None
    if asked or gpus:
        memory = memory_of(method_settings(ctx, config, overrides_of(ensemble=ensemble)), gpus, cache_dir)
    models = list_models(cache_dir)
    if output is OutputFormat.JSON:
        _write_json(models, memory)
        return
    _show_models(models)
    if memory is not None:
        _show_memory(memory, wanted=asked)


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
    from el4ner.models.quantized import QUANTIZED

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
            if verify and source.startswith((PREFIX, QUANTIZED)):
                try:
                    verify_model(source, folder, progress)
                except ModelError as error:
                    damaged += 1
                    complain(str(error))
                    continue
            results().print(f"{source}\t{path}")
    if damaged:
        raise typer.Exit(1)


@app.command("quantize")
def quantize(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A hub id, a packaged name or a local folder, in 16 bits.")
    ],
    *,
    bits: Annotated[float, typer.Option("--bits", "-b", help="Bits of a parameter: 2 to 8; EXL3: 1 to 8.")] = 4.0,
    head_bits: Annotated[int, typer.Option(help="Bits of a parameter of the head.")] = 6,
    made_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="exl2|exl3",
            help="For the engine exllamav2, or exllamav3. exl3 is experimental: never run on hardware.",
        ),
    ] = "exl2",
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the result goes. (default: into the cache, by name)")
    ] = None,
    measurement: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="EXL2: measured before. (default: what was kept for the same weights)"),
    ] = None,
    gpu: Annotated[int, typer.Option(min=0, help="The number of the GPU that works.")] = 0,
) -> None:
    """Make a model smaller, for a GPU: minutes to hours, once. The same command goes on with one that was interrupted.

    Prints the source to configure, and the folder.
    """
    from el4ner.models.catalogue import CATALOGUE, PREFIX
    from el4ner.models.prepare import default_cache_dir
    from el4ner.models.quantized import QuantizedName
    from el4ner.quantizing.quantize import quantize as quantize_model

    configure_cli_logging(ctx)
    if made_format not in ("exl2", "exl3"):
        raise typer.BadParameter(f"there is no format {made_format!r}: exl2 or exl3", param_hint="--format")
    name = QuantizedName(
        PREFIX + source if source in CATALOGUE else source,
        bits,
        head_bits,
        "exl3" if made_format == "exl3" else "exl2",
    )
    with TerminalProgress() as progress:
        folder = quantize_model(
            name, default_cache_dir(), output=output, measurement=measurement, gpu=gpu, progress=progress
        )
    results().print(f"{folder if output is not None else name.text}\t{folder}")


def sources_of(settings: Settings) -> list[str]:
    """The sources of every model that these settings load, members first."""
    from el4ner.participation import needs_embedder

    members = [settings.models[name] for name in settings.ensemble.members]
    sources = [member.source for member in members if member.engine != "instant"]
    if needs_embedder(settings):
        sources.append(settings.retrieval.embedder)
    return list(dict.fromkeys(sources))


def _write_json(models: list[ModelInfo], memory: Memory | None) -> None:
    from dataclasses import asdict

    from el4ner.serialize import dumps

    lines: list[dict[str, Any]] = [
        {"kind": "model", **asdict(model), "path": None if model.path is None else str(model.path)} for model in models
    ]
    if memory is not None:
        lines += memory.as_lines()
    for line in lines:
        results_file().write(dumps(line).decode() + "\n")


def _show_models(models: list[ModelInfo]) -> None:
    shown = table(
        "source", "purpose", "parameters", "format", "MB", "licence", "package", "state", right={"parameters", "MB"}
    )
    for model in models:
        state = "prepared" if model.prepared else "installed" if model.installed else "not installed"
        shown.add_row(
            model.source,
            model.purpose,
            f"{model.parameters / 1e6:.0f} M",
            _stored(model.format, model.bits),
            f"{model.size_bytes / 1e6:.0f}",
            model.licence,
            model.distribution,
            state,
        )
    results().print(shown)


def _show_memory(memory: Memory, *, wanted: bool) -> None:
    if not memory.members:
        if wanted:
            results().print("\nNo member of this ensemble runs on exllamav2 or exllamav3: nothing to plan.")
        return
    shown = table(
        "member", "source", "format", "weights GB", "cache GB", "tokens", "scratch GB", "sum GB", "licence", "GPU",
        right={"weights GB", "cache GB", "tokens", "scratch GB", "sum GB"},
    )  # fmt: skip
    for row in memory.members:
        used = row.footprint
        figures = ["–"] * 4 if used is None else [_gb(part) for part in (used.weights, used.cache, used.scratch)]
        total = "–" if used is None else _gb(used.total)
        shown.add_row(
            row.name,
            row.source,
            _stored(row.format, row.bits) + ("" if row.basis != "arithmetic" else " *"),
            *figures[:2],
            f"{row.cache_tokens} at {row.cache_bits} bits",
            figures[2],
            total,
            row.licence or "–",
            row.gpu,
        )
    results().print()
    results().print(shown)
    if any(row.basis == "arithmetic" for row in memory.members):
        results().print("* by arithmetic: these weights are not on this machine")
    results().print()
    for used_gpu in memory.gpus:
        results().print(
            f"cuda:{used_gpu.gpu.index} ({used_gpu.gpu.name}): {_gb(used_gpu.used_bytes)} of "
            f"{_gb(used_gpu.gpu.free_bytes)} GB free are used, CUDA's {_gb(used_gpu.context_bytes)} among them; "
            f"{_gb(used_gpu.reserve_bytes)} are reserved, {_gb(used_gpu.left_bytes)} left"
        )
    for problem in memory.problems:
        results().print(f"does not fit: {problem}" if memory.has_gpus else problem)


def _stored(stored: str | None, bits: float | None) -> str:
    if stored is None:
        return "–"
    return stored if bits is None else f"{bits:g} bits" if stored == "plain" else f"{stored} {bits:g} bits"


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f}"
