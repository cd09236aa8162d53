"""An example before it is taught: whether the pool can take it, and whether it says otherwise. No Kafka in here.

What the command line, the page and programs ask before they send an example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from el4ner.errors import PoolError
from el4ner.nearest import choices, nearest_hint
from el4ner.pools import Pool
from el4ner.pools.disagreement import Disagreement, disagreements
from el4ner.pools.examples import PoolExample
from el4ner.pools.taught import TaughtPool, taught_pool
from workers.messages.pool_examples import ExampleKey

__all__ = ["CheckedExample", "check_example", "check_examples"]


@dataclass(frozen=True)
class CheckedExample:
    """An example that can be taught.

    Args:
        key: of its message.
        example: with the descriptions of all types that the pool's files do not have, so that it stands by itself.
        taught: the pool as it is taught until now.
        disagreements: where the pool's other sentences say otherwise. The person who teaches decides.
        replaces: an example of the same text, which counts no more; None: there is none.
    """

    key: ExampleKey
    example: PoolExample
    taught: TaughtPool
    disagreements: tuple[Disagreement, ...]
    replaces: PoolExample | None = None

    @property
    def before(self) -> Pool:
        """The pool until now."""
        return self.taught.pool

    @cached_property
    def after(self) -> Pool:
        """The pool with the example."""
        others = [each for each in _in_force(self.taught) if each.digest != self.example.digest]
        return taught_pool(self.taught.base, [*others, self.example]).pool

    @property
    def changes(self) -> bool:
        """Whether the pool is another one afterwards. One that only confirms what it has changes nothing."""
        return self.after.fingerprint != self.before.fingerprint


def check_example(name: str, taught: TaughtPool, example: PoolExample) -> CheckedExample:
    """What teaching the example would do.

    Args:
        name: the pool's, as documents have it.
        taught: its files with the examples that are in force.
        example: not yet sent.

    Raises:
        PoolError: a type is declared nowhere.
    """
    example = replace(example, types=_types(taught.base, taught.pool.types, example))
    replaced = next((each for each in _in_force(taught) if each.digest == example.digest), None)
    found = tuple(disagreements(example, taught.pool))
    return CheckedExample(ExampleKey(name, example.digest), example, taught, found, replaced)


def check_examples(
    name: str, taught: TaughtPool, examples: Sequence[tuple[str, PoolExample]]
) -> tuple[list[CheckedExample], TaughtPool]:
    """What teaching several at once would do: each, and the pool with all of them.

    Each disagrees with what the pool has now, or, where that has nothing against it, with the others. A type may be
    declared by any of them. Of two examples of one text the later one is in the pool.

    Args:
        name, taught: as :func:`check_example` has them.
        examples: where each is from, for errors.

    Raises:
        PoolError: a type is declared nowhere.
    """
    together = _with(taught, [example for _, example in examples])
    checked = []
    for where, example in examples:
        try:
            each = check_example(name, together, example)
        except PoolError as error:
            raise PoolError(f"{where}: {error}") from error
        said_now = tuple(disagreements(each.example, taught.pool))
        checked.append(replace(each, disagreements=said_now or each.disagreements))
    return checked, _with(taught, [each.example for each in checked])


def _with(taught: TaughtPool, examples: Sequence[PoolExample]) -> TaughtPool:
    by_digest = {each.digest: each for each in (*_in_force(taught), *examples)}
    return taught_pool(taught.base, by_digest.values())


def _in_force(taught: TaughtPool) -> list[PoolExample]:
    return [*taught.examples, *(each.example for each in taught.left_out)]


def _types(base: Pool, known: Mapping[str, str], example: PoolExample) -> dict[str, str]:
    new = {name: line for name, line in example.types.items() if name not in base.types}
    for _, label in example.spans:
        if label in base.types or label in new:
            continue
        if label not in known:
            raise PoolError(
                f"type {label!r} is not one of the pool's{nearest_hint(label, known)}; there are: {choices(known)}. A "
                "new type comes with a line of description"
            )
        new[label] = known[label]
    return new
