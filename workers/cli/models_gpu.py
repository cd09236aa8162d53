"""``el4ner models gpu``: what the ExLlama engines find here, what is missing, and compiling their extension."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Final

import typer
from typing_extensions import override

from el4ner.models.progress import Progress
from workers.cli.options import OutputFormat
from workers.cli.output import results, table, tell, told
from workers.cli.progress import Counter
from workers.cli.settings import configure_cli_logging
from workers.cli.standard_output import results_file

if TYPE_CHECKING:
    from el4ner.engines.exllama.readiness import GpuReadiness, LibraryState

__all__ = ["BuildProgress", "gpu"]

_SECONDS_BETWEEN_LINES: Final = 10.0


def gpu(
    ctx: typer.Context,
    *,
    build: Annotated[
        bool, typer.Option("--build", help="Compile the extension now, where that was not done: minutes, once.")
    ] = False,
    arch: Annotated[
        list[str] | None,
        typer.Option(
            "--arch",
            metavar="X.Y",
            help="Compile for cards of this compute capability, which need not be here; once for each. (default: "
            "TORCH_CUDA_ARCH_LIST, or the cards that are here)",
        ),
    ] = None,
    library: Annotated[
        str, typer.Option(metavar="exllamav2|exllamav3", help="Whose extension --build compiles.")
    ] = "exllamav2",
    output: Annotated[OutputFormat, typer.Option("--format", help="text, or JSON.")] = OutputFormat.TEXT,
) -> None:
    """Show what there is for the GPU engines, with a line for each thing that is missing and how to mend it.

    Driver, cards, torch's CUDA version, compilers, compiled extensions, flash-attn. With --build, compile the
    extension, also on a machine without a GPU.
    """
    from el4ner.engines.exllama.building import build_extension
    from el4ner.engines.exllama.capabilities import parse_architectures
    from el4ner.engines.exllama.readiness import look
    from el4ner.models.prepare import default_cache_dir

    configure_cli_logging(ctx)
    if library not in ("exllamav2", "exllamav3"):
        raise typer.BadParameter(f"there is no {library!r}: exllamav2 or exllamav3", param_hint="--library")
    architectures = parse_architectures(";".join(arch), "--arch") if arch else ()
    cache_dir = default_cache_dir()
    if build:
        with BuildProgress() as progress:
            build_extension(library, cache_dir, architectures=architectures, progress=progress)
    state = look(cache_dir, architectures)
    if output is OutputFormat.JSON:
        from el4ner.serialize import dumps

        results_file().write(dumps({"kind": "gpu", **state.as_dict()}).decode() + "\n")
        return
    _show(state)


class BuildProgress(Progress):
    """Counts what is compiled: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self) -> None:
        self._terminal = told().is_terminal
        self._counter: Counter | None = None
        self._label = ""
        self._total = self._done = 0
        self._began = self._said = 0.0

    @override
    def start(self, label: str, total: int) -> None:
        self.done()
        self._label, self._total, self._done = label, total, 0
        self._began = self._said = time.monotonic()
        if self._terminal:
            self._counter = Counter(label, total or None)
            self._counter.__enter__()
        else:
            tell(f"{label} …")

    @override
    def advance(self, steps: int) -> None:
        self._done += steps
        if self._counter is not None:
            self._counter.advance(steps)
        elif self._done == self._total or time.monotonic() - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            tell(f"{self._label}: {self._done} of {self._total}, {self._said - self._began:.0f} s")

    @override
    def done(self) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self._counter = None

    def __enter__(self) -> BuildProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.done()


def _show(state: GpuReadiness) -> None:
    shown = table("part", "state")
    driver = state.driver
    shown.add_row(
        "driver", "none" if driver is None else f"{driver.version or 'version unknown'}, CUDA {driver.cuda} at most"
    )
    for card in state.cards:
        facts = f"{card.memory / 1e9:.1f} GB, compute capability {card.capability}"
        shown.add_row(f"cuda:{card.index}", f"{card.name}, {facts}")
    if not state.cards:
        shown.add_row("GPU", "none")
    shown.add_row("torch", f"{state.torch}, " + (f"CUDA {state.torch_cuda}" if state.torch_cuda else "without CUDA"))
    tools = state.tools
    compiler = tools.compiler
    origin = {"system": "of a CUDA toolkit", "wheels": "of PyPI's wheels"}
    shown.add_row(
        "nvcc", "none" if compiler is None else f"{compiler.version}, {origin[compiler.origin]} ({compiler.nvcc})"
    )
    for reason in tools.passed_over:
        shown.add_row("", f"passed over: {reason}")
    shown.add_row("C++", "none" if tools.cxx is None else f"{tools.cxx} {tools.cxx_version or ''}".strip())
    shown.add_row("ninja", str(tools.ninja or "none"))
    shown.add_row("Python.h", str(tools.python_headers or "none"))
    for library in state.libraries:
        shown.add_row(library.name, _library(library, state))
    shown.add_row("flash-attn", state.flash_attn or "not installed (attention by torch)")
    results().print(shown)
    results().print()
    if state.ready:
        results().print("Ready.")
    for item in state.missing:
        results().print(f"missing: {item}")


def _library(library: LibraryState, state: GpuReadiness) -> str:
    if library.version is None:
        return "not installed"
    extension = library.extension
    if extension is None:
        cards = ", ".join(map(str, state.architectures))
        wanted = f" for compute capability {cards}" if cards else ""
        return f"{library.version}, not compiled{wanted} (el4ner models gpu --build)"
    if extension.origin == "prebuilt":
        return f"{library.version}, prebuilt, from {extension.path}"
    cards = ", ".join(map(str, extension.architectures or ()))
    return f"{library.version}, compiled for compute capability {cards}: {extension.path}"
