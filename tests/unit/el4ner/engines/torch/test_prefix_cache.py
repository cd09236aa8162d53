from __future__ import annotations

import torch

from el4ner.engines.torch.prefix_cache import PrefixCache


def states(tokens: int, value: float = 0.0) -> torch.Tensor:
    """16 bytes a token."""
    return torch.full((1, 2, 1, tokens, 2), value)


def test_the_longest_common_beginning_is_found() -> None:
    cache = PrefixCache(1 << 20)
    cache.put((1, 2, 3, 4), states(4, 1.0))
    cache.put((1, 2, 9), states(3, 2.0))
    shared, found = cache.longest((1, 2, 3, 7, 7))
    assert shared == 3
    assert found is not None
    assert float(found.max()) == 1.0
    assert cache.longest((5,)) == (0, None)


def test_what_is_kept_is_a_copy() -> None:
    cache = PrefixCache(1 << 20)
    own = states(3, 1.0)
    cache.put((1, 2), own)
    own.fill_(5.0)
    _, found = cache.longest((1, 2))
    assert found is not None
    assert found.shape[3] == 2
    assert float(found.max()) == 1.0


def test_the_least_recently_used_goes_first_and_the_bound_holds() -> None:
    cache = PrefixCache(16 * 10)
    cache.put((1,) * 4, states(4))
    cache.put((2,) * 4, states(4))
    cache.longest((1, 1))
    cache.put((3,) * 4, states(4))
    assert cache.nbytes <= 160
    assert [cache.longest((token,))[0] for token in (1, 2, 3)] == [1, 0, 1]


def test_an_entry_that_another_continues_is_replaced_by_it() -> None:
    cache = PrefixCache(1 << 20)
    cache.put((1, 2), states(2))
    cache.put((1, 2, 3), states(3))
    cache.put((1, 2), states(2))
    assert len(cache) == 1
    assert cache.longest((1, 2, 3))[0] == 3


def test_what_is_larger_than_the_bound_is_not_kept() -> None:
    cache = PrefixCache(16)
    cache.put((1, 2), states(2))
    assert (len(cache), cache.nbytes) == (0, 0)
    cache = PrefixCache(0)
    cache.put((1,), states(1))
    assert len(cache) == 0


def test_clear_forgets_everything() -> None:
    cache = PrefixCache(1 << 20)
    cache.put((1, 2), states(2))
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)
