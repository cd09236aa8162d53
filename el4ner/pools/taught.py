"""A pool's files with the examples that it was taught over them: the same pool in whatever order they came."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from el4ner.errors import PoolError
from el4ner.nearest import choices, nearest_hint
from el4ner.pools.examples import PoolExample
from el4ner.pools.pool import Pool, PoolSentence

__all__ = ["LeftOutExample", "TaughtPool", "taught_pool"]


@dataclass(frozen=True, slots=True)
class LeftOutExample:
    """An example that the pool cannot use, and why. It counts again as soon as the reason is gone."""

    example: PoolExample
    reason: str


@dataclass(frozen=True)
class TaughtPool:
    """What comes of teaching a pool.

    Args:
        base: the pool's files.
        examples: those in use, each text once, in the order in which they were taught.
        pool: base and examples together; ``base`` itself where the examples change nothing. Sentences of the files keep
            their order, with those that an example replaces in their places; new ones stand behind them.
        left_out: examples that are not in use.
    """

    base: Pool
    examples: tuple[PoolExample, ...]
    pool: Pool
    left_out: tuple[LeftOutExample, ...] = field(default=(), compare=False)

    @property
    def sentences(self) -> list[PoolSentence]:
        """What the examples say, in the order in which they were taught."""
        return [example.sentence for example in self.examples]

    def earlier(self, count: int) -> TaughtPool:
        """The pool with the first ``count`` of the examples alone."""
        return taught_pool(self.base, self.examples[:count])


def taught_pool(base: Pool, examples: Iterable[PoolExample]) -> TaughtPool:
    """``base`` with the examples: a pure function of both, in whatever order the examples come.

    An example replaces the sentence of its text, or is added. Of two examples of one text the one that was taught later
    counts. A new type has the description that was taught last; what the files say of a type counts more. An example
    with a type that nobody declares is left out, and so is one that the pool could not have in its files.
    """
    latest: dict[str, PoolExample] = {}
    for example in sorted(examples, key=_order):
        latest[example.sentence.text] = example
    in_order = sorted(latest.values(), key=_order)
    new: dict[str, str] = {}
    for example in in_order:
        new.update((name, line) for name, line in example.types.items() if name not in base.types)
    used, left_out = [], []
    for example in in_order:
        if reason := _unusable(example, [*base.types, *new]):
            left_out.append(LeftOutExample(example, reason))
        else:
            used.append(example)
    return TaughtPool(base, tuple(used), _merged(base, used, new), tuple(left_out))


def _order(example: PoolExample) -> tuple[int, str]:
    return example.taught_at, example.digest


def _unusable(example: PoolExample, types: Sequence[str]) -> str | None:
    for _, label in example.spans:
        if label not in types:
            return (
                f"type {label!r} is not declared{nearest_hint(label, types)}; there are: {choices(types)}. A new type "
                "comes with its description"
            )
    return None


def _merged(base: Pool, examples: Sequence[PoolExample], new: dict[str, str]) -> Pool:
    by_text = {example.sentence.text: example.sentence for example in examples}
    sentences: list[PoolSentence] = []
    replaced: set[str] = set()
    for sentence in base.sentences:
        taught = by_text.get(sentence.text)
        if taught is None:
            sentences.append(sentence)
        elif sentence.text not in replaced:
            replaced.add(sentence.text)
            sentences.append(taught)
    added = sorted((example for example in examples if example.sentence.text not in replaced), key=_by_digest)
    sentences += [example.sentence for example in added]
    # Types that nobody's example uses any more are no part of the pool.
    named = {label for sentence in sentences for _, label in sentence.spans} | {
        name for example in examples for name in example.types
    }
    types = {**base.types, **{name: new[name] for name in sorted(new) if name in named}}
    if types == base.types and tuple(sentences) == base.sentences:
        return base
    try:
        return Pool(base.name, types, tuple(sentences), base.text_kind, base.left_out, base=base.fingerprint)
    except PoolError as error:  # what each example and the files may have by themselves, they may have together
        raise AssertionError(f"a taught pool is a pool: {error}") from error


def _by_digest(example: PoolExample) -> str:
    return example.digest
