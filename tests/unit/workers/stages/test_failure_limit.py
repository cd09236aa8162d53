"""When failures are too many to be the documents' fault."""

from __future__ import annotations

import pytest

from workers.stages.failure_limit import WINDOW, FailureLimit, TooManyFailuresError

FAILED = "engine"


def test_failures_one_after_another_are_too_many_at_the_limit() -> None:
    limit = FailureLimit(run=3, share=1.0)
    limit.check([FAILED, FAILED])
    with pytest.raises(TooManyFailuresError, match=r"3 documents in a row.*'engine'.*max_failure_run"):
        limit.check([FAILED])


def test_a_result_between_them_starts_the_count_again() -> None:
    limit = FailureLimit(run=3, share=1.0)
    for _ in range(100):
        limit.check([FAILED, None, FAILED])
        limit.check([FAILED, None])


def test_a_run_is_noticed_within_a_batch_that_ends_well() -> None:
    with pytest.raises(TooManyFailuresError):
        FailureLimit(run=3, share=1.0).check([None, FAILED, FAILED, FAILED, None, None])


def test_a_share_counts_when_enough_documents_were_seen() -> None:
    limit = FailureLimit(run=WINDOW, share=0.5)
    half = [FAILED, None]
    limit.check(half * (WINDOW // 2))
    with pytest.raises(TooManyFailuresError, match=rf"{WINDOW // 2 + 1} of the last {WINDOW}.*max_failure_share"):
        # The oldest of the window was a failure, and another one takes its place; then a result goes.
        limit.check([FAILED, FAILED])


def test_a_few_failures_at_the_start_are_no_share_yet() -> None:
    limit = FailureLimit(run=WINDOW, share=0.1)
    limit.check([FAILED, None] * 100)


def test_what_is_long_ago_does_not_count() -> None:
    limit = FailureLimit(run=WINDOW, share=0.5)
    limit.check([FAILED, None] * (WINDOW // 2))
    limit.check([None] * WINDOW)
    limit.check([FAILED, None] * (WINDOW // 2))


def test_results_that_could_not_be_told_count_as_failures() -> None:
    limit = FailureLimit(run=10**6, share=0.5)
    limit.check([None] * WINDOW)
    for _ in range(250):
        limit.amend("output-too-large")
    with pytest.raises(TooManyFailuresError, match=r"251 of the last 500 .*'output-too-large'.*max_failure_share"):
        limit.amend("output-too-large")
    run = FailureLimit(run=3, share=1.0)
    run.check([None, None, None])
    run.amend(FAILED)
    run.amend(FAILED)
    with pytest.raises(TooManyFailuresError, match="max_failure_run"):
        run.amend(FAILED)
