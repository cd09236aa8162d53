"""One forward pass over rows of different lengths, without padding.

All new tokens of all rows stand one behind the other in a single sequence, so that every matrix product of the model
is one large product; only attention looks at the rows (:func:`packed_attention`, registered with transformers as an
attention implementation): one by one on a processor, together on a GPU. A row is a :class:`PassSegment`: key-value
states of what it has read, a chain of tokens that continue it, and perhaps a tree of tokens behind the chain.

Decoding is the other extreme, one token for each of many rows: one attention call per layer serves them all, and on a
GPU steps are recorded and replayed (:mod:`el4ner.engines.torch.decode_graphs`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from inspect import signature
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import AttentionInterface

from el4ner.engines.device_copies import upload
from el4ner.engines.packing import TokenTree
from el4ner.engines.sdpa import without_cudnn
from el4ner.engines.torch.attention_plans import KEYS, AttentionPlan, DecodingPlan, PassSegment, RowsPlan
from el4ner.engines.torch.decode_graphs import CudaRecorder, DecodeGraphs, DecodingStates, Recorder
from el4ner.engines.torch.joint_attention import JointPlan
from el4ner.engines.torch.middle_layers import MiddleExit, Shorter
from el4ner.engines.torch.past_states import PastStates
from el4ner.engines.torch.stored_tables import Head
from el4ner.errors import ModelError

__all__ = ["Attend", "PackedModel"]

IMPLEMENTATION: Final = "el4ner_packed"
CAPACITY: Final = 16
"""Where rows attend together a row's room is a multiple of this: kernels want keys in such numbers."""
CHECKED: Final = 4
"""Prompts of the self-check, two rows each."""
LOGITS: Final = {"cpu": 1 << 24, "cuda": 1 << 28}
"""The most float32 logits at a time: 64 MB, 1 GB."""


Attend = Literal["rows", "together"]
"""How rows of a pass attend: one by one, or all by the same calls."""


class PackedModel:
    """A causal language model of transformers, run over packed segments. Counts what it reads and how long it takes.

    Args:
        model: of transformers, loaded with the attention implementation :data:`IMPLEMENTATION`.
        dtype: of states and keys.
        attend: how rows of a pass attend; None: ``together`` on a GPU, ``rows`` elsewhere.
        recorder: of decoding steps; None: CUDA graphs on a GPU where rows attend together, none elsewhere.
    """

    def __init__(
        self,
        model: Any,
        *,
        dtype: torch.dtype,
        attend: Attend | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._model = model
        self._body = model.base_model
        self._head = model.get_output_embeddings()
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        self._config = config
        self._layers = int(config.num_hidden_layers)
        self._middle = self._layers // 2
        layers = getattr(self._body, "layers", None)
        self._exit: MiddleExit | None = None
        if isinstance(layers, nn.ModuleList) and self._middle + 1 < len(layers) == self._layers:
            self._exit = MiddleExit(layers, self._middle)
        self._kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
        self._head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
        self._softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.vocabulary = int(self._head.weight.shape[0])
        self.dtype = dtype
        self.device: torch.device = model.device
        self.attend: Attend = attend or ("together" if self.device.type == "cuda" else "rows")
        self.seconds = 0.0
        self.tokens = 0
        if recorder is None and self.device.type == "cuda" and self.attend == "together":
            recorder = CudaRecorder(self.device)
        self._graphs: DecodeGraphs | None = None
        if recorder is not None:
            states = DecodingStates(self._layers, self._kv_heads, self._head_dim, self.dtype, self.device)
            self._graphs = DecodeGraphs(self._decode_logits, states, recorder, self.dtype, self.device)

    @property
    def hidden_size(self) -> int:
        """Dimensions of one hidden state."""
        return int(self._config.hidden_size)

    @property
    def bytes_per_token(self) -> int:
        """Of key-value states."""
        return self._layers * 2 * self._kv_heads * self._head_dim * self.dtype.itemsize

    @property
    def pass_bytes_per_token(self) -> int:
        """About what a pass needs for each token: some states of a layer, and what its feed-forward part makes."""
        hidden = self.hidden_size
        wide = int(getattr(self._config, "intermediate_size", None) or 4 * hidden)
        return (16 * hidden + 4 * wide) * self.dtype.itemsize

    def new_group(self, rows: int, capacity: int) -> torch.Tensor:
        """Room for the key-value states of ``rows`` rows, ``capacity`` tokens each:
        ``[layers, 2, rows, kv heads, capacity, head_dim]``.

        Zeroed where masked places are read, since they must not hold a NaN.
        """
        make = torch.empty if self.attend == "rows" and rows == 1 else torch.zeros
        return make(self._shape(rows, self._room(capacity)), dtype=self.dtype, device=self.device)

    def new_room(self, tokens: int) -> torch.Tensor:
        """A group of one row that stands behind others' states (:class:`PassSegment`), for ``tokens`` of its own."""
        return torch.empty(self._shape(1, tokens), dtype=self.dtype, device=self.device)

    def decoding_group(self, rows: int, capacity: int) -> torch.Tensor:
        """As :meth:`new_group`, for rows that are decoded together; it may have more rows and capacity. The group that
        was given out before must not be used any more."""
        if self._graphs is not None:
            return self._graphs.group(rows, capacity)
        return torch.zeros(self._shape(rows, self._room(capacity)), dtype=self.dtype, device=self.device)

    def decoding_room(self, rows: int, capacity: int) -> int:
        """Tokens that :meth:`decoding_group` takes room for."""
        return self._graphs.room(rows, capacity) if self._graphs is not None else rows * self._room(capacity)

    def _shape(self, rows: int, tokens: int) -> tuple[int, ...]:
        return self._layers, 2, rows, self._kv_heads, tokens, self._head_dim

    def _room(self, capacity: int) -> int:
        """Tokens of a row for which there is room."""
        multiple = CAPACITY if self.attend == "together" else KEYS
        return -(-capacity // multiple) * multiple

    def release(self) -> None:
        """Give back what is kept from one call to the next."""
        if self._graphs is not None:
            self._graphs.release()

    def forward(
        self,
        segments: Sequence[PassSegment],
        *,
        with_middle: bool = False,
        windows: dict[int, int | None] | None = None,
    ) -> torch.Tensor:
        """Read every segment's new tokens; their last hidden states ``[sum of new tokens, hidden]``, in order.

        ``with_middle``: the middle layer's states stand before the last ones, ``[…, 2 · hidden]``. ``windows``, if
        given, is filled with every layer's attention window. Behind the middle layer trees that are read only that far
        have zeros.
        """
        started = time.perf_counter()
        tokens: list[int] = []
        positions: list[int] = []
        for segment in segments:
            tokens += segment.chain
            tokens += segment.tree.tokens
            end = segment.past + len(segment.chain)
            positions += range(segment.past, end)
            positions += [end - 1 + depth for depth in segment.tree.depths]
        plan = self._plan(segments, windows)
        shorter = self._shorter(segments, windows) if with_middle else None
        ids, places = upload([np.asarray(tokens), np.asarray(positions)], self.device)
        hidden = self._read(ids[None], places[None], plan, with_middle=with_middle, shorter=shorter)
        self.seconds += time.perf_counter() - started
        self.tokens += len(tokens)
        return hidden

    def _shorter(self, segments: Sequence[PassSegment], windows: dict[int, int | None] | None) -> Shorter | None:
        """All but the trees that are read to the middle; None where nothing is left behind."""
        if self._exit is None or not any(segment.to_middle and len(segment.tree) for segment in segments):
            return None
        goes_on = [
            np.repeat([True, not segment.to_middle], [len(segment.chain), len(segment.tree)]) for segment in segments
        ]
        (places,) = upload([np.flatnonzero(np.concatenate(goes_on))], self.device)
        left = [replace(segment, tree=TokenTree()) if segment.to_middle else segment for segment in segments]
        return Shorter(places, self._plan(left, windows))

    def _plan(self, segments: Sequence[PassSegment], windows: dict[int, int | None] | None) -> AttentionPlan:
        if self.attend == "together":
            return JointPlan(segments, self._kv_heads, self.dtype, windows)
        return RowsPlan(segments, self.dtype, self.device, windows)

    def decode(self, group: torch.Tensor, tokens: Sequence[int], lengths: Sequence[int]) -> torch.Tensor:
        """Read ``tokens[row]`` behind the ``lengths[row]`` tokens that row ``row`` of the group holds; next-token
        logits ``[rows, vocabulary]`` in float32, valid until the next call. The group may have more rows than that:
        what they hold is lost."""
        started = time.perf_counter()
        logits = self._graphs.step(group, tokens, lengths) if self._graphs is not None else None
        if logits is None:
            ids, lengths_there = upload([np.asarray(tokens), np.asarray(lengths)], self.device)
            plan = DecodingPlan(group, lengths_there, max(lengths) + 1, self.dtype, first=min(lengths))
            logits = self._decode_logits(ids[None], lengths_there[None], plan)
        self.seconds += time.perf_counter() - started
        self.tokens += len(tokens)
        return logits

    def _decode_logits(self, ids: torch.Tensor, positions: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
        return self._capped(self._head(self._read(ids, positions, plan)).float())

    def check(self, seed: int = 0) -> None:
        """Compare packed passes with plain ones, on a few prompts of random tokens.

        Raises:
            ModelError: they disagree: the architecture does something that packed passes do not know.
        """
        # A member that shows hidden states does without a head: nothing is kept of it.
        with self._head.in_pieces() if isinstance(self._head, Head) else nullcontext():
            self._check(seed)

    def _check(self, seed: int) -> None:
        kinds = set(getattr(self._config, "layer_types", None) or ())
        if not kinds <= {"full_attention", "sliding_attention"}:
            raise ModelError(f"{type(self._model).__name__} has layers of kind {sorted(kinds)}")
        generator = torch.Generator().manual_seed(seed)
        prompts = torch.randint(0, self.vocabulary, (CHECKED, 32), generator=generator).tolist()
        prefixes = [ids[:20] for ids in prompts]
        tails = [(ids[20:26], [*ids[20:23], *ids[26:29]]) for ids in prompts]
        trees = [TokenTree() for _ in prompts]
        ends = [[tree.add(tail) for tail in pair] for tree, pair in zip(trees, tails, strict=True)]
        states = self.new_group(CHECKED, 20 + max(map(len, trees)))
        self.forward([PassSegment(states, slot, 0, prefix[:9]) for slot, prefix in enumerate(prefixes)])
        windows: dict[int, int | None] = {}
        behind = [PassSegment(states, slot, 9, prefixes[slot][9:], trees[slot]) for slot in range(CHECKED)]
        if self.attend == "rows":  # half of the rows stand behind states that are elsewhere
            for segment in behind[1::2]:
                segment.behind = (
                    PastStates(segment.states[:, :, :, :4], 4),
                    PastStates(segment.states[:, :, :, 4:], 5),
                )
                segment.group, segment.slot = self.new_room(len(segment.chain)), 0
        hidden = self.forward(behind, windows=windows)
        starts = np.cumsum([0, *(segment.new for segment in behind)]) + 11
        places = [starts[slot] + end for slot, pair in enumerate(ends) for end in pair]
        scored = self.logits(self.pick(hidden, places))
        rows = [[*prefix, *tail] for prefix, pair in zip(prefixes, tails, strict=True) for tail in pair]
        group = self.decoding_group(len(rows), len(rows[0]))
        self.forward([PassSegment(group, slot, 0, row[:-1]) for slot, row in enumerate(rows)])
        decoded = self.decode(group, [row[-1] for row in rows], [len(row) - 1 for row in rows])
        self._model.set_attn_implementation("sdpa")
        try:
            last_alone = "logits_to_keep" in signature(self._model.forward).parameters
            ids = torch.tensor(rows, device=self.device)
            output = self._model(input_ids=ids, use_cache=False, **({"logits_to_keep": 1} if last_alone else {}))
            plain = output.logits[:, -1].float()
        finally:
            self._model.set_attn_implementation(IMPLEMENTATION)
        for what, logits in (("scored", scored), ("decoded", decoded)):
            apart = _apart(logits, plain)
            if not agrees(apart, self.dtype):
                raise ModelError(
                    f"{type(self._model).__name__}: packed passes differ from plain ones ({what}): by "
                    f"{', '.join(f'{value:.1%}' for value in apart)}"
                )
        self._check_middle(prefixes, trees)
        for layer, kind in enumerate(getattr(self._config, "layer_types", None) or ()):
            window = self._config.sliding_window if kind == "sliding_attention" else None
            if windows.get(layer) != window:
                raise ModelError(f"{type(self._model).__name__}: layer {layer} does not tell its attention window")

    def _check_middle(self, prefixes: Sequence[Sequence[int]], trees: Sequence[TokenTree]) -> None:
        """Compare passes that leave trees at the middle layer with whole ones.

        Raises:
            ModelError: they disagree.
        """
        whole, left = (
            self.forward(
                [
                    PassSegment(self.new_group(1, len(prefix) + len(tree)), 0, 0, prefix, tree, to_middle)
                    for prefix, tree in zip(prefixes, trees, strict=True)
                ],
                with_middle=True,
            ).float()
            for to_middle in (False, True)
        )
        if self._exit is not None:
            size = self.hidden_size
            goes_on = left[:, size:].any(dim=1)
            apart = [*_apart(left[:, :size], whole[:, :size]), *_apart(left[goes_on, size:], whole[goes_on, size:])]
            if not agrees(apart, self.dtype):
                raise ModelError(
                    f"{type(self._model).__name__}: passes that end at the middle layer differ from whole ones: "
                    f"by {max(apart):.1%}"
                )

    def raw_seconds(self, tokens: int, batch: int) -> float:
        """Seconds that the plain model takes to read ``batch`` rows of ``tokens`` random tokens: for benchmarks."""
        ids = torch.randint(0, self.vocabulary, (batch, tokens), device=self.device)
        self._model.set_attn_implementation("sdpa")
        try:
            started = time.perf_counter()
            self._body(input_ids=ids, use_cache=False).last_hidden_state[0, 0, 0].item()
            return time.perf_counter() - started
        finally:
            self._model.set_attn_implementation(IMPLEMENTATION)

    def _read(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        plan: AttentionPlan,
        *,
        with_middle: bool = False,
        shorter: Shorter | None = None,
    ) -> torch.Tensor:
        """``ids`` and ``positions`` ``[1, tokens]``; hidden states ``[tokens, hidden]``, twice as wide with the middle
        layer's."""
        leaving = self._exit.leaving(shorter, ids.shape[1]) if self._exit is not None else nullcontext()
        with self._kernels(), leaving:
            output = self._body(
                input_ids=ids,
                position_ids=positions,
                use_cache=False,
                output_hidden_states=[self._middle] if with_middle else False,
                packed_plan=plan,
            )
        hidden: torch.Tensor = output.last_hidden_state[0]
        if with_middle:
            # Of a list of layers transformers keeps no others: all of them would take gigabytes. A version without
            # lists keeps them all, behind the embeddings.
            layers = output.hidden_states
            middle = layers[self._middle + len(layers) - self._layers]
            if shorter is not None:
                hidden = hidden.new_zeros(middle[0].shape).index_copy_(0, shorter.places, hidden)
            hidden = torch.cat([middle[0], hidden], dim=-1)
        return hidden

    def _kernels(self) -> AbstractContextManager[None]:
        """What may attend."""
        if self.device.type != "cuda" or self.attend == "rows":
            return nullcontext()
        return without_cudnn()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Next-token logits ``[rows, vocabulary]`` in float32 of hidden states ``[rows, hidden]``."""
        started = time.perf_counter()
        logits = self._capped(self._head(hidden).float())
        self.seconds += time.perf_counter() - started
        return logits

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        return logits if self._softcap is None else torch.tanh(logits / self._softcap) * self._softcap

    def pick(self, hidden: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
        """Rows ``places`` of ``hidden`` ``[tokens, …]``."""
        (index,) = upload([np.asarray(places, dtype=np.int64)], self.device)
        return hidden.index_select(0, index)

    def best(self, logits: torch.Tensor, allowed: Sequence[npt.NDArray[np.int64] | None]) -> list[int]:
        """The most probable token of each row of ``logits`` ``[rows, vocabulary]``, of those that ``allowed[row]``
        lists (None: of all). The device is waited for once."""
        listed = [(row, tokens) for row, tokens in enumerate(allowed) if tokens is not None]
        if listed:
            allowed_places = np.concatenate([row * logits.shape[1] + tokens for row, tokens in listed])
            rows, flat = upload([np.asarray([row for row, _ in listed]), allowed_places], self.device)
            masked = logits.index_fill(0, rows, float("-inf")).view(-1)
            logits = masked.index_copy_(0, flat, logits.reshape(-1).index_select(0, flat)).view(logits.shape)
        tokens: list[int] = logits.argmax(dim=-1).tolist()
        return tokens

    def log_probabilities(self, hidden: torch.Tensor, rows: Sequence[int], tokens: Sequence[int]) -> list[float]:
        """Log-probability of ``tokens[i]`` right behind hidden state ``rows[i]``.

        The asked tokens' own logits are computed once more, in float32: bfloat16 has steps of 1/16 to 1/8 where logits
        usually are, so that candidates would often tie. The sum over the vocabulary is less sensitive.
        """
        if not rows:
            return []
        started = time.perf_counter()
        wanted, place = np.unique(np.asarray(rows), return_inverse=True)
        order = np.argsort(place, kind="stable")
        chunk = max(1, LOGITS[self.device.type] // self.vocabulary)
        first = np.arange(0, len(wanted), chunk)
        bounds = np.searchsorted(place[order], [*first, len(wanted)])
        read, at, own_rows, of = upload(
            [wanted, place[order] % chunk, np.asarray(rows)[order], np.asarray(tokens)[order]], self.device
        )
        parts = []
        for number, start in enumerate(first):
            mine = slice(bounds[number], bounds[number + 1])
            logits = self._capped(self._head(hidden.index_select(0, read[start : start + chunk])).float())
            totals = torch.logsumexp(logits, dim=-1)
            chosen = logits[at[mine], of[mine]]
            if self.dtype != torch.float32 and self._head.bias is None:
                states = hidden.index_select(0, own_rows[mine]).float()
                chosen = self._capped((states * self._head.weight.index_select(0, of[mine]).float()).sum(dim=-1))
            parts.append((chosen - totals[at[mine]]).clamp(max=0))
        values = np.empty(len(rows))
        values[order] = torch.cat(parts).cpu().numpy()
        self.seconds += time.perf_counter() - started
        result: list[float] = values.tolist()
        return result


def _apart(logits: torch.Tensor, expected: torch.Tensor) -> list[float]:
    """How far each row of logits is from what is expected, as a part of its norm."""
    logits = logits - logits.mean(dim=-1, keepdim=True)
    expected = expected - expected.mean(dim=-1, keepdim=True)
    apart: list[float] = ((logits - expected).norm(dim=-1) / expected.norm(dim=-1)).tolist()
    return apart


def agrees(apart: Sequence[float], dtype: torch.dtype) -> bool:
    """Whether rows that are so far from what is expected differ by rounding alone.

    In half precision single prompts of random tokens may be far apart (Gemma 3 270M in bfloat16: 3 % at most prompts,
    12 % at one on a processor with AMX, and both readings further from float32 than that). What packed passes do not
    know changes half of the rows at least: each other one ends a branch of a tree of its own.
    """
    if not np.isfinite(apart).all():
        return False
    typical, worst = (1e-3, 1e-3) if dtype == torch.float32 else (0.1, 0.5)
    return sorted(apart)[len(apart) // 2] <= typical and max(apart) <= worst


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    packed_plan: AttentionPlan | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function that transformers calls in every layer; ``packed_plan`` comes through from forward."""
    if packed_plan is None:
        raise ModelError(f"{type(module).__name__} does not pass arguments through to its attention")
    if softcap is not None:
        raise ModelError(f"{type(module).__name__} caps attention scores, which packed attention does not")
    return packed_plan.attend(module.layer_idx, query, key, value, scaling, sliding_window), None


AttentionInterface.register(IMPLEMENTATION, packed_attention)
