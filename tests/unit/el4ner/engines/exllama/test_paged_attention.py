"""Attention over pages against attention written out, on random tensors, and within the library's own forward pass."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.engines.exllama.paged_attention import choose
from el4ner.engines.exllama.pages import PAGE as LIBRARY_PAGE
from el4ner.engines.exllama.passes import Pass
from el4ner.engines.exllama.torch_attention import (
    Attend,
    HeadShape,
    attending,
    attention_with_cache,
    plain_attention,
)
from el4ner.engines.exllama.varlen import Varlen
from tests.support import flash_kernel
from tests.support.cpu_exllamav2 import SHAPE, load_model, rope_
from tests.support.examples import examples
from tests.support.tiny_models import tiny_llama

PAGE = 8
HEADS = [(2, 2), (6, 2), (8, 2), (8, 1), (9, 3)]
"""(query heads, key heads): 1, 3, 4 and 8 query heads a key head, and SmolLM2-135M's."""


def by_hand(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, window: int = -1, softcap: float = 0.0
) -> torch.Tensor:
    """One sequence, one query after the other: ``q`` ``[queries, heads, dim]`` at the end of ``k`` and ``v``."""
    queries, heads, dim = q.shape
    group = heads // k.shape[1]
    out = torch.zeros_like(q)
    for index in range(queries):
        own = k.shape[0] - queries + index
        first = max(0, own - window) if window >= 0 else 0
        for head in range(heads):
            keys, values = k[first : own + 1, head // group], v[first : own + 1, head // group]
            weights = keys @ q[index, head] / math.sqrt(dim)
            if softcap:
                weights = torch.tanh(weights / softcap) * softcap
            out[index, head] = weights.softmax(dim=0) @ values
    return out


@settings(max_examples=examples(40), deadline=None)
@given(
    pasts=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    queries=st.integers(1, 11),
    group=st.integers(1, 3),
    window=st.sampled_from([-1, 0, 3, 12]),
    softcap=st.sampled_from([0.0, 5.0]),
    written=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_reads_each_sequence_from_its_own_pages(
    pasts: list[int], queries: int, group: int, window: int, softcap: float, written: bool, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    dim, kv_heads, batch = 4, 2, len(pasts)
    blocks = -(-(max(pasts) + queries) // PAGE)
    pages = batch * blocks + 1
    k_cache = torch.randn(pages, PAGE, kv_heads, dim, generator=random)
    v_cache = torch.randn(pages, PAGE, kv_heads, dim, generator=random)
    table = torch.randperm(pages, generator=random)[: batch * blocks].view(batch, blocks).int()
    q = torch.randn(batch, queries, kv_heads * group, dim, generator=random)
    k = torch.randn(batch, queries, kv_heads, dim, generator=random)
    v = torch.randn(batch, queries, kv_heads, dim, generator=random)
    lengths = torch.tensor(pasts, dtype=torch.int32)
    expected = []
    for index, past in enumerate(pasts):
        keys = torch.cat([k_cache[table[index].long()].flatten(0, 1)[:past], k[index]])
        values = torch.cat([v_cache[table[index].long()].flatten(0, 1)[:past], v[index]])
        expected.append(by_hand(q[index], keys, values, window=window, softcap=softcap))
        if written:  # as the library does for one sequence whose pages follow each other
            for offset in range(queries):
                page = int(table[index, (past + offset) // PAGE])
                k_cache[page, (past + offset) % PAGE] = k[index, offset]
                v_cache[page, (past + offset) % PAGE] = v[index, offset]
    found = attention_with_cache(
        q,
        k_cache,
        v_cache,
        None if written else k,
        None if written else v,
        cache_seqlens=lengths + queries if written else lengths,
        block_table=table,
        causal=True,
        window_size=(window, window),
        softcap=softcap,
    )
    assert torch.allclose(found, torch.stack(expected), atol=1e-5)
    for index, past in enumerate(pasts):
        stored = k_cache[table[index].long()].flatten(0, 1)[past : past + queries]
        assert torch.equal(stored, k[index]), "what was read is in the cache"


@pytest.mark.parametrize("keys", [5, 9])
def test_without_a_cache_queries_stand_at_the_end_of_the_keys(keys: int) -> None:
    random = torch.Generator().manual_seed(keys)
    q = torch.randn(2, 5, 4, 8, generator=random)
    k, v = (torch.randn(2, keys, 2, 8, generator=random) for _ in range(2))
    expected = torch.stack([by_hand(q[index], k[index], v[index]) for index in range(2)])
    assert torch.allclose(plain_attention(q, k, v, causal=True), expected, atol=1e-5)


def test_the_future_is_not_seen() -> None:
    random = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 6, 2, 8, generator=random) for _ in range(3))
    before = plain_attention(q, k, v, causal=True)
    k[:, 4:], v[:, 4:] = 7.0, 7.0
    after = plain_attention(q, k, v, causal=True)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before[:, 4:], after[:, 4:])


def _mixed(*shape: int, random: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of a shape whose places and heads lie the other way round in memory."""
    batch, places, heads, dim = shape
    tensor = torch.randn(batch, heads, places, dim, generator=random).to(dtype).transpose(1, 2)
    assert not tensor.is_contiguous()
    return tensor


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
def test_any_memory_order_goes_in_and_a_contiguous_tensor_of_the_same_type_comes_out(
    heads: int, kv_heads: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = functional.scaled_dot_product_attention

    def in_its_own_order(*given: Any, **named: Any) -> torch.Tensor:
        """As fused kernels do: places before heads in memory."""
        return kernel(*given, **named).transpose(1, 2).contiguous().transpose(1, 2)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", in_its_own_order)
    random = torch.Generator().manual_seed(heads)
    dim, queries, past = 16, 5, 7
    q = _mixed(2, queries, heads, dim, random=random, dtype=dtype)
    k, v = (_mixed(2, past + queries, max(kv_heads, 2), dim, random=random, dtype=dtype) for _ in range(2))
    k, v = k[:, :, :kv_heads], v[:, :, :kv_heads]
    expected = torch.stack([by_hand(q[row].float(), k[row].float(), v[row].float()) for row in range(2)])
    k_cache, v_cache = (torch.zeros(4, PAGE, kv_heads, dim, dtype=dtype) for _ in range(2))
    table = torch.tensor([[2, 1], [0, 3]], dtype=torch.int32)
    for row in range(2):
        for cache, states in ((k_cache, k), (v_cache, v)):
            cache[table[row, 0].long(), :past] = states[row, :past]
    outputs = {
        "flash_attn_func": plain_attention(q, k, v, causal=True),
        "flash_attn_with_kvcache": attention_with_cache(
            q,
            k_cache,
            v_cache,
            k[:, past:],
            v[:, past:],
            cache_seqlens=torch.full((2,), past, dtype=torch.int32),
            block_table=table,
            causal=True,
        ),
        "with softcap": attention_with_cache(
            q,
            k_cache,
            v_cache,
            cache_seqlens=torch.full((2,), past + queries, dtype=torch.int32),
            block_table=table,
            causal=True,
            softcap=1e4,
        ),
    }
    for name, output in outputs.items():
        assert output.shape == q.shape, name
        assert output.dtype == dtype, name
        assert output.is_contiguous(), name
        output.view(2, queries, heads * dim)  # as the library does
        assert torch.allclose(output.float(), expected, atol=5e-3 if dtype == torch.float16 else 1e-5), name


ATTENDS: dict[str, Attend] = {
    "plain torch": attention_with_cache,
    "torch's kernel over pages": Varlen(paged=True),
    "torch's kernel over gathered keys": Varlen(paged=False),
}


@dataclass(frozen=True)
class Case:
    """Rows of a pass: ``tables`` of pages, ``pasts``: tokens that are there, and how many are read."""

    tables: tuple[tuple[int, ...], ...]
    pasts: tuple[int, ...]
    width: int
    sequential: bool


CASES = {
    "a prompt's first tokens": Case(((4, 5),), (0,), 300, True),
    "a prompt's last tokens": Case(((1, 2),), (250,), 20, True),
    "pages that do not follow each other": Case(((6, 2, 4),), (200,), 400, False),
    "one token of one": Case(((3, 1),), (256,), 1, True),
    "one token of each": Case(((3, 1), (2, 0), (0, 0)), (300, 17, 0), 1, False),
    "rows behind prompts": Case(((3, 1), (3, 4), (2, 5)), (270, 256, 255), 6, False),
}


@pytest.mark.parametrize("attend", ATTENDS.values(), ids=ATTENDS.keys())
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
def test_the_librarys_own_forward_pass_attends_as_written_out(
    library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heads: int, kv_heads: int, case: Case, attend: Attend
) -> None:
    flash_kernel.install(monkeypatch)
    choose("torch", HeadShape(heads, kv_heads, 32), torch.device("cpu"))  # from now on the library asks
    numbers = {"head_dim": 32, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "hidden_size": 32 * heads}
    folder = tiny_llama(tmp_path / "llama", layers=1, **{**SHAPE, "initializer_range": 0.1, **numbers})
    model = load_model(library, folder, chunk_tokens=512, max_seq_len=2048, dtype=torch.float16)
    layer = model.modules[1]
    assert type(layer).__name__ == "ExLlamaV2Attention"
    cache = library.cache.ExLlamaV2Cache(model, batch_size=1, max_seq_len=7 * LIBRARY_PAGE)
    random = torch.Generator().manual_seed(heads)
    for states in (*cache.key_states, *cache.value_states):
        states.copy_(torch.randn(states.shape, generator=random))
    tables = torch.tensor(case.tables, dtype=torch.int32)
    pasts = torch.tensor(case.pasts, dtype=torch.int32)
    hidden = torch.randn(len(pasts), case.width, 32 * heads, generator=random).half()
    pages = {
        name: states[0].view(-1, LIBRARY_PAGE, kv_heads, 32)
        for name, states in (("k", cache.key_states), ("v", cache.value_states))
    }
    before = {name: states.clone() for name, states in pages.items()}
    params = layer.PagedParams(
        batch_size=len(pasts),
        block_index=tables,
        cache_seqlens=pasts,
        max_cache_seqlen=int(pasts.max()),
        page_size=LIBRARY_PAGE,
        q_len=case.width,
    )
    assert params.is_sequential == case.sequential
    expected, states = _written_out(model, layer, hidden, before, case)

    numbers = Pass(tables, pasts, case.width, page=LIBRARY_PAGE, device=torch.device("cpu"))
    params.block_index, params.cache_seqlens, params.cache_seqlens_after = numbers.table, numbers.before, numbers.after
    with attending(attend, numbers):
        output = layer.forward(hidden.clone(), cache=cache, attn_params=params)

    assert output.dtype == torch.float16
    assert output.shape == hidden.shape
    assert torch.allclose(output.float(), expected, atol=1e-2)
    for name, stored in pages.items():
        assert torch.allclose(stored.float(), states[name], atol=1e-2), "what was read is in its pages"
        written = torch.zeros(stored.shape[:2], dtype=torch.bool)
        for table, past in zip(case.tables, case.pasts, strict=True):
            for place in range(past, past + case.width):
                written[table[place // LIBRARY_PAGE], place % LIBRARY_PAGE] = True
        assert torch.equal(stored[~written], before[name][~written]), "and nothing else was touched"


def _written_out(
    model: Any, layer: Any, hidden: torch.Tensor, before: dict[str, torch.Tensor], case: Case
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What a layer has to return, and what has to be in the pages then, in float32."""
    weights = {name: getattr(layer, f"{name}_proj").linear.weight.float() for name in "qkvo"}
    x = hidden.float()
    normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + layer.pre_layernorm.variance_epsilon)
    normed = normed * layer.pre_layernorm.weight.float()
    q, k, v = ((normed @ weights[name].T).view(*hidden.shape[:2], -1, layer.head_dim).contiguous() for name in "qkv")
    sin, cos = (table[0].float() for table in (model.constants.sin, model.constants.cos))
    pasts = torch.tensor(case.pasts, dtype=torch.int32)
    for turned in (q, k):
        rope_(turned, sin, cos, 0, turned.shape[2], layer.head_dim, pasts, True)
    pages = {name: states.float() for name, states in before.items()}
    rows = []
    for row, (table, past) in enumerate(zip(case.tables, case.pasts, strict=True)):
        for place in range(case.width):
            page, offset = divmod(past + place, LIBRARY_PAGE)
            pages["k"][table[page], offset] = k[row, place]
            pages["v"][table[page], offset] = v[row, place]
        keys, values = (pages[name][list(table)].flatten(0, 1)[: past + case.width] for name in "kv")
        group = q.shape[2] // keys.shape[1]
        mask = torch.arange(past + case.width) <= past + torch.arange(case.width)[:, None]
        scores = torch.einsum("qhd,khd->hqk", q[row], keys.repeat_interleave(group, 1)) / math.sqrt(layer.head_dim)
        weighted = scores.masked_fill(~mask, float("-inf")).softmax(-1)
        rows.append(torch.einsum("hqk,khd->qhd", weighted, values.repeat_interleave(group, 1)))
    return torch.stack(rows).flatten(2) @ weights["o"].T + x, pages


class TestChoice:
    """Of what attends, by what is there and what the model needs."""

    here = torch.device("cpu")

    @pytest.mark.parametrize("pages", [True, False])
    def test_torchs_kernel_reads_pages_where_it_can(
        self, library: Any, monkeypatch: pytest.MonkeyPatch, pages: bool
    ) -> None:
        flash_kernel.install(monkeypatch, pages=pages)
        attend = choose("varlen", HeadShape(9, 3, 64, windows=True), self.here)
        assert isinstance(attend, Varlen)
        assert attend.paged == pages

    def test_pages_that_the_kernel_reads_wrongly_are_gathered(
        self, library: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def confused(*given: Any, **named: Any) -> torch.Tensor:
            if "block_table" in named:
                named["block_table"] = named["block_table"].flip(0)
            return flash_kernel.flash_forward(*given, **named)

        flash_kernel.install(monkeypatch)
        monkeypatch.setattr("el4ner.engines.exllama.varlen.flash_forward", confused)
        attend = choose("varlen", HeadShape(4, 2, 32), self.here)
        assert isinstance(attend, Varlen)
        assert not attend.paged

    def test_a_single_token_of_each_row_is_tried_too(self, library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """It goes a way of its own through the kernel."""

        def confused(*given: Any, **named: Any) -> torch.Tensor:
            return flash_kernel.flash_forward(*given, **named) * (1 if given[5] > 1 else 2)

        flash_kernel.install(monkeypatch)
        monkeypatch.setattr("el4ner.engines.exllama.varlen.flash_forward", confused)
        with pytest.raises(ImportError, match="away from plain torch"):
            choose("varlen", HeadShape(4, 2, 32), self.here)

    @pytest.mark.parametrize("windows", [False, True])
    def test_without_a_window_the_kernel_is_told_of_none(
        self, library: Any, monkeypatch: pytest.MonkeyPatch, windows: bool
    ) -> None:
        """mha_varlen_fwd puts the query heads of a key head together, and splits rows, only where neither side has a
        window (seqlenq_ngroups_swapped)."""
        given_windows = set()

        def seen(*given: Any, **named: Any) -> torch.Tensor:
            given_windows.add((named["window_size_left"], named["window_size_right"], given[8]))
            return flash_kernel.flash_forward(*given, **named)

        flash_kernel.install(monkeypatch)
        monkeypatch.setattr("el4ner.engines.exllama.varlen.flash_forward", seen)
        choose("varlen", HeadShape(4, 2, 32, windows=windows), self.here)
        assert given_windows == {(-1, -1, True), *([(64, 0, False)] if windows else [])}

    @pytest.mark.parametrize(
        ("shape", "reason"),
        [
            (HeadShape(8, 4, 64, softcap=50.0), "cannot cap scores"),
            (HeadShape(8, 4, 264), "heads of up to 256 numbers, in eights, not 264"),
            (HeadShape(8, 4, 36), "in eights, not 36"),
        ],
    )
    def test_what_torchs_kernel_cannot_do_is_said(
        self, library: Any, monkeypatch: pytest.MonkeyPatch, shape: HeadShape, reason: str
    ) -> None:
        flash_kernel.install(monkeypatch)
        with pytest.raises(ImportError, match=reason):
            choose("varlen", shape, self.here)

    def test_without_a_gpu_torchs_own_words_are_passed_on(self, library: Any) -> None:
        with pytest.raises(ImportError, match=r"torch .*'s kernel does not work here: .*'CPU' backend"):
            choose("varlen", HeadShape(4, 2, 32), self.here)

    def test_flash_attn_has_to_be_there(self, library: Any) -> None:
        with pytest.raises(ImportError, match=r"flash-attn 2\.5\.7 or newer is not installed"):
            choose("flash", HeadShape(4, 2, 32), self.here)


def test_each_thread_has_the_attention_of_its_own_pass(library: Any) -> None:
    """Members of an ensemble are called by threads of their own, at the same time."""
    import exllamav2.attn

    choose("torch", HeadShape(4, 2, 32), torch.device("cpu"))
    numbers = Pass(torch.zeros(1, 1).int(), torch.zeros(1).int(), 1, page=PAGE, device=torch.device("cpu"))
    inside = threading.Barrier(2, timeout=30)
    seen: dict[str, list[str]] = {"left": [], "right": []}

    def work(name: str) -> None:
        def attend(*_: Any) -> torch.Tensor:
            seen[name].append(name)
            return torch.zeros(1)

        for _ in range(20):
            with attending(attend, numbers):
                inside.wait()
                exllamav2.attn.flash_attn_with_kvcache()

    threads = [threading.Thread(target=work, args=(name,)) for name in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {name: [name] * 20 for name in seen}


def test_what_a_pass_needs_is_made_once_for_all_layers() -> None:
    tables, pasts = torch.tensor([[2, 1], [0, 3]]).int(), torch.tensor([9, 3]).int()
    numbers = Pass(tables, pasts, 2, page=PAGE, device=torch.device("cpu"))
    assert numbers.longest == 11
    assert numbers.key_slots() is numbers.key_slots()
    assert numbers.pages() is numbers.pages()
    kind: Any = {"causal": True, "window": -1, "repeats": 3}
    assert numbers.mask(torch.float16, **kind) is numbers.mask(torch.float16, **kind)
    assert numbers.slots.tolist() == [1 * PAGE + 1, 1 * PAGE + 2, 0 * PAGE + 3, 0 * PAGE + 4]
    assert numbers.key_slots().tolist() == [*range(16, 24), 8, 9, 10, *range(5)]
