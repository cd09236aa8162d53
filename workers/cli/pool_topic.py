"""Pools and the topic ``pool-examples``: what an import teaches, and what a pool was taught."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from el4ner.errors import PoolError
from el4ner.pools.pool import LeftOut, Pool, PoolSentence
from workers.cli.output import complain, tell

if TYPE_CHECKING:
    from workers.config import StreamSettings

__all__ = ["send_to_topic", "teacher_here", "with_what_it_was_taught"]


def teacher_here() -> str:
    """Who runs this, as the system has it; nobody where it does not say."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return ""


def with_what_it_was_taught(settings: StreamSettings, pool: Pool) -> Pool:
    """The pool's files with the examples that are in force now. What could not be used is said.

    Raises:
        TeachingError: no broker, or no topic.
    """
    from el4ner.pools.taught import taught_pool
    from workers.teaching.topic_examples import taught_to

    examples = taught_to(
        settings.kafka,
        pool.name,
        unreadable=lambda place, error: complain(f"{place}: passed over: {error}", severity="warning"),
    )
    taught = taught_pool(pool, examples)
    for item in taught.left_out:
        complain(f"example {item.example.digest} is not in use: {item.reason}", severity="warning")
    tell(f"pool {pool.name}: {len(taught.examples)} examples that it was taught are in it")
    return taught.pool


def send_to_topic(
    settings: StreamSettings,
    pool: Pool,
    sentences: Iterable[PoolSentence],
    *,
    teacher: str,
    new_types: bool,
    descriptions: Mapping[str, str],
    refuse: Callable[[LeftOut], None],
) -> int:
    """Teach the pool these sentences, all of which are looked at before the first is sent; returns how many.

    ``new_types``: types that the pool does not have are taught too, by their ``descriptions`` or else by their names;
    otherwise they are a mistake.
    ``refuse`` is told of mistakes, and raises if one is to stop it.

    Raises:
        TeachingError: no broker, no topic, or an example that was not delivered.
    """
    from el4ner.nearest import choices, nearest_hint
    from el4ner.pools.examples import PoolExample
    from el4ner.pools.readers import describe
    from workers.messages.pool_examples import ExampleKey
    from workers.teaching.topic_examples import send_examples

    types = with_what_it_was_taught(settings, pool).types
    now_ms = time.time_ns() // 1_000_000
    examples: dict[str, tuple[str, PoolExample]] = {}
    for sentence in sentences:
        unknown = sorted({label for _, label in sentence.spans} - types.keys())
        try:
            if unknown and not new_types:
                raise PoolError(  # noqa: TRY301  # told as what an example itself refuses is
                    f"type {unknown[0]!r} is not one of pool {pool.name}{nearest_hint(unknown[0], types)}; there are: "
                    f"{choices(types)}; --new-types teaches new ones"
                )
            described = {label: descriptions.get(label) or describe(label) for label in unknown}
            example = PoolExample(sentence.text, sentence.spans, described, teacher, now_ms)
        except PoolError as error:
            refuse(LeftOut(sentence.where, str(error)))
            continue
        where, other = examples.setdefault(example.digest, (sentence.where, example))
        if other.spans != example.spans:
            refuse(LeftOut(sentence.where, f"the same text as at {where}, labelled otherwise"))
    return send_examples(
        settings.kafka, ((ExampleKey(pool.name, digest), example) for digest, (_, example) in examples.items())
    )
