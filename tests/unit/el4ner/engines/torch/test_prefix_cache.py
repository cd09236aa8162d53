from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.engines.torch import prefix_cache
from el4ner.engines.torch.past_states import PastStates, beginning, copy_states, total
from el4ner.engines.torch.prefix_cache import PrefixCache
from tests.support.examples import examples

A_TOKEN = 16
"""Bytes of its states."""


def states_of(tokens: Sequence[int]) -> torch.Tensor:
    """As a model's, a token's depend on all tokens before it."""
    values = [float(hash(tuple(tokens[: end + 1])) % 10_007) for end in range(len(tokens))]
    return torch.tensor(values).view(1, 1, 1, -1, 1).expand(1, 2, 1, -1, 2).contiguous()


def read(tokens: Sequence[int]) -> tuple[PastStates, ...]:
    return (PastStates(states_of(tokens), len(tokens)),) if tokens else ()


def joined(past: Sequence[PastStates], first: int = 0) -> torch.Tensor:
    result = torch.full((1, 2, 1, total(past) - first, 2), -1.0)
    copy_states(past, result, first)
    return result


def found(cache: PrefixCache, *tokens: int) -> int:
    """How long a beginning is kept; its states are those of these tokens."""
    past = cache.longest(tokens)
    assert torch.equal(joined(past), states_of(tokens[: total(past)]))
    return total(past)


def put(cache: PrefixCache, *tokens: int) -> None:
    cache.put(tokens, read(tokens))


def test_the_longest_common_beginning_is_found() -> None:
    cache = PrefixCache(1 << 20)
    put(cache, 1, 2, 3, 4)
    put(cache, 1, 2, 9)
    assert found(cache, 1, 2, 3, 7, 7) == 3
    assert found(cache, 1, 2, 9, 9) == 3
    assert found(cache, 5) == 0
    assert found(cache) == 0


def test_what_prompts_have_in_common_is_kept_once() -> None:
    cache = PrefixCache(1 << 20)
    instruction = tuple(range(100))
    for sentence in range(20):
        put(cache, *instruction, 1_000 + sentence, 7)
    assert (len(cache), cache.nbytes) == (20, A_TOKEN * (102 + 19 * 2))
    one, other = cache.longest((*instruction, 1_000, 7)), cache.longest((*instruction, 1_001, 7))
    assert one[0].states is other[0].states


def test_what_is_kept_is_a_copy() -> None:
    cache = PrefixCache(1 << 20)
    own = states_of((1, 2, 3))
    cache.put((1, 2), (PastStates(own, 2),))
    own.fill_(-5.0)
    assert found(cache, 1, 2, 3) == 2


def test_the_least_recently_used_goes_first_and_the_bound_holds() -> None:
    cache = PrefixCache(A_TOKEN * 10)
    for token in (1, 2):
        put(cache, *[token] * 4)
    found(cache, 1, 1)
    put(cache, 3, 3, 3, 3)
    assert cache.nbytes <= A_TOKEN * 10
    assert [found(cache, token) for token in (1, 2, 3)] == [1, 0, 1]


def test_what_others_stand_behind_stays_as_long_as_they_do() -> None:
    cache = PrefixCache(A_TOKEN * 10)
    put(cache, 1, 2, 3, 4)
    put(cache, 1, 2, 3, 4, 5)
    put(cache, 6, 6, 6, 6)
    put(cache, 7, 7)  # 5 goes, which was used before 6: not 1 to 4, which it stood behind
    assert (found(cache, 6, 6, 6, 6), found(cache, 7, 7), found(cache, 1, 2, 3, 4, 5)) == (4, 2, 4)


def test_of_a_long_prompt_only_what_others_begin_with_stays_for_them() -> None:
    cache = PrefixCache(A_TOKEN * 200)
    instruction = tuple(range(10))
    put(cache, *instruction, *range(100, 280))
    for sentence in range(90):
        put(cache, *instruction, 1_000 + sentence, 7)
    kept = [found(cache, *instruction, 1_000 + sentence, 7) for sentence in range(90)]
    assert (kept, found(cache, *instruction, 100, 101)) == ([12] * 90, 10)


def test_what_is_kept_apart_is_found_with_what_stood_behind_it() -> None:
    cache = PrefixCache(1 << 20)
    long = tuple(range(300))
    for end in (200, 50, 100, 250):  # beyond, before, at, and behind where it is taken apart
        put(cache, *long[:end], *long[:5])
        put(cache, *long)
        put(cache, *long[:100], 7, 7)
    for end in (200, 50, 100, 250):
        assert found(cache, *long[:end], *long[:5], 1) == end + 5
    assert (found(cache, *long, 1), found(cache, *long[:100], 7, 7)) == (300, 102)


def test_of_what_has_no_room_the_beginning_is_kept() -> None:
    cache = PrefixCache(A_TOKEN * 5)
    put(cache, 1, 2, 3, 4)
    for _ in range(2):
        put(cache, 1, 2, 3, 4, 5, 6)
    assert (found(cache, 1, 2, 3, 4, 5, 6), cache.nbytes) == (5, A_TOKEN * 5)
    put(cache, 7, 7, 7, 7, 7, 7)
    assert (found(cache, 7, 7, 7, 7, 7, 7), cache.nbytes) == (5, A_TOKEN * 5)


def test_where_room_is_short_the_rest_of_what_it_stands_behind_may_go_however_short() -> None:
    cache = PrefixCache(A_TOKEN * 6)
    put(cache, 1, 2, 3, 4, 5, 5)
    put(cache, 1, 2, 3, 4, 6, 6)
    assert (found(cache, 1, 2, 3, 4, 6, 6), found(cache, 1, 2, 3, 4, 5, 5)) == (6, 4)


def test_what_is_covered_already_is_not_kept_twice() -> None:
    cache = PrefixCache(1 << 20)
    put(cache, 1, 2, 3)
    put(cache, 1, 2)
    put(cache, 1, 2, 3)
    assert (len(cache), cache.nbytes) == (1, A_TOKEN * 3)


def test_without_room_for_a_token_nothing_is_kept() -> None:
    for bound in (A_TOKEN - 1, 0):
        cache = PrefixCache(bound)
        put(cache, 1, 2)
        assert (len(cache), cache.nbytes) == (0, 0)


def test_states_that_were_given_out_stay_valid_when_their_entry_goes() -> None:
    cache = PrefixCache(A_TOKEN * 4)
    put(cache, 1, 2, 3)
    kept = cache.longest((1, 2, 3))
    put(cache, 4, 5, 6)
    assert found(cache, 1, 2, 3) == 0
    own = states_of((1, 2, 3, 4))[:, :, :, 3:]
    cache.put((1, 2, 3, 4), (*kept, PastStates(own, 1)))  # what a row has that began behind them
    assert torch.equal(joined(kept), states_of((1, 2, 3)))
    assert found(cache, 1, 2, 3, 4) == 4


def test_clear_forgets_everything() -> None:
    cache = PrefixCache(1 << 20)
    put(cache, 1, 2)
    cache.clear()
    assert (len(cache), cache.nbytes, found(cache, 1, 2)) == (0, 0, 0)


def test_clear_frees_memory_without_the_garbage_collector() -> None:
    """Who freezes it, as workers do, would never get it back."""
    cache = PrefixCache(1 << 20)
    put(cache, 1, 2)
    put(cache, 1, 2, 3)
    kept = [weakref.ref(part.states) for part in cache.longest((1, 2, 3))]
    gc.disable()
    try:
        cache.clear()
        assert [states() for states in kept] == [None, None]
    finally:
        gc.enable()


PROMPTS = st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 2), max_size=8).map(tuple)), max_size=30)


@pytest.fixture(params=[1, 3, 64], ids="apart from {} on".format, scope="module")
def apart(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_cache, "LEAST_APART", request.param)
        yield


@pytest.mark.usefixtures("apart")
@given(asked=PROMPTS)
@settings(max_examples=examples(200), deadline=None)
def test_with_room_for_all_the_longest_of_all_beginnings_is_found(asked: list[tuple[bool, tuple[int, ...]]]) -> None:
    cache = PrefixCache(1 << 20)
    kept: set[tuple[int, ...]] = set()
    for puts, tokens in asked:
        expected = max((end for end in range(len(tokens) + 1) if end == 0 or tokens[:end] in kept), default=0)
        assert found(cache, *tokens) == expected
        if puts:
            put(cache, *tokens)
            kept |= {tokens[:end] for end in range(1, len(tokens) + 1)}
        assert cache.nbytes == A_TOKEN * len(kept), "each beginning once"


@pytest.mark.usefixtures("apart")
@given(asked=PROMPTS, tokens_kept=st.integers(0, 12))
@settings(max_examples=examples(200), deadline=None)
def test_within_its_bound_whatever_is_found_is_right(
    asked: list[tuple[bool, tuple[int, ...]]], tokens_kept: int
) -> None:
    cache = PrefixCache(A_TOKEN * tokens_kept)
    for puts, tokens in asked:
        found(cache, *tokens)
        if puts:
            # As a row does: what was kept, and behind it what it has read itself.
            known = cache.longest(tokens)
            own = states_of(tokens)[:, :, :, total(known) :]
            cache.put(tokens, (*known, PastStates(own, len(tokens) - total(known))))
        assert cache.nbytes <= A_TOKEN * tokens_kept


@given(lengths=st.lists(st.integers(1, 4), max_size=5), data=st.data())
def test_past_states_are_cut_and_joined_at_any_token(lengths: list[int], data: st.DataObject) -> None:
    tokens = tuple(range(sum(lengths)))
    states, past, at = states_of(tokens), [], 0
    for length in lengths:
        past.append(PastStates(states[:, :, :, at:], length))  # of states that hold more
        at += length
    end = data.draw(st.integers(0, len(tokens)))
    first = data.draw(st.integers(0, end))
    cut = beginning(past, end)
    assert total(cut) == end
    assert torch.equal(joined(cut, first), states[:, :, :, first:end])
