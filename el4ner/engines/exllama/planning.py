"""GPU memory of models that the ExLlama engines run, worked out before anything is loaded.

Pure arithmetic on a model's shape and settings. What stands where was read in the source of ExLlamaV2 0.3.2 (its
``scratch_space`` functions, its caches, its loader, which leaves the embeddings on the CPU) and of our driver. Figures
are bounds: somewhat too high rather than too low. ExLlamaV3 needs less scratch; the same bound is taken.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from el4ner.config import ExllamaSettings, ModelSettings
from el4ner.engines.exllama.pages import PAGE, scratch_pages
from el4ner.engines.exllama.weight_files import weight_bytes
from el4ner.errors import ConfigError, ModelError
from el4ner.models.shapes import ModelShape, read_config, shape_of

__all__ = [
    "CONTEXT_BYTES",
    "PLANNED_ENGINES",
    "Footprint",
    "Gpu",
    "GpuPlan",
    "Member",
    "Plan",
    "cache_bytes",
    "check_cache",
    "check_fits",
    "footprint",
    "gpus_found",
    "gpus_of",
    "least_cache_tokens",
    "member",
    "plan",
    "quantized_weight_bytes",
    "scratch_bytes",
]

PLANNED_ENGINES: Final = frozenset({"exllamav2", "exllamav3"})
"""Engines whose memory is planned."""
GB: Final = 1_000_000_000
MB: Final = 1 << 20
CONTEXT_BYTES: Final = 512 * MB
"""CUDA's own context with the kernels of torch and the library: once for each process and GPU."""
LONGEST_PROMPT: Final = 2048
"""Tokens of the longest prompt that the method sends, with its answer: the instruction and the types (some 250), five
demonstrations (at most 170 tokens each in the shipped pools), a sentence of 1,000 characters, its spans, 96 tokens."""
DEQUANTIZED: Final = 512 << 20
"""The most weights that ExLlamaV2 unpacks at a time (``max_dq_size``)."""
LONGEST_PASS: Final = 4096
"""The most tokens of one forward pass, whatever ``max_batch_tokens`` says."""
LOGITS: Final = 1 << 26
"""The most float32 logits that the driver makes at a time."""
WORKSPACE_BYTES: Final = 160 * MB
"""Work space of cuBLAS and what torch's allocator cannot use."""
UNDERRATED: Final = 1.02
"""Files of a target of B bits are up to so much larger: the layers' bits are rounded up, and norms are not packed."""
HEAD_EXTRA: Final = 0.6
"""Bits of scales and groups of a parameter of an EXL2 head, beside those that were asked for."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of one model on a GPU."""

    weights: int
    cache: int
    scratch: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.cache + self.scratch


@dataclass(frozen=True, slots=True)
class Member:
    """A model to place. ``device``: ``auto``, ``cuda`` (the first GPU) or ``cuda:1``.

    ``token_bytes``: of a token in the cache; ``least_tokens``: the smallest cache that works. Both for advice.
    """

    name: str
    device: str
    footprint: Footprint
    reserve_bytes: int
    cache_tokens: int
    token_bytes: float
    least_tokens: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU by CUDA's number. ``free_bytes``: what nobody uses yet."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """What goes onto one GPU. ``reserve_bytes`` are left to others: the most that any of the members asks for."""

    gpu: Gpu
    members: tuple[Member, ...]

    @property
    def context_bytes(self) -> int:
        """See :data:`CONTEXT_BYTES`; nothing where no model is."""
        return CONTEXT_BYTES if self.members else 0

    @property
    def reserve_bytes(self) -> int:
        """What stays free on purpose."""
        return max((member.reserve_bytes for member in self.members), default=0)

    @property
    def used_bytes(self) -> int:
        """Weights, caches, scratch and CUDA's context."""
        return self.context_bytes + sum(member.footprint.total for member in self.members)

    @property
    def left_bytes(self) -> int:
        """What is free then, the reserve not counted; below 0 where the models do not fit."""
        return self.gpu.free_bytes - self.used_bytes - self.reserve_bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """Every GPU, by number, and what goes onto it."""

    gpus: tuple[GpuPlan, ...]

    def index_of(self, name: str) -> int:
        """The GPU of a member. Raises KeyError for a name that was not planned."""
        for plan_of_gpu in self.gpus:
            if any(placed.name == name for placed in plan_of_gpu.members):
                return plan_of_gpu.gpu.index
        raise KeyError(name)


def cache_bytes(shape: ModelShape, tokens: int, bits: int) -> int:
    """The key-value cache, as both libraries store it: below 16 bits with a scale for every 32 numbers, and one layer
    unpacked. Windows do not make it smaller: every layer keeps every token."""
    layer = 2 * tokens * shape.kv_heads * shape.head_dim
    if bits == 16:
        return shape.layers * layer * 2
    packed = layer * bits // 8 + layer // 32 * 2
    return shape.layers * packed + layer * 2


def scratch_bytes(shape: ModelShape, settings: ModelSettings) -> int:
    """What a forward pass needs beside weights and cache."""
    exllama = settings.exllama
    chunk = min(settings.max_batch_tokens or LONGEST_PASS, LONGEST_PASS, exllama.cache_tokens)
    heads, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention = chunk * max(heads, shape.hidden_size) * 2 + 2 * min(max(shape.linear_sizes[:3]), DEQUANTIZED)
    widest = max(shape.hidden_size, shape.intermediate_size)
    feed_forward = chunk * shape.hidden_size * 2 + 2 * chunk * widest * 2 + 2 * min(shape.linear_sizes[3], DEQUANTIZED)
    head = 2 * min(shape.embedding_parameters, DEQUANTIZED)
    fixed = max(attention, feed_forward, head)
    passing = chunk * (heads + 2 * keys) * 2 + 2 * chunk * shape.hidden_size * 4
    rotary = 2 * min(shape.context, exllama.cache_tokens) * shape.head_dim * 2
    rows = max(exllama.max_batch_size, min(exllama.score_rows, chunk))
    if exllama.attention == "flash":
        attending = chunk * heads * 2
    else:
        # In plain torch the pages of every row are gathered, layer after layer, and a mask says what is seen. Torch's
        # kernel gathers where it cannot read pages.
        gathered = min(rows * LONGEST_PROMPT, 4 * exllama.cache_tokens)
        mask = chunk * max(1, shape.heads // shape.kv_heads) * LONGEST_PROMPT * 3
        attending = gathered * keys * 2 * 2 + (mask if exllama.attention != "varlen" else chunk * heads * 2)
    vocabulary = shape.vocab_size
    logits = max(min(LOGITS, chunk * vocabulary) * 10, exllama.max_batch_size * vocabulary * 6)
    return fixed + passing + rotary + max(attending, logits) + WORKSPACE_BYTES


def quantized_weight_bytes(shape: ModelShape, bits: float, head_bits: float) -> int:
    """Weights on the GPU of a model quantised to ``bits``, by arithmetic. The embeddings stay on the CPU."""
    head = 16.0 if head_bits >= 16 else head_bits + HEAD_EXTRA
    packed = shape.decoder_parameters * bits / 8 * UNDERRATED + shape.embedding_parameters * head / 8
    return int(packed) + shape.norm_parameters * 2


def footprint(shape: ModelShape, weights: int, settings: ModelSettings) -> Footprint:
    """Bytes of a model with ``weights`` bytes of weights under these settings."""
    exllama = settings.exllama
    return Footprint(
        weights, cache_bytes(shape, exllama.cache_tokens, exllama.cache_bits), scratch_bytes(shape, settings)
    )


def member(name: str, shape: ModelShape, weights: int, settings: ModelSettings) -> Member:
    """What :func:`plan` places."""
    exllama = settings.exllama
    used = footprint(shape, weights, settings)
    return Member(
        name=name,
        device=settings.device,
        footprint=used,
        reserve_bytes=exllama.reserve_mb * MB,
        cache_tokens=exllama.cache_tokens,
        token_bytes=used.cache / exllama.cache_tokens,
        least_tokens=least_cache_tokens(shape, exllama.score_rows),
    )


def least_cache_tokens(shape: ModelShape, score_rows: int, prompt_tokens: int = LONGEST_PROMPT) -> int:
    """The smallest cache in which two of the longest prompts, with their answers, have room beside the pages that are
    kept for rows. A model that reads less than ``prompt_tokens`` is never sent so much."""
    prompt_pages = -(-min(prompt_tokens, shape.context) // PAGE)
    pages = 2 * prompt_pages
    while pages - scratch_pages(score_rows, pages) < 2 * prompt_pages:
        pages += 1
    return pages * PAGE


def check_cache(shape: ModelShape, exllama: ExllamaSettings, name: str, prompt_tokens: int = LONGEST_PROMPT) -> None:
    """Raise a ConfigError if the cache cannot hold two of the longest prompts. See :func:`least_cache_tokens`."""
    least = least_cache_tokens(shape, exllama.score_rows, prompt_tokens)
    if exllama.cache_tokens < least:
        raise ConfigError(
            f"models.{name}.exllama.cache_tokens: {exllama.cache_tokens} is too small: two prompts of "
            f"{min(prompt_tokens, shape.context)} tokens and what is read behind them need {least}"
        )


def check_fits(folder: Path, settings: ModelSettings, free_bytes: int, name: str) -> None:
    """Before a model is loaded: does it fit ``free_bytes`` of a GPU whose context is there already?

    Raises:
        ConfigError: the cache is smaller than what the method sends.
        ModelError: it does not fit; by how much, and what would help. Or the folder cannot be read.
    """
    shape = shape_of(read_config(folder), folder / "config.json")
    check_cache(shape, settings.exllama, name)
    planned = member(name, shape, weight_bytes(folder), settings)
    missing = planned.footprint.total + planned.reserve_bytes - free_bytes
    if missing > 0:
        raise ModelError(_too_much(planned, "the GPU", free_bytes - planned.reserve_bytes, missing))


def plan(members: Sequence[Member], gpus: Sequence[Gpu]) -> Plan:
    """Give every member a GPU: those that name one first, then the others, the largest first, each to the first GPU
    with room; where that leads nowhere, every other way is tried. The same arguments give the same plan.

    Raises:
        ConfigError: a member names no GPU or one that is not there, or the members do not fit; by how much, and what
            would help.
    """
    by_index = {gpu.index: gpu for gpu in sorted(gpus, key=lambda gpu: gpu.index)}
    if not by_index:
        raise ConfigError("there is no GPU to plan for")
    placed: dict[int, list[Member]] = {index: [] for index in by_index}
    floating: list[Member] = []
    for candidate in members:
        if candidate.device == "auto":
            floating.append(candidate)
            continue
        index = _index_of(candidate, by_index)
        placed[index].append(candidate)
    for index, there in placed.items():
        done = GpuPlan(by_index[index], tuple(there))
        if done.left_bytes < 0:
            raise ConfigError(_overfull(done))
    floating.sort(key=lambda candidate: (-candidate.footprint.total, candidate.name))
    if not _place(floating, 0, placed, by_index):
        raise ConfigError(_nowhere(floating, placed, by_index))
    return Plan(tuple(GpuPlan(gpu, tuple(placed[index])) for index, gpu in by_index.items()))


def gpus_of(gigabytes: Sequence[float]) -> list[Gpu]:
    """GPUs that need not be there, of so many GB (10⁹ bytes are too few: cards count in 2³⁰), all of it free but for
    what a driver keeps."""
    gpus = []
    for index, size in enumerate(gigabytes):
        total = int(size * (1 << 30))
        gpus.append(Gpu(index, f"{size:g} GB", total, total - min(total // 20, 400 * MB)))
    return gpus


def gpus_found() -> list[Gpu]:
    """The GPUs of this machine, as torch sees them; none without an NVIDIA driver."""
    if shutil.which("nvidia-smi") is None and not Path("/proc/driver/nvidia/version").exists():
        return []
    import torch

    gpus = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        gpus.append(Gpu(index, torch.cuda.get_device_name(index), total, free))
    return gpus


def _index_of(placed_member: Member, gpus: Mapping[int, Gpu]) -> int:
    kind, _, number = placed_member.device.partition(":")
    if kind != "cuda":
        raise ConfigError(f"models.{placed_member.name}.device: this engine needs a GPU, not {placed_member.device!r}")
    index = int(number) if number else min(gpus)
    if index not in gpus:
        raise ConfigError(
            f"models.{placed_member.name}.device: there is no {placed_member.device}; there are: "
            + ", ".join(f"cuda:{known}" for known in gpus)
        )
    return index


def _place(members: Sequence[Member], at: int, placed: dict[int, list[Member]], gpus: Mapping[int, Gpu]) -> bool:
    """First fit, and back where it fails. Ensembles have a handful of members, so that every way can be tried."""
    if at == len(members):
        return True
    tried = set()
    for index, gpu in gpus.items():
        now = GpuPlan(gpu, tuple(placed[index]))
        # GPUs in the same state are as good as each other.
        state = (gpu.free_bytes - now.used_bytes, now.reserve_bytes, bool(now.members))
        if state in tried:
            continue
        tried.add(state)
        if GpuPlan(gpu, (*now.members, members[at])).left_bytes >= 0:
            placed[index].append(members[at])
            if _place(members, at + 1, placed, gpus):
                return True
            placed[index].pop()
    return False


def _nowhere(floating: Sequence[Member], placed: Mapping[int, list[Member]], gpus: Mapping[int, Gpu]) -> str:
    """The members that no way of placing helps: about the first that first fit cannot place."""
    there = {index: list(members) for index, members in placed.items()}
    for waiting in floating:
        for index, gpu in gpus.items():
            if GpuPlan(gpu, (*there[index], waiting)).left_bytes >= 0:
                there[index].append(waiting)
                break
        else:
            best = max(gpus, key=lambda index: (GpuPlan(gpus[index], (*there[index], waiting)).left_bytes, -index))
            everything = sum(waiting.footprint.total for part in (floating, *placed.values()) for waiting in part)
            room = sum(GpuPlan(gpu, (waiting,)).left_bytes + waiting.footprint.total for gpu in gpus.values())
            rest = f"; all members together: {(everything - room) / GB:.1f} GB too much" if everything > room else ""
            return _overfull(GpuPlan(gpus[best], (*there[best], waiting))) + rest
    raise AssertionError("first fit places what no other way places")


def _overfull(full: GpuPlan) -> str:
    last = full.members[-1]
    before = GpuPlan(full.gpu, full.members[:-1])
    reserve = full.reserve_bytes
    free = full.gpu.free_bytes - before.used_bytes - (0 if before.members else CONTEXT_BYTES) - reserve
    where = f"cuda:{full.gpu.index} ({full.gpu.name})"
    if before.members:
        where += " beside " + ", ".join(neighbour.name for neighbour in before.members)
    return _too_much(last, where, free, -full.left_bytes)


def _too_much(refused: Member, where: str, free: int, missing: int) -> str:
    """One line: what it needs, what there is, by how much it is too much, and what would help."""
    used = refused.footprint
    tokens = (
        (refused.cache_tokens - int(missing / refused.token_bytes) - PAGE) // PAGE * PAGE if refused.token_bytes else 0
    )
    smaller = refused.least_tokens <= tokens < refused.cache_tokens
    if smaller:
        remedy = f"set models.{refused.name}.exllama.cache_tokens to {tokens}, or lower its cache_bits"
    elif used.cache > missing:
        remedy = f"lower models.{refused.name}.exllama.cache_bits and cache_tokens, or quantise it to fewer bits"
    else:
        remedy = "quantise it to fewer bits, take a smaller model or another GPU"
    return (
        f"models.{refused.name}: needs {used.total / GB:.1f} GB (weights {used.weights / GB:.1f}, cache "
        f"{used.cache / GB:.1f}, scratch {used.scratch / GB:.1f}) and {where} has {max(free, 0) / GB:.1f} GB free: "
        f"{missing / GB:.1f} GB too much: {remedy}"
    )
