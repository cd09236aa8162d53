"""A calibration and a trial of validation, for people: within 80 columns, but for the names of files and pools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from workers.cli.output import results, table

if TYPE_CHECKING:
    from el4ner.evaluation.stats import Comparison
    from el4ner.evaluation.validation import Trial
    from el4ner.evidence import Evidence
    from el4ner.evidence.calibration import Step

__all__ = ["show_calibration", "show_trial"]


def show_calibration(pool: str, evidence: Evidence, file: Path, *, current: bool, adaptive: bool) -> None:
    """What was estimated, from how much, and what it promises."""
    from el4ner.evidence.calibration import ENOUGH_SENTENCES

    console = results()
    calibration = evidence.calibration
    # The calibration's own figures are with early settling.
    figures = calibration.figures if adaptive else calibration.steps[-1].figures
    how = "what is stored is current" if current else "estimated now"
    console.print(f"{pool}: {calibration.sentences:,} sentences, {calibration.spans:,} proposed spans; {how}")
    if figures is None:
        console.print("Nothing could be estimated, so all kinds of evidence count the same:")
        if calibration.sentences < ENOUGH_SENTENCES:
            console.print(f"the pool is too small. It takes {ENOUGH_SENTENCES} sentences at least.")
        else:
            console.print("none of the labelled spans is among those that are proposed.")
    else:
        console.print(
            f"leave-one-out: F1 {figures.f1:.3f}, precision {figures.precision:.3f}, recall {figures.recall:.3f}"
        )
        console.print("That is on the pool itself: to compare settings by, no promise for other text.")
        _show_steps(evidence)
        _explain_margins(evidence, adaptive=adaptive)
    console.print(f"file {file}\nfingerprint {calibration.fingerprint}")


def _show_steps(evidence: Evidence) -> None:
    """A column a step: the weights of all that it goes by, and what comes of it."""
    steps = evidence.calibration.steps
    columns = ["1.", *(f"1.–{number}." for number in range(2, len(steps) + 1))]
    shown = table("member", "evidence", *columns, right=columns)
    row = 0
    for number, source in enumerate(evidence.sources):
        for place, kind in enumerate(source.features):
            weights = ["" if at < number else f"{step.combination.weights[row]:.2f}" for at, step in enumerate(steps)]
            shown.add_row(f"{number + 1}. {source.name}" if place == 0 else "", kind, *weights)
            row += 1
    shown.add_section()
    shown.add_row("", "none", *(f"{step.combination.none_bias:+.2f}" for step in steps))
    shown.add_row("", "threshold", *(f"{step.combination.threshold:+.2f}" for step in steps))
    shown.add_row("", "F1", *("" if step.figures is None else f"{step.figures.f1:.3f}" for step in steps))
    shown.add_row("", "settled from", *map(_margin, steps))
    results().print(shown)


def _margin(step: Step) -> str:
    from el4ner.evidence.calibration import NEVER

    if step.margin is None:
        return "all"
    return "never" if step.margin >= NEVER else f"{step.margin:.2f}"


def _explain_margins(evidence: Evidence, *, adaptive: bool) -> None:
    console = results()
    if len(evidence.sources) == 1:
        return
    if adaptive:
        console.print("A span whose first type is ahead of the second by that margin is settled there,")
        console.print("and the next member is not asked about it.")
    else:
        console.print("method.adaptive is off: every member is asked about every span,")
        console.print("however clear it is.")


def show_trial(pool: str, trial: Trial) -> None:
    """The three kinds side by side, what the verifier knows and costs, and what to write into the configuration."""
    console = results()
    console.print()
    console.print(f"validation of {pool} by {trial.verifier}, by leave-one-out on the pool:")
    console.print(
        f"{trial.sentences} sentences, {trial.gold:,} labelled entities, {trial.asked:,} spans that were asked about"
    )
    numbers = ("F1", "difference", "95 % interval", "p")
    shown = table("validation", *numbers, right=numbers)
    shown.add_row("off", f"{trial.off:.3f}", "", "", "")
    for kind, comparison in (("soft", trial.soft), ("hard", trial.hard)):
        shown.add_row(kind, *_compared(comparison))
    console.print(shown)
    if trial.auc is None:
        console.print("yes for right against wrong spans: AUC unknown, for all are of one sort")
    else:
        console.print(f"yes for right against wrong spans: AUC {trial.auc:.3f} (0.5 is chance)")
    console.print(f"{trial.seconds_per_sentence:.2f} s a sentence for the verifier")
    console.print(f'\n[method]\nvalidation = "{trial.chosen}"')


def _compared(comparison: Comparison) -> tuple[str, ...]:
    low, high = comparison.difference_ci
    return (
        f"{comparison.f1:.3f}",
        f"{comparison.difference:+.3f}",
        f"{low:+.3f} – {high:+.3f}",
        f"{comparison.p_value:.4f}",
    )
