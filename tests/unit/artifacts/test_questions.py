"""The questions that an export is verified on, read again from the data that its adapter's record names."""

import pytest

from medqlora.artifacts.merge.questions import test_questions as read_test_questions
from medqlora.artifacts.merge.questions import validation_questions
from medqlora.data import SyntheticTrials
from medqlora.errors import InputError


def test_the_demos_questions_are_read_again_whatever_sources_are_registered() -> None:
    source = SyntheticTrials(train=12, dev=4, test=3)
    splits = source.read()
    data = {**source.fingerprint(), "name": source.name, "with_contexts": True}
    record = {"data": data, "dev_ids": [one.id for one in splits.dev]}
    assert validation_questions(record, "a") == splits.dev
    assert read_test_questions(record, "a") == splits.test


def test_an_unknown_source_is_one_line_with_the_option() -> None:
    record = {"data": {"source": "Unheard"}, "dev_ids": ["q1"]}
    with pytest.raises(InputError, match=r"the source of its data is not known: pass --questions FILE"):
        validation_questions(record, "a")
