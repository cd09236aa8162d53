"""What a run says in a terminal, besides its table: lines of at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

from el4ner.evaluation.analysis import OUTCOMES
from el4ner.evaluation.marking import LOST
from el4ner.evaluation.stats import Comparison, Interval
from el4ner.evaluation.summary import EvaluationResult

__all__ = ["after_table", "before_table", "interval"]

WIDTH: Final = 80


def interval(ends: Interval) -> str:
    """``0.461–0.554``."""
    return f"{ends[0]:.3f}–{ends[1]:.3f}"


def before_table(result: EvaluationResult) -> list[str]:
    """What was run."""
    settings, retrieval = result.settings, result.settings["retrieval"]
    shown = f"{retrieval['kind']} retrieval, k = {retrieval['k']}"
    if result.fingerprints.get("retriever") == "none":
        shown = "no demonstrations"
    cached = f", {result.cached_sentences} of them from the cache" if result.cached_sentences else ""
    return _folded(
        f"{settings['dataset']} {settings['split']}: {result.sentences} sentences{cached}",
        f"{settings['method']['mode']} mode, {' + '.join(settings['ensemble']['members'])}, {shown}",
    )


def after_table(result: EvaluationResult) -> list[str]:
    """Where entities were lost, what a confidence is worth, what it cost, and the comparison where there is one."""
    return _folded(*_paragraphs(result))


def _paragraphs(result: EvaluationResult) -> Iterator[str]:
    figures = result.as_json()
    yield f"candidate recall {result.candidate_recall:.3f}: gold entities whose boundaries were considered"
    outcomes = result.losses.outcomes
    went = [f"{outcomes[each]} {LOST[each]}" for each in OUTCOMES if outcomes[each] or each == "found"]
    yield f"of {result.losses.gold} gold entities: {', '.join(_kept_together(each) for each in went)}"
    misclassified = outcomes["none"] + outcomes["type"]
    if misclassified and result.losses.not_shown is not None:
        yield (
            f"of the {misclassified} that classification lost, {result.losses.not_shown} had no demonstration of their "
            "type"
        )
    yield _confidence(result)
    count = max(1, result.sentences)
    stages = ", ".join(f"{stage} {seconds / count:.3f}" for stage, seconds in result.seconds.items())
    yield f"{figures['seconds_per_sentence']:.3f} seconds a sentence ({stages})"
    yield (
        f"{figures['tokens_per_sentence']:.0f} tokens a sentence, of which {figures['cached_tokens_per_sentence']:.0f} "
        f"from the prefix cache and {figures['new_tokens_per_sentence']:.0f} generated"
    )
    if result.comparison is not None:
        yield _compared(result.comparison)


def _confidence(result: EvaluationResult) -> str:
    if result.calibration.ece is None:
        return "no entity was reported"
    line = f"expected calibration error {result.calibration.ece:.3f}"
    sure = result.calibration.sure
    if sure.right is None or sure.mean_confidence is None:
        return f"{line}; no entity was reported at a confidence of 0.8 or more"
    return (
        f"{line}; of the {sure.entities} entities reported at a confidence of 0.8 or more (mean "
        f"{sure.mean_confidence:.3f}) {sure.right:.3f} are right"
    )


def _compared(comparison: Comparison) -> str:
    low, high = comparison.difference_ci
    return (
        f"against {comparison.other}: F1 {comparison.f1:.3f} - {comparison.other_f1:.3f} = "
        f"{comparison.difference:+.3f} "
        f"({low:+.3f} to {high:+.3f}), {_kept_together(f'p = {comparison.p_value:.4f}')}, "
        f"paired over {comparison.sentences} sentences"
    )


def _kept_together(words: str) -> str:
    """No line ends inside of it."""
    return words.replace(" ", "\N{NO-BREAK SPACE}")


def _folded(*paragraphs: str) -> list[str]:
    return [
        line.replace("\N{NO-BREAK SPACE}", " ")
        for paragraph in paragraphs
        for line in textwrap.wrap(
            paragraph, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    ]
