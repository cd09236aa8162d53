"""The engines of one model that are measured side by side, and how their turns go."""

from __future__ import annotations

import inspect
import os
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gpu.record import Record
from gpu.runner import LOST

if TYPE_CHECKING:
    from el4ner.engines.base import Engine

__all__ = ["AS_BEFORE", "Deadline", "Variant", "attends_in_rows", "in_turns", "loaded", "spread", "variants"]

AS_BEFORE: Final = "transformers, as before"
"""The transformers engine with the rows of a pass attended one by one, as it was when the goals were set."""
TOKENS_BEFORE: Final = 4096
"""The most tokens of a pass then."""
CACHE_TOKENS: Final = {"small": 131_072, "large": 98_304, "tiny": 8_192}
PREFIX_CACHE_MB: Final = {"small": 16_384, "large": 6_144, "tiny": 64}
"""Prompts of 128 sentences stay, in the transformers engine as in the libraries' own caches. The large model's weights
are on the card four times at once, two of them from transformers: all of it fits 80 GB."""


@dataclass(frozen=True, slots=True)
class Variant:
    """An engine with weights: a column of the comparison."""

    label: str
    engine: str
    folder: str
    bits: float
    """Of a parameter in the layers."""
    attend: str | None = None
    """How the transformers engine attends to the rows of a pass; None: as it does by itself."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a phase has to be through, by its own clock."""

    at: float

    @classmethod
    def within(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        return self.at - time.monotonic()


def attends_in_rows() -> bool:
    """Whether the transformers engine can be told to attend as it did before."""
    from el4ner.engines.torch.transformers_engine import TransformersEngine

    return "attend" in inspect.signature(TransformersEngine.load).parameters


def variants(
    model: str, models: Mapping[str, Mapping[str, Any]], *, ready: Collection[str], as_before: bool = False
) -> list[Variant]:
    """What there is of ``model`` (``small`` or ``large``): the reference first, then each library that is ready.

    Args:
        model: its name in ``models``.
        models: name → ``folder`` and ``bits``; packed ones are called after it, as ``large-gptq``.
        ready: engines that can be imported.
        as_before: with the transformers engine as it was, beside the one that is.
    """
    found = []
    for engine in ("transformers", "exllamav2", "exllamav3"):
        if engine not in ready:
            continue
        for name, facts in models.items():
            base, _, packed = name.partition("-")
            if base != model or (packed and engine != "exllamav2"):
                continue
            label = f"{engine} {packed}" if packed else engine
            if engine == "transformers" and as_before:
                found.append(Variant(AS_BEFORE, engine, str(facts["folder"]), float(facts["bits"]), attend="rows"))
            found.append(Variant(label, engine, str(facts["folder"]), float(facts["bits"])))
    return found


def load(variant: Variant, *, model: str, cpu: bool, cache_dir: Path) -> Engine:
    from el4ner.config import ExllamaSettings, ModelSettings
    from el4ner.engines.registry import load_engine
    from el4ner.engines.torch.transformers_engine import TransformersEngine

    name = variant.label.replace(",", "").replace(" ", "-")
    size = "tiny" if cpu else model
    settings = ModelSettings(
        source=variant.folder,
        engine=variant.engine,  # type: ignore[arg-type]
        device="cpu" if cpu else "cuda",
        prefix_cache_mb=PREFIX_CACHE_MB[size],
        exllama=ExllamaSettings(cache_tokens=CACHE_TOKENS[size], max_batch_size=128),
    )
    if variant.attend is None:
        return load_engine(name, settings, cache_dir=cache_dir)
    return TransformersEngine.load(
        name,
        Path(variant.folder),
        device=settings.device,
        max_batch_tokens=TOKENS_BEFORE,
        prefix_cache_bytes=settings.prefix_cache_mb << 20,
        cache_dir=cache_dir,
        attend=variant.attend,  # type: ignore[arg-type]
    )


@contextmanager
def loaded(
    found: Sequence[Variant], record: Record, *, model: str, without: Collection[str], cpu: bool, cache_dir: Path
) -> Iterator[dict[str, Engine]]:
    """Every engine that loads, by its label; one that does not is a problem of its own."""
    engines: dict[str, Engine] = {}
    try:
        for variant in found:
            if variant.label in without:
                continue
            record.doing(variant.label)
            began = time.monotonic()
            try:
                engines[variant.label] = load(variant, model=model, cpu=cpu, cache_dir=cache_dir)
            except Exception as error:  # a library's own errors are anything
                _reported(record, f"load {variant.label}", error)
            else:
                record.row("loads", engine=variant.label, seconds=time.monotonic() - began, bits=variant.bits)
        record.doing(None)
        yield engines
    finally:
        for engine in engines.values():
            engine.close()


def in_turns(
    engines: dict[str, Any],
    work: Callable[[Any], Any],
    record: Record,
    deadline: Deadline,
    *,
    what: str,
    repeats: int,
    warm: int = 1,
    each: Callable[[str, list[Any]], None] | None = None,
) -> dict[str, list[Any]]:
    """``work`` of each engine, round by round, so that all of them meet the same conditions: the results of the rounds
    after the warm ones. No further round begins that would not end in time; there is one at least, unless there is no
    time at all. An engine that fails is taken out of ``engines``. ``each`` is told an engine's results after each
    turn: what is written then is there whenever the process ends."""
    found: dict[str, list[Any]] = {label: [] for label in engines}
    longest = 0.0
    for number in range(warm + repeats):
        began = time.monotonic()
        if deadline.left < longest * 1.2 + 0.1 and (number > warm or deadline.left < longest):
            break
        for label in list(engines):
            record.doing(label)
            try:
                result = work(engines[label])
            except Exception as error:  # a library's own errors are anything
                _reported(record, f"{what}, {label}", error)
                del engines[label]
                continue
            if number >= warm:
                found[label].append(result)
                if each is not None:
                    each(label, found[label])
        record.doing(None)
        longest = max(longest, time.monotonic() - began) if number >= warm else time.monotonic() - began
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median, and between what it lies."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values), "times": len(values)}


def _reported(record: Record, what: str, error: Exception) -> None:
    record.problem(what, error)
    said = str(error).lower()
    if "cuda error" in said and "out of memory" not in said:
        os._exit(LOST)  # `doing` names the engine: the phase is run again without it
