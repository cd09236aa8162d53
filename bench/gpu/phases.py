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

from gpu.engines import AS_BEFORE, Deadline, attends_in_rows, loaded, variants
from gpu.record import Record, read

__all__ = ["Context", "prebuilt_of", "run_phase", "site_of"]

ROOT: Final = Path(__file__).resolve().parents[2]
SMALL: Final = "packaged:smollm2-135m-instruct"
EXL2_BITS: Final = 4.0
TESTS_AT_ONCE: Final = 14
"""Processes with tests, beside each other on one card."""
MARGIN_SECONDS: Final = 3.0
"""For loading and ending, inside of what a phase is given."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the process that runs phases tells one of them.

    Attributes:
        cpu: there is no GPU: the same with tiny models.
        work: a folder for what is made on the way; models stay there for the next run.
        loads: folders that were carried.
        prebuilt: a file or folder with ExLlamaV2's compiled extension, instead of what was carried.
        weights: a folder with the small model, instead of the packaged one.
        seconds: that this phase may take.
        without: engines that took the process with them at the first try.
        results: of the phases before.
    """

    cpu: bool
    work: Path
    loads: tuple[Path, ...]
    prebuilt: Path | None
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
            prebuilt=Path(given["prebuilt"]) if given.get("prebuilt") else None,
            weights=Path(given["weights"]) if given["weights"] else None,
            seconds=given["seconds"],
            without=tuple(given["without"]),
            results=given["results"],
        )

    @property
    def site(self) -> Path:
        return site_of(self.work)

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
        for phase in ("weights", "weights-large", "quantise"):
            for row in self.results.get(phase, {}).get("rows", {}).get("models", []):
                made[row["name"]] = row
        return made

    def _state(self, phase: str) -> str | None:
        state = self.results.get(phase, {}).get("state")
        return str(state) if state is not None else None


def site_of(work: Path) -> Path:
    """Where wheels are unpacked. On the path of every phase."""
    return work / "site"


def prebuilt_of(work: Path) -> Path:
    """Where a compiled extension lies. On the path of every phase."""
    return work / "prebuilt"


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
    from gpu.environment import describe, install, take_prebuilt

    install(record, context.loads, context.work, context.site)
    capability = describe(record, cpu=context.cpu)
    take_prebuilt(record, context.prebuilt, context.work, prebuilt_of(context.work), capability=capability)


def _build(library: str) -> Callable[[Context, Record], None]:
    def work(context: Context, record: Record) -> None:
        from gpu.environment import build

        cores = len(os.sched_getaffinity(0))
        if library == "exllamav3":  # four times the work, asked for by fewer: it waits for the other
            os.nice(15)
        prebuilt = prebuilt_of(context.work) if library == "exllamav2" else None
        build(record, library, context.cache_dir, jobs=max(1, cores - 2), prebuilt=prebuilt)

    return work


def _weights(context: Context, record: Record) -> None:
    from el4ner.errors import ModelError
    from el4ner.models.prepare import prepare
    from gpu.shapes import TINY, Shape
    from gpu.weights import random_model

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


def _weights_large(context: Context, record: Record) -> None:
    from gpu.shapes import SEVEN
    from gpu.weights import random_model

    small = context.models_made()["small"]
    tokenizer = Path(small["folder"])
    if context.cpu:
        _made(record, "large", tokenizer, 16, small["of"])
        return
    for name, bits in (("large", 16), ("large-gptq", 4)):
        record.doing(name)
        began = time.monotonic()
        folder = context.models / name
        _once(folder, lambda folder=folder, bits=bits: random_model(folder, SEVEN, tokenizer, device="cuda", bits=bits))  # type: ignore[misc]
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
    from el4ner.models.quantized import QuantizedName
    from el4ner.quantizing.quantize import quantize
    from gpu.calibration import FEW, FewTexts, library_texts, write_texts

    table = write_texts(library_texts(), context.work / "calibration.parquet")

    source = Path(context.models_made()["small"]["folder"])
    record.put(measured_rows=FEW.measured, rows=FEW.quantised, row_tokens=FEW.length)
    began = time.monotonic()

    class Stages:
        """Which stage it is in: what a phase that is ended was doing."""

        def start(self, label: str, total: int) -> None:
            stage = label.rpartition(": ")[2]
            record.doing(f"small-exl2: {stage}, begun after {time.monotonic() - began:.0f} s")

        def advance(self, steps: int) -> None: ...

        def done(self) -> None: ...

    name = QuantizedName(str(source.absolute()), EXL2_BITS)
    folder = quantize(name, context.cache_dir, converter=FewTexts(table), progress=Stages())
    _made(record, "small-exl2", folder, EXL2_BITS, f"quantised from {source.name}", time.monotonic() - began)


def _tests(*, quantised: bool) -> Callable[[Context, Record], None]:
    def work(context: Context, record: Record) -> None:
        from gpu.suite import run

        made = context.models_made()
        environment = {f"EL4NER_GPU_{name.upper().replace('-', '_')}": str(row["folder"]) for name, row in made.items()}
        environment["EL4NER_GPU_SMALL_OF"] = str(made["small"]["of"])
        environment["EL4NER_GPU_ENGINES"] = " ".join(context.ready)
        environment["EL4NER_CACHE_DIR"] = str(context.cache_dir)
        environment["OMP_NUM_THREADS"] = "1"  # several processes share the cores
        cores = len(os.sched_getaffinity(0))
        run(
            record,
            ROOT,
            context.work,
            quantised=quantised,
            ready=context.ready,
            seconds=context.seconds,
            environment=environment,
            at_once=max(1, min(TESTS_AT_ONCE, cores - 2)),
        )

    return work


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
        before = attends_in_rows() and AS_BEFORE not in context.without
        found = variants(model, context.models_made(), ready=ready, as_before=before)
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
    "weights-large": _weights_large,
    "ceilings": _ceilings,
    "quantise": _quantise,
    "tests": _tests(quantised=False),
    "tests-exl2": _tests(quantised=True),
    "speed-large": _speed("large"),
    "speed-small": _speed("small"),
    "method-small": _method("small"),
    "method-large": _method("large"),
    "speed-exllamav3": _speed("small", "large", only="exllamav3"),
}
