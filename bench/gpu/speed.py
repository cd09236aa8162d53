"""Prefill, decoding and shared prompts, through the engine protocol: the same questions to every engine."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gpu.engines import Deadline, in_turns, spread
from gpu.record import Record

if TYPE_CHECKING:
    from el4ner.engines.base import Engine, GenerateRequest, ScoreRequest

__all__ = ["CARD", "CPU", "Sizes", "measure", "shared_and_not", "writing"]

WORDS: Final = tuple(
    "the of and report said market council river engine minister company after before during north south city "  # noqa: SIM905
    "hospital storm bank election court price water train team season school union energy border harbour agency "
    "plan vote record growth law public local early late first second third new old high low".split()
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is asked.

    Attributes:
        prompts: read at the same time, for prefill.
        words: of each; about as many tokens.
        batches: answers written at the same time.
        new_tokens: of each answer.
        sentences: with a prompt each, for shared prompts.
        questions: behind each of these.
        repeats: of each measurement, after one that warms up.
    """

    prompts: int
    words: int
    batches: tuple[int, ...]
    new_tokens: int
    sentences: int
    questions: int
    repeats: int


CARD: Final = Sizes(32, 1000, (32, 1, 128, 8), 64, 8, 8, 3)
CPU: Final = Sizes(2, 60, (2, 1), 4, 2, 3, 1)


def text(words: int, seed: str) -> str:
    """Words in an order that no other seed has."""
    drawn = random.Random(seed)
    return " ".join(drawn.choice(WORDS) for _ in range(words))


def writing(count: int, words: int, new_tokens: int, seed: str) -> list[GenerateRequest]:
    """Answers behind prompts that differ from their first words on."""
    from el4ner.engines.base import GenerateRequest, Prompt

    return [
        GenerateRequest(Prompt(text(6, f"{seed} {number} s"), text(words, f"{seed} {number}")), new_tokens)
        for number in range(count)
    ]


def shared_and_not(sentences: int, questions: int, words: int) -> tuple[list[ScoreRequest], list[ScoreRequest]]:
    """The same questions twice: behind one prompt for each sentence, and each behind a prompt of its own that is as
    long and differs from its beginning on, so that there is nothing to share."""
    from el4ner.engines.base import Prompt, ScoreItem, ScoreRequest

    shared, apart = [], []
    for number in range(sentences):
        user = text(words, f"shared {number}")
        items = [
            ScoreItem(f"\n- {text(2, f'item {number} {place}')} is a", (" person", " location", " none"))
            for place in range(questions)
        ]
        shared.append(ScoreRequest(Prompt(text(6, f"{number}"), user), tuple(items)))
        apart += [
            ScoreRequest(Prompt(text(6, f"{number} {place} alone"), user), (item,)) for place, item in enumerate(items)
        ]
    return shared, apart


def measure(engines: dict[str, Any], record: Record, sizes: Sizes, deadline: Deadline) -> None:
    """Rows ``prefill``, ``decode`` and ``sharing``, one for each engine, in the order of what matters most."""
    _prefill(engines, record, sizes, deadline)
    _decode(engines, record, sizes, deadline, sizes.batches[:2])
    _sharing(engines, record, sizes, deadline)
    _decode(engines, record, sizes, deadline, sizes.batches[2:])
    record.put(cut_short=deadline.left <= 0)


def _prefill(engines: dict[str, Any], record: Record, sizes: Sizes, deadline: Deadline) -> None:
    requests = writing(sizes.prompts, sizes.words, 1, "prefill")

    def once(engine: Engine) -> dict[str, float]:
        forget(engine)
        inside = getattr(engine, "model_seconds", 0.0)
        began = time.perf_counter()
        results = engine.generate(requests)
        seconds = time.perf_counter() - began
        tokens = sum(result.usage.prompt_tokens - result.usage.cached_tokens for result in results)
        return {
            "rate": tokens / seconds,
            "tokens": tokens,
            "inside": (getattr(engine, "model_seconds", 0.0) - inside) / seconds,
        }

    def write(label: str, results: list[dict[str, float]]) -> None:
        record.replace(
            "prefill",
            ("engine", "prompts"),
            engine=label,
            prompts=sizes.prompts,
            tokens=int(results[-1]["tokens"]),
            in_model=results[-1]["inside"],
            **spread([result["rate"] for result in results]),
        )

    in_turns(engines, once, record, deadline, what="prefill", repeats=sizes.repeats, each=write)
    reference = engines.get("transformers")
    if reference is not None and hasattr(reference, "raw_prefill") and deadline.left > 0:
        length, rows = min(2 * sizes.words, 2048), 1
        reference.raw_prefill(length, rows)
        seconds = [reference.raw_prefill(length, rows) for _ in range(sizes.repeats)]
        rates = [length * rows / second for second in seconds]
        record.row("prefill", engine="plain transformers forward", prompts=rows, tokens=length * rows, **spread(rates))


def _decode(engines: dict[str, Any], record: Record, sizes: Sizes, deadline: Deadline, batches: Sequence[int]) -> None:
    for batch in batches:
        requests = writing(batch, 40, sizes.new_tokens, f"decode {batch}")
        first = writing(batch, 40, 1, f"decode {batch}")

        def once(engine: Engine, asked: list[GenerateRequest] = requests, read: list[GenerateRequest] = first) -> float:
            engine.generate(read)  # the prompts are known afterwards: what is timed is writing
            began = time.perf_counter()
            results = engine.generate(asked)
            return sum(result.usage.new_tokens for result in results) / (time.perf_counter() - began)

        def write(label: str, rates: list[float], batch: int = batch) -> None:
            keys = ("engine", "batch")
            record.replace("decode", keys, engine=label, batch=batch, new_tokens=sizes.new_tokens, **spread(rates))

        in_turns(engines, once, record, deadline, what=f"decode {batch}", repeats=sizes.repeats, each=write)


def _sharing(engines: dict[str, Any], record: Record, sizes: Sizes, deadline: Deadline) -> None:
    shared, apart = shared_and_not(sizes.sentences, sizes.questions, sizes.words // 2)

    def once(engine: Engine) -> tuple[float, float]:
        taken = []
        for requests in (shared, apart):
            forget(engine)
            began = time.perf_counter()
            engine.score(requests)
            taken.append(time.perf_counter() - began)
        return taken[0], taken[1]

    def write(label: str, pairs: list[tuple[float, float]]) -> None:
        record.replace(
            "sharing",
            ("engine",),
            engine=label,
            questions=len(apart),
            seconds_shared=spread([shared_seconds for shared_seconds, _ in pairs]),
            seconds_apart=spread([apart_seconds for _, apart_seconds in pairs]),
            **spread([apart_seconds / shared_seconds for shared_seconds, apart_seconds in pairs]),
        )

    in_turns(engines, once, record, deadline, what="shared prompts", repeats=sizes.repeats, each=write)


def forget(engine: Any) -> None:
    """No measurement finds prompts of the one before."""
    if hasattr(engine, "forget_prompts"):
        engine.forget_prompts()
