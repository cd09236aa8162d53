"""What each phase does, in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gpu.engines import Deadline, loaded, variants
from gpu.record import Record, read

__all__ = ["Context", "run_phase"]

ROOT: Final = Path(__file__).resolve().parents[2]
SMALL: Final = "packaged:smollm2-135m-instruct"
EXL2_BITS: Final = 4.0
MARGIN_SECONDS: Final = 3.0
"""For loading and ending, inside of what a phase is given."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the process that runs phases tells one of them.

    Attributes:
        cpu: there is no GPU: the same with tiny models.
        work: a folder for what is made on the way; models stay there for the next run.
        loads: folders that were carried.
        weights: a folder with the small model, instead of the packaged one.
        seconds: that this phase may take.
        without: engines that took the process with them at the first try.
        results: of the phases before.
    """

    cpu: bool
    work: Path
    loads: tuple[Path, ...]
    weights: Path | None
    seconds: float
    without: tuple[str, ...]
    results: Mapping[str, Any]

    @classmethod
    def of(cls, file: Path) -> Context:
        given = read(file)
        return cls(
            cpu=given["cpu"],
            work=Path(given["work"]),
            loads=tuple(map(Path, given["loads"])),
            weights=Path(given["weights"]) if given["weights"] else None,
            seconds=given["seconds"],
            without=tuple(given["without"]),
            results=given["results"],
        )

    @property
    def site(self) -> Path:
        return self.work / "site"

    @property
    def models(self) -> Path:
        return self.work / "models"

    @property
    def cache_dir(self) -> Path:
        return self.work / "cache"

    @property
    def ready(self) -> list[str]:
        """Engines that can be imported."""
        built = [name for name in ("exllamav2", "exllamav3") if self._state(f"build-{name}") == "done"]
        return ["transformers", *built]

    @property
    def capability(self) -> str | None:
        """Of the GPU, as ``9.0``; None before it is known."""
        found = self.results.get("environment", {}).get("values", {}).get("capability")
        return str(found) if found is not None else None

    def models_made(self) -> dict[str, dict[str, Any]]:
        """Name → folder, bits and shape, of the phases that made them."""
        made: dict[str, dict[str, Any]] = {}
        for phase in ("weights", "quantise"):
            for row in self.results.get(phase, {}).get("rows", {}).get("models", []):
                made[row["name"]] = row
        return made

    def _state(self, phase: str) -> str | None:
        state = self.results.get(phase, {}).get("state")
        return str(state) if state is not None else None


def run_phase(name: str, given: Path, found: Path) -> int:
    """The exit status: 0, or 1 after an error, which is in the record."""
    context, record = Context.of(given), Record(found)
    # Told to end, it ends what it has started: converters are in sessions of their own.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if context.capability is not None:
        # The same for every process: with other flags an extension is compiled again by whoever imports it.
        os.environ["TORCH_CUDA_ARCH_LIST"] = context.capability
    try:
        _WORK[name](context, record)
    except Exception as error:  # of any library: it ends this phase and no other
        record.problem(name, error)
        raise
    record.doing(None)
    return 0


def _environment(context: Context, record: Record) -> None:
    from gpu.environment import describe, install

    install(record, context.loads, context.work, context.site)
    sys.path.insert(0, str(context.site))  # it may not have been there when this process began
    describe(record, cpu=context.cpu)


def _build(library: str) -> Callable[[Context, Record], None]:
    def work(context: Context, record: Record) -> None:
        from gpu.environment import build

        cores = len(os.sched_getaffinity(0))
        if library == "exllamav3":  # four times the work, asked for by fewer: it waits for the other
            os.nice(15)
        build(record, library, jobs=max(1, cores - 2))

    return work


def _weights(context: Context, record: Record) -> None:
    from el4ner.errors import ModelError
    from el4ner.models.prepare import prepare
    from gpu.shapes import SEVEN, TINY, Shape
    from gpu.weights import random_model

    deadline = Deadline.within(context.seconds - MARGIN_SECONDS)
    device = "cpu" if context.cpu else "cuda"
    carried = context.work / "carried" / "tokenizers" / SMALL.partition(":")[2]
    record.doing("small")
    if context.weights is not None:
        small, made_of = context.weights, "given"
    else:
        try:
            small, made_of = prepare(SMALL, context.cache_dir), SMALL
        except ModelError as error:
            record.problem("packaged weights", error)
            if not (carried / "tokenizer.json").is_file():
                raise
            small, made_of = context.models / "small", "random weights"
            # Surer of its answers than a random model is by itself, or a wrong mask would hardly show.
            _once(small, lambda: random_model(small, Shape.of(carried), carried, device=device, spread=0.06))
    tokenizer = small
    if context.cpu:
        tiny = context.models / "tiny"
        _once(tiny, lambda: random_model(tiny, TINY, tokenizer, device=device))
        small, made_of = tiny, "random weights, tiny"
    _made(record, "small", small, 16, made_of)
    if context.cpu:
        _made(record, "large", small, 16, made_of)
        return
    for name, bits in (("large-gptq", 4), ("large", 16)):
        if deadline.left < 5:
            record.problem(name, "no time was left to make it")
            continue
        record.doing(name)
        began = time.monotonic()
        folder = context.models / name
        _once(folder, lambda folder=folder, bits=bits: random_model(folder, SEVEN, tokenizer, device=device, bits=bits))  # type: ignore[misc]
        _made(record, name, folder, bits + 0.16 if bits == 4 else bits, "random weights", time.monotonic() - began)


def _once(folder: Path, make: Callable[[], None]) -> None:
    """A model that an earlier run made whole is used again."""
    mark = folder.with_name(f"{folder.name}.whole")
    if not mark.is_file():
        make()
        mark.touch()


def _made(record: Record, name: str, folder: Path, bits: float, made_of: str, seconds: float = 0.0) -> None:
    from gpu.shapes import Shape

    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    shape = Shape.of(folder).facts()
    record.row("models", name=name, folder=str(folder), bits=bits, of=made_of, seconds=seconds, bytes=size, shape=shape)


def _ceilings(context: Context, record: Record) -> None:
    from gpu.ceilings import measure
    from gpu.shapes import SEVEN, TINY

    shapes = {"large": TINY if context.cpu else SEVEN}
    measure(record, shapes, cpu=context.cpu)


def _quantise(context: Context, record: Record) -> None:
    from el4ner.models.converters import Exl2Converter, Places
    from el4ner.models.quantize import quantize
    from el4ner.models.quantized import QuantizedName

    class Hasty(Exl2Converter):
        """With a fifth of the texts, which are nearly all of the time for a small model: it is good enough to compare
        engines by."""

        def command(self, name: QuantizedName, places: Places) -> list[str]:
            return [*super().command(name, places), "-r", "20", "-mr", "4"]

    source = Path(context.models_made()["small"]["folder"])
    record.doing("small-exl2")
    began = time.monotonic()
    name = QuantizedName(str(source.absolute()), EXL2_BITS)
    folder = quantize(name, context.cache_dir, converter=Hasty())
    _made(record, "small-exl2", folder, EXL2_BITS, f"quantised from {source.name}", time.monotonic() - began)


def _tests(context: Context, record: Record) -> None:
    from gpu.suite import run

    made = context.models_made()
    environment = {f"EL4NER_GPU_{name.upper().replace('-', '_')}": str(row["folder"]) for name, row in made.items()}
    environment["EL4NER_GPU_ENGINES"] = " ".join(context.ready)
    environment["EL4NER_CACHE_DIR"] = str(context.cache_dir)
    run(record, ROOT, context.work, seconds=context.seconds, environment=environment)


def _speed(*models: str, only: str | None = None) -> Callable[[Context, Record], None]:
    def work(context: Context, record: Record) -> None:
        from gpu import speed

        ready = [only] if only else [name for name in context.ready if name != "exllamav3"]
        end = Deadline.within(context.seconds - MARGIN_SECONDS)
        for number, model in enumerate(models):
            deadline = Deadline.within(end.left / (len(models) - number))
            record.columns(model=model)
            found = variants(model, context.models_made(), ready=ready)
            options = {"without": context.without, "cpu": context.cpu, "cache_dir": context.cache_dir}
            with loaded(found, record, model=model, **options) as engines:
                speed.measure(engines, record, speed.CPU if context.cpu else speed.CARD, deadline)

    return work


def _method(model: str) -> Callable[[Context, Record], None]:
    def work(context: Context, record: Record) -> None:
        from el4ner.models.catalogue import CATALOGUE
        from gpu import method

        deadline = Deadline.within(context.seconds - MARGIN_SECONDS)
        ready = [name for name in context.ready if name != "exllamav3"]
        found = variants(model, context.models_made(), ready=ready)
        options = {"without": context.without, "cpu": context.cpu, "cache_dir": context.cache_dir}
        record.columns(model=model)
        with loaded(found, record, model=model, **options) as engines:
            method.measure(
                engines,
                record,
                method.CPU if context.cpu else method.CARD,
                deadline,
                cache_dir=context.cache_dir,
                embedder=CATALOGUE["all-minilm-l6-v2"].installed and not context.cpu,
                repeats=1 if context.cpu else 3,
            )

    return work


_WORK: Final[dict[str, Callable[[Context, Record], None]]] = {
    "environment": _environment,
    "build-exllamav2": _build("exllamav2"),
    "build-exllamav3": _build("exllamav3"),
    "weights": _weights,
    "ceilings": _ceilings,
    "quantise": _quantise,
    "tests": _tests,
    "speed-large": _speed("large"),
    "speed-small": _speed("small"),
    "method-small": _method("small"),
    "method-large": _method("large"),
    "speed-exllamav3": _speed("small", "large", only="exllamav3"),
}
