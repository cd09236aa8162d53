"""One forward pass over rows of different lengths, without padding.

All new tokens of all rows stand one behind the other in a single sequence, so that every matrix product of the model
is one large product; only attention looks at the rows one by one (:func:`packed_attention`, registered with
transformers as an attention implementation). A row is a :class:`Segment`: key-value states of what it has read, a
chain of tokens that continue it, and perhaps a tree of tokens behind the chain.

Decoding is the other extreme, one token for each of many rows: there the rows' states lie in one tensor, and one
attention call per layer serves them all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import torch
from torch.nn import functional
from transformers import AttentionInterface

from el4ner.engines.packing import TokenTree
from el4ner.errors import ModelError

__all__ = ["PackedModel", "Segment"]

IMPLEMENTATION: Final = "el4ner_packed"


@dataclass(slots=True)
class Segment:
    """What one row adds to a forward pass.

    ``states`` ``[layers, 2, heads, capacity, head_dim]`` holds ``past`` tokens and room for the new ones, which the
    pass writes behind them: first the chain, then the tree's nodes in their order.
    """

    states: torch.Tensor
    past: int
    chain: Sequence[int]
    tree: TokenTree = field(default_factory=TokenTree)

    @property
    def new(self) -> int:
        """Tokens that the pass reads for this row."""
        return len(self.chain) + len(self.tree)


class PackedModel:
    """A causal language model of transformers, run over packed segments. Counts what it reads and how long it takes."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._body = model.base_model
        self._head = model.get_output_embeddings()
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        self._config = config
        self._layers = int(config.num_hidden_layers)
        self._kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
        self._head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
        self._softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.vocabulary = int(self._head.weight.shape[0])
        self.dtype: torch.dtype = model.dtype
        self.device: torch.device = model.device
        self.seconds = 0.0
        self.tokens = 0

    @property
    def hidden_size(self) -> int:
        """Dimensions of one hidden state."""
        return int(self._config.hidden_size)

    @property
    def bytes_per_token(self) -> int:
        """Of key-value states."""
        return self._layers * 2 * self._kv_heads * self._head_dim * self.dtype.itemsize

    def new_states(self, capacity: int) -> torch.Tensor:
        """Uninitialised room for the key-value states of ``capacity`` tokens."""
        shape = (self._layers, 2, self._kv_heads, capacity, self._head_dim)
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def new_group(self, rows: int, capacity: int) -> torch.Tensor:
        """Room for ``rows`` rows that will be decoded together: ``[layers, 2, rows, heads, capacity, head_dim]``.

        ``group[:, :, row]`` is the row's own states. Zeroed: a masked place must not hold a NaN.
        """
        shape = (self._layers, 2, rows, self._kv_heads, capacity, self._head_dim)
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def forward(
        self,
        segments: Sequence[Segment],
        *,
        with_middle: bool = False,
        windows: dict[int, int | None] | None = None,
    ) -> torch.Tensor:
        """Read every segment's new tokens; their last hidden states ``[sum of new tokens, hidden]``, in order.

        ``with_middle``: the middle layer's states stand before the last ones, ``[…, 2 · hidden]``. ``windows``, if
        given, is filled with every layer's attention window.
        """
        tokens: list[int] = []
        positions: list[int] = []
        for segment in segments:
            tokens += segment.chain
            tokens += segment.tree.tokens
            end = segment.past + len(segment.chain)
            positions += range(segment.past, end)
            positions += [end - 1 + depth for depth in segment.tree.depths]
        plan = _PackedPlan(segments, self.dtype, self.device, windows)
        return self._read(tokens, positions, plan, with_middle=with_middle)

    def decode(self, group: torch.Tensor, tokens: Sequence[int], lengths: Sequence[int]) -> torch.Tensor:
        """Read ``tokens[row]`` behind the ``lengths[row]`` tokens that row ``row`` of the group holds; the last hidden
        states ``[rows, hidden]``. The group may have more rows than that: the others are left alone."""
        return self._read(tokens, lengths, _DecodingPlan(group, lengths, self.dtype))

    def check(self, seed: int = 0) -> None:
        """Compare packed passes with plain ones, on a few random tokens.

        Raises:
            ModelError: they disagree: the architecture does something that packed passes do not know.
        """
        kinds = set(getattr(self._config, "layer_types", None) or ())
        if not kinds <= {"full_attention", "sliding_attention"}:
            raise ModelError(f"{type(self._model).__name__} has layers of kind {sorted(kinds)}")
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, self.vocabulary, (32,), generator=generator).tolist()
        prefix, tails = ids[:20], (ids[20:26], [*ids[20:23], *ids[26:29]])
        tree = TokenTree()
        ends = [tree.add(tail) for tail in tails]
        group = self.new_group(len(tails), len(ids))
        states = self.new_states(len(prefix) + len(tree))
        self.forward([Segment(states, 0, prefix[:9])])
        plan_seen: dict[int, int | None] = {}
        hidden = self.forward([Segment(states, 9, prefix[9:], tree)], windows=plan_seen)
        packed = [hidden[len(prefix) - 9 + end] for end in ends]
        for row, tail in enumerate(tails):
            self.forward([Segment(group[:, :, row], 0, [*prefix, *tail[:-1]])])
        packed += self.decode(group, [tail[-1] for tail in tails], [len(prefix) + len(tail) - 1 for tail in tails])
        got = self.logits(torch.stack(packed))
        self._model.set_attn_implementation("sdpa")
        try:
            plain = torch.tensor([[*prefix, *tail] for tail in tails], device=self.device)
            expected = self._model(input_ids=plain, use_cache=False).logits[:, -1].float().repeat(2, 1)
        finally:
            self._model.set_attn_implementation(IMPLEMENTATION)
        expected = expected - expected.mean(dim=-1, keepdim=True)
        got = got - got.mean(dim=-1, keepdim=True)
        worst = float(((got - expected).norm(dim=-1) / expected.norm(dim=-1)).max())
        tolerance = 1e-3 if self.dtype == torch.float32 else 0.1
        if not worst <= tolerance:
            raise ModelError(f"{type(self._model).__name__}: packed passes differ from plain ones by {worst:.1%}")
        for layer, kind in enumerate(getattr(self._config, "layer_types", None) or ()):
            window = self._config.sliding_window if kind == "sliding_attention" else None
            if plan_seen.get(layer) != window:
                raise ModelError(f"{type(self._model).__name__}: layer {layer} does not tell its attention window")

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
        self, tokens: Sequence[int], positions: Sequence[int], plan: _Plan, *, with_middle: bool = False
    ) -> torch.Tensor:
        started = time.perf_counter()
        output = self._body(
            input_ids=torch.tensor([tokens], device=self.device),
            position_ids=torch.tensor([positions], device=self.device),
            use_cache=False,
            output_hidden_states=with_middle,
            packed_plan=plan,
        )
        hidden: torch.Tensor = output.last_hidden_state[0]
        if with_middle:
            hidden = torch.cat([output.hidden_states[self._layers // 2 + 1][0], hidden], dim=-1)
        self.seconds += time.perf_counter() - started
        self.tokens += len(tokens)
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Next-token logits ``[rows, vocabulary]`` in float32 of hidden states ``[rows, hidden]``."""
        started = time.perf_counter()
        logits = self._capped(self._head(hidden).float())
        self.seconds += time.perf_counter() - started
        return logits

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        return logits if self._softcap is None else torch.tanh(logits / self._softcap) * self._softcap

    def log_probabilities(self, hidden: torch.Tensor, rows: Sequence[int], tokens: Sequence[int]) -> list[float]:
        """Log-probability of ``tokens[i]`` right behind hidden state ``rows[i]``.

        The asked tokens' own logits are computed once more, in float32: bfloat16 has steps of 1/16 to 1/8 where logits
        usually are, so that candidates would often tie. The sum over the vocabulary is less sensitive.
        """
        wanted = sorted(set(rows))
        place = {row: index for index, row in enumerate(wanted)}
        asked: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            asked.setdefault(place[row], []).append(index)
        found = [0.0] * len(rows)
        chunk = max(1, (1 << 24) // self.vocabulary)  # 64 MB of float32 logits at a time
        for start in range(0, len(wanted), chunk):
            logits = self.logits(hidden[wanted[start : start + chunk]])
            started = time.perf_counter()
            totals = torch.logsumexp(logits, dim=-1)
            indices = [index for row in range(start, start + len(logits)) for index in asked[row]]
            at = torch.tensor([place[rows[index]] - start for index in indices], device=self.device)
            of = torch.tensor([tokens[index] for index in indices], device=self.device)
            own = logits[at, of]
            if self.dtype != torch.float32 and self._head.bias is None:
                states = hidden[[rows[index] for index in indices]].float()
                own = self._capped((states * self._head.weight[of].float()).sum(dim=-1))
            for index, value in zip(indices, (own - totals[at]).clamp(max=0).tolist(), strict=True):
                found[index] = value
            self.seconds += time.perf_counter() - started
        return found


class _Plan(Protocol):
    """How the rows of one pass attend; masks are built once and serve all layers."""

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None,
    ) -> torch.Tensor:
        """``query`` [1, heads, tokens, head_dim], over each row's own states; [1, tokens, heads, head_dim].

        ``key`` and ``value`` [1, key-value heads, tokens, head_dim] are the new tokens'; they are added to the states.
        """


class _PackedPlan:
    """Segments: rows of any length, attended one by one."""

    def __init__(
        self,
        segments: Sequence[Segment],
        dtype: torch.dtype,
        device: torch.device,
        windows: dict[int, int | None] | None,
    ) -> None:
        self._segments = segments
        self._windows = windows
        self._dtype = dtype
        self._device = device
        self._masks: dict[tuple[int, bool, int | None], torch.Tensor] = {}

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None,
    ) -> torch.Tensor:
        if self._windows is not None:
            self._windows[layer] = window
        _, heads, total, head_dim = query.shape
        kv_heads = key.shape[1]
        # Query heads that share a key-value head: a batch dimension of its own, so that keys are never repeated.
        grouped = query[0].view(kv_heads, heads // kv_heads, total, head_dim)
        out = query.new_empty(1, total, heads, head_dim)
        out_grouped = out[0].permute(1, 0, 2).view(kv_heads, heads // kv_heads, total, head_dim)
        start = 0
        for row, segment in enumerate(self._segments):
            end = start + segment.new
            held = segment.past + segment.new
            keys, values = segment.states[layer, 0], segment.states[layer, 1]
            keys[:, segment.past : held] = key[0, :, start:end]
            values[:, segment.past : held] = value[0, :, start:end]
            split = start + len(segment.chain)
            for is_tree, first, last, seen in (
                (False, start, split, segment.past + len(segment.chain)),
                (True, split, end, held),
            ):
                if first == last:
                    continue
                low, mask, causal = self._mask(row, segment, is_tree, window)
                shape = (kv_heads, heads // kv_heads, seen - low, head_dim)
                out_grouped[:, :, first:last] = functional.scaled_dot_product_attention(
                    grouped[:, :, first:last],
                    keys[:, None, low:seen].expand(shape),
                    values[:, None, low:seen].expand(shape),
                    attn_mask=mask,
                    is_causal=causal,
                    scale=scaling,
                )
            start = end
        return out

    def _mask(
        self, row: int, segment: Segment, is_tree: bool, window: int | None
    ) -> tuple[int, torch.Tensor | None, bool]:
        """(first key that anyone sees, additive mask or None, whether plain causal does)."""
        length = len(segment.chain)
        base = segment.past + length
        if not is_tree:
            low = 0 if window is None else max(0, segment.past + 1 - window)
            if length == 1:
                return low, None, False
            if segment.past == 0 and (window is None or length <= window):
                return low, None, True
        else:
            low = 0 if window is None else max(0, base + 1 - window)
        name = (row, is_tree, window)
        mask = self._masks.get(name)
        if mask is None:
            mask = self._build(segment, is_tree, window, low)
            self._masks[name] = mask
        return low, mask, False

    def _build(self, segment: Segment, is_tree: bool, window: int | None, low: int) -> torch.Tensor:
        base = segment.past + len(segment.chain)
        if is_tree:
            ask = torch.tensor(segment.tree.depths) + (base - 1)
            seen = torch.cat([torch.arange(low, base), ask])
            visible = torch.ones(len(ask), len(seen), dtype=torch.bool)
            visible[:, base - low :] = torch.from_numpy(segment.tree.sees())
        else:
            ask = torch.arange(segment.past, base)
            seen = torch.arange(low, base)
            visible = seen[None, :] <= ask[:, None]
        if window is not None:
            visible &= seen[None, :] > ask[:, None] - window
        mask = torch.zeros(visible.shape, dtype=self._dtype).masked_fill_(~visible, float("-inf"))
        return mask.to(self._device)[None, None]


class _DecodingPlan:
    """One new token for each row of a group."""

    def __init__(self, group: torch.Tensor, lengths: Sequence[int], dtype: torch.dtype) -> None:
        self._group = group
        self._rows = torch.arange(len(lengths), device=group.device)
        self._lengths = torch.tensor(lengths, device=group.device)
        self._first = min(lengths)
        self._end = max(lengths) + 1
        self._dtype = dtype
        self._masks: dict[int | None, tuple[int, torch.Tensor]] = {}

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None,
    ) -> torch.Tensor:
        _, heads, rows, head_dim = query.shape
        kv_heads = key.shape[1]
        keys, values = self._group[layer, 0], self._group[layer, 1]
        keys[self._rows, :, self._lengths] = key[0].transpose(0, 1)
        values[self._rows, :, self._lengths] = value[0].transpose(0, 1)
        low, mask = self._mask(window)
        # The query heads of a key-value head all see the same: they stand where queries of one head stand otherwise.
        grouped = query[0].transpose(0, 1).reshape(rows, kv_heads, heads // kv_heads, head_dim)
        attended = functional.scaled_dot_product_attention(
            grouped, keys[:rows, :, low : self._end], values[:rows, :, low : self._end], attn_mask=mask, scale=scaling
        )
        return attended.reshape(1, rows, heads, head_dim)

    def _mask(self, window: int | None) -> tuple[int, torch.Tensor]:
        if window not in self._masks:
            low = 0 if window is None else max(0, self._first + 1 - window)
            seen = torch.arange(low, self._end, device=self._group.device)
            visible = seen[None, :] <= self._lengths[:, None]
            if window is not None:
                visible &= seen[None, :] > self._lengths[:, None] - window
            mask = torch.zeros(visible.shape, dtype=self._dtype, device=self._group.device)
            self._masks[window] = low, mask.masked_fill_(~visible, float("-inf"))[:, None, None]
        return self._masks[window]


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
    packed_plan: _Plan | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function that transformers calls in every layer; ``packed_plan`` comes through from forward."""
    if packed_plan is None:
        raise ModelError(f"{type(module).__name__} does not pass arguments through to its attention")
    if softcap is not None:
        raise ModelError(f"{type(module).__name__} caps attention scores, which packed attention does not")
    return packed_plan.attend(module.layer_idx, query, key, value, scaling, sliding_window), None


AttentionInterface.register(IMPLEMENTATION, packed_attention)
