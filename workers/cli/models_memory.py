"""What an ensemble's members take on GPUs: the second table of ``el4ner models list``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from el4ner.errors import El4nerError

if TYPE_CHECKING:
    from el4ner.config import Settings
    from el4ner.engines.exllama.planning import Footprint, Gpu, GpuPlan

__all__ = ["Memory", "MemoryRow", "memory_of"]


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """A member of an ExLlama engine. ``footprint`` None: nothing is known of its model. ``gpu``: where it goes."""

    name: str
    source: str
    engine: str
    format: str | None
    bits: float | None
    basis: str | None
    licence: str | None
    cache_tokens: int
    cache_bits: int
    footprint: Footprint | None
    gpu: str


@dataclass(frozen=True, slots=True)
class Memory:
    """The members, the GPUs that something goes onto, and what is wrong, a line each."""

    members: tuple[MemoryRow, ...]
    gpus: tuple[GpuPlan, ...]
    problems: tuple[str, ...]
    has_gpus: bool

    def as_lines(self) -> list[dict[str, Any]]:
        """As objects for programs: ``kind`` is ``member``, ``gpu`` or ``problem``; sizes in bytes."""
        lines: list[dict[str, Any]] = []
        for row in self.members:
            line = {"kind": "member", **asdict(row)}
            line["total"] = None if row.footprint is None else row.footprint.total
            lines.append(line)
        lines += [
            {
                "kind": "gpu",
                **asdict(gpu.gpu),
                "members": [member.name for member in gpu.members],
                "used_bytes": gpu.used_bytes,
                "context_bytes": gpu.context_bytes,
                "reserve_bytes": gpu.reserve_bytes,
                "left_bytes": gpu.left_bytes,
            }
            for gpu in self.gpus
        ]
        lines += [{"kind": "problem", "message": problem} for problem in self.problems]
        return lines


def memory_of(settings: Settings, gpus: Sequence[Gpu], cache_dir: Path) -> Memory:
    """Plan the members whose engine is exllamav2 or exllamav3. Nothing is fetched or loaded, no problem is raised."""
    from el4ner.engines.exllama.planning import PLANNED_ENGINES, check_cache, member, plan
    from el4ner.engines.model_facts import facts_of

    problems: list[str] = []
    known = []
    placed: dict[str, str] = {}
    rows = []
    for name in settings.ensemble.members:
        model = settings.models[name]
        if model.engine not in PLANNED_ENGINES:
            continue
        facts = None
        try:
            facts = facts_of(model.source, cache_dir)
            if facts is None:
                problems.append(f"models.{name}.source: {model.source} is not here, and nothing is known of its size")
            else:
                check_cache(facts.shape, model.exllama, name)
        except El4nerError as error:
            problems.append(str(error))
        if facts is not None:
            known.append(member(name, facts.shape, facts.weights, model))
        rows.append((name, model, facts))
    planned: tuple[GpuPlan, ...] = ()
    if gpus and known:
        try:
            placement = plan(known, gpus)
        except El4nerError as error:
            problems.append(str(error))
        else:
            planned = tuple(each for each in placement.gpus if each.members)
            placed = {each.name: f"cuda:{placement.index_of(each.name)}" for each in known}
    elif known:
        problems.append("no GPU is found here: give sizes with --gpu-gb to see what fits")
    footprints = {each.name: each.footprint for each in known}
    return Memory(
        members=tuple(
            MemoryRow(
                name=name,
                source=model.source,
                engine=model.engine,
                format=facts.format if facts else None,
                bits=facts.bits if facts else None,
                basis=facts.basis if facts else None,
                licence=facts.licence if facts else None,
                cache_tokens=model.exllama.cache_tokens,
                cache_bits=model.exllama.cache_bits,
                footprint=footprints.get(name),
                gpu=placed.get(name, "–"),
            )
            for name, model, facts in rows
        ),
        gpus=planned,
        problems=tuple(problems),
        has_gpus=bool(gpus),
    )
