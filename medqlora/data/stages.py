"""Reads and checks the splits that a verb needs, in the same way for every source."""

import contextlib
from collections.abc import Callable, Sequence

from medqlora.data.sources.source import Source
from medqlora.data.test_sets import OPTION, reject_test_questions, summary, told
from medqlora.records import Record, Splits


def read_stages(
    source: Source,
    stages: Sequence[str],
    report: Callable[[str], None],
    *,
    allow_test_questions: bool = False,
) -> Splits:
    """Reads the splits for `stages`, reports the source's remarks, and rejects test questions in train and dev.

    Args:
        source: the source.
        stages: "train" and "dev" of `fit`, "dev" of `validate`, "dev" and "test" of `test`, "test" of `predict`.
        report: gets each line for the terminal.
        allow_test_questions: warn of benchmarks' test questions in train and dev, instead of rejecting them.

    Raises:
        InputError: the source can't be read, or train or dev holds a test question.
    """
    with contextlib.suppress(AttributeError):  # a user's own source may be frozen
        source.checks_test_questions = False  # checked below, for every source, with the option
    needed, also = _needs(stages)
    splits = source.read_for(needed, also)
    for remark in source.remarks:
        report(remark)
    if "test" not in stages:
        seen: dict[str, Sequence[Record]] = {name: getattr(splits, name) for name in needed}
        if not allow_test_questions:
            reject_test_questions(seen)
        elif counts := summary(seen.get("train", ()), seen.get("dev", ())):
            report(
                f"WARNING: {told(counts)} ({OPTION} true): a test score on them means nothing, and the adapter's "
                "record and card say so"
            )
    return splits


def _needs(stages: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The splits that have to be complete, and those that help where they exist.

    The latter are the test set, which is compared with the training set, and for `test` the questions that the adapter
    did not learn, which calibrate its temperature."""
    if "train" in stages:
        return tuple(stages), tuple(name for name in Splits._fields if name not in stages)
    if "test" in stages:
        return ("test",), ("train", "dev") if "dev" in stages else ()
    return tuple(stages), ()
