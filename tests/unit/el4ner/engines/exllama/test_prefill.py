"""Prompts read together: what is in the pages, and in the table of pages, is what the library reads one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.config import ExllamaSettings
from el4ner.engines.exllama.backend import DecodeJob, HeldPrompt, SuffixRow
from el4ner.engines.exllama.pages import PAGE
from tests.support.cpu_exllamav2 import SHAPE, make_backend
from tests.support.examples import examples
from tests.support.tiny_models import tiny_llama

Tokens = tuple[int, ...]
Make = Callable[..., tuple[Any, Any]]


@pytest.fixture(scope="module")
def make(library: Any, tmp_path_factory: pytest.TempPathFactory) -> Make:
    folder = tiny_llama(tmp_path_factory.mktemp("models") / "llama", layers=2, **SHAPE)

    def made(*, cache_tokens: int = 8192, chunk_tokens: int = 1024, **more: Any) -> tuple[Any, Any]:
        asked = ExllamaSettings(cache_tokens=cache_tokens, **more)
        return make_backend(library, folder, asked, chunk_tokens=chunk_tokens)

    return made


def text(length: int, seed: int) -> Tokens:
    return tuple(torch.randint(5, 260, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


def states_of(backend: Any, held: HeldPrompt) -> list[torch.Tensor]:
    """Keys and values of a held prompt, ``[layers, tokens, numbers]`` each."""
    pages = [page.page_index for page in held.handle.sequences[0].allocated_pages]
    places = torch.tensor([pages[place // PAGE] * PAGE + place % PAGE for place in range(len(held.tokens) - 1)])
    return [states[:, places] for states in backend._states]


def check_table(backend: Any, held: list[HeldPrompt]) -> None:
    """What the library's own check of its table would say, and what is in the pages of each prompt."""
    generator = backend._generator
    generator._ExLlamaV2DynamicGenerator___validate_cache()
    from exllamav2.generator.dynamic import _tensor_hash_checksum

    for prompt in held:
        before = None
        tokens = torch.tensor([prompt.tokens])
        count = len(prompt.tokens) - 1
        for block, page in enumerate(prompt.handle.sequences[0].allocated_pages):
            begin, end = block * PAGE, min((block + 1) * PAGE, count)
            if begin > count:
                break
            assert page.kv_position == end - begin
            assert page.prev_hash == before
            assert torch.equal(page.sequence[:, : end - begin], tokens[:, begin:end])
            if end - begin == PAGE:
                before = _tensor_hash_checksum(tokens[:, begin:end], before)
                assert page.phash == before
        assert prompt.handle.is_prefill_done()


beginnings = st.lists(st.sampled_from([0, 30, 70, 200, 256, 300, 512, 600]), max_size=3)


@pytest.mark.slow
@settings(max_examples=examples(12), deadline=None)
@given(
    calls=st.lists(
        st.lists(st.tuples(beginnings, st.integers(2, 700), st.integers(0, 3)), min_size=1, max_size=6),
        min_size=1,
        max_size=3,
    ),
    chunk=st.sampled_from([256, 1024]),
)
def test_pages_and_their_table_are_as_if_each_prompt_had_been_read_alone(
    make: Make, calls: list[list[tuple[list[int], int, int]]], chunk: int
) -> None:
    backend, _ = make(chunk_tokens=chunk)
    alone, _ = make()
    for call in calls:
        prompts = []
        for shared, length, seed in call:
            prefix = tuple(token for cut in shared for token in text(600, cut)[:cut])
            prompts.append((prefix + text(length, 1000 + seed))[:1500])
        waiting = list(prompts)
        while waiting:
            held = backend.hold(waiting)
            check_table(backend, held)
            for prompt in held:
                alone.forget()
                expected = alone.hold([prompt.tokens])
                for mine, its in zip(states_of(backend, prompt), states_of(alone, expected[0]), strict=True):
                    assert torch.allclose(mine, its, atol=2e-3)
                alone.release(expected)
            backend.release(held)
            backend._generator._ExLlamaV2DynamicGenerator___validate_cache()
            waiting = waiting[len(held) :]


def test_what_prompts_share_is_read_once_and_the_rest_together(make: Make) -> None:
    backend, model = make(cache_tokens=16_384)
    shared = text(500, 1)
    prompts = [shared + text(60 + number, 10 + number) for number in range(8)]
    held = backend.hold(prompts)
    assert model.passes == [(1, 559), (7, 66)]
    assert [prompt.cached_tokens for prompt in held] == [0, *[500] * 7]
    model.passes.clear()
    backend.release(held)
    again = backend.hold(prompts)
    assert [prompt.cached_tokens for prompt in again] == [len(prompt) - 1 for prompt in prompts]
    assert not model.passes, "all of it is there"


def test_padding_goes_to_a_page_of_its_own_or_to_scratch(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, _ = make()
    prompts = [text(length, length) for length in (700, 640, 520, 513, 400, 390)]
    seen = []
    store = backend._store
    monkeypatch.setattr(backend, "_store", lambda *given: seen.append(given) or store(*given))
    held = backend.hold(prompts)
    own = {prompt.tokens: [page.page_index for page in prompt.handle.sequences[0].allocated_pages] for prompt in held}
    assert len(seen) < len(prompts)
    for ids, table, lengths in seen:
        assert table.shape[1] * PAGE >= int(lengths.max()) + ids.shape[1]
        for row, pages in zip(ids, table, strict=True):
            (tokens,) = [prompt for prompt in prompts if row[: len(prompt) - 1].tolist() == list(prompt[:-1])]
            blocks = -(-(len(tokens) - 1) // PAGE)
            assert pages[:blocks].tolist() == own[tokens][:blocks]
            assert set(pages[blocks:].tolist()) <= {backend._scratch[0]}


def test_waiting_answers_have_their_prompts_read_in_one_pass(make: Make) -> None:
    backend, model = make(max_batch_size=8)
    for number in range(6):
        backend.enqueue(DecodeJob(number, text(100 + number, number), 4, frozenset()))
    progress = backend.step()
    assert sorted(one.number for one in progress) == list(range(6))
    assert model.passes == [(6, 104), (6, 1)]


def test_scores_behind_prompts_that_were_read_together_are_those_of_one(make: Make) -> None:
    backend, _ = make()
    prompts = [text(300, 5)[: 200 + number] + text(150 + 7 * number, 6 + number) for number in range(5)]
    rows = [((7, 8, 9), ((0, 7), (1, 8), (2, 9), (3, 10))) for _ in prompts]
    together = backend.hold(prompts)
    found = backend.score([SuffixRow(held, *row) for held, row in zip(together, rows, strict=True)])
    backend.release(together)
    for prompt, row, scores in zip(prompts, rows, found, strict=True):
        backend.forget()
        (held,) = backend.hold([prompt])
        assert backend.score([SuffixRow(held, *row)])[0] == pytest.approx(scores, abs=1e-4)
        backend.release([held])


@pytest.mark.parametrize("kind", ["ExLlamaV2Cache", "ExLlamaV2Cache_Q4", "ExLlamaV2Cache_Q6", "ExLlamaV2Cache_Q8"])
def test_pages_are_copied_in_every_layer_of_every_kind_of_cache(make: Make, kind: str) -> None:
    import exllamav2.cache

    backend, _ = make()
    reference = getattr(exllamav2.cache, kind)(backend._model, batch_size=1, max_seq_len=8192)
    cache, backend._states = backend._make_cache(getattr(exllamav2.cache, kind))
    names = ["key_states", "value_states", *(["key_scales", "value_scales"] if cache.has_scales else [])]
    for name in names:
        for mine, its in zip(getattr(cache, name), getattr(reference, name), strict=True):
            assert (mine.shape, mine.dtype, mine.is_contiguous()) == (its.shape, its.dtype, True)
            mine[:, 3 * PAGE : 4 * PAGE] = 3
    backend._copy_pages([3], [7], [100])
    for name in names:
        for layer in getattr(cache, name):
            assert (layer[:, 7 * PAGE : 7 * PAGE + 100] == 3).all()
            assert not layer[:, 7 * PAGE + 100 :].any()
            assert not layer[:, : 3 * PAGE].any()
