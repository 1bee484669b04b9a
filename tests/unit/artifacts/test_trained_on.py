"""Validation questions that an adapter trained on take no part in its calibration, whatever their ids."""

from dataclasses import replace

from tokenizer_families import FAMILIES, family

from medqlora.artifacts.evaluated_weights import EvaluatedWeights, Learned
from medqlora.config.data import DataOptions
from medqlora.data import SyntheticTrials
from medqlora.data.stage_data import StageData


def test_a_question_that_was_trained_on_under_another_id_calibrates_nothing() -> None:
    source = SyntheticTrials(train=4, dev=5, test=4)
    splits = source.read()
    again = replace(splits.dev[1], id="elsewhere-1", question=splits.dev[1].question.upper())
    trained = Learned([*splits.train, again, splits.dev[3]], frozenset(), "")
    weights = EvaluatedWeights("memory", "in memory", learned=trained)
    data = StageData(source, None, DataOptions())
    tokenizer = family(next(iter(FAMILIES)))
    data.read(tokenizer, ("dev", "test"), report=lambda line: None, trained=weights.trained_on)
    assert [example.id for example in data.dev] == [splits.dev[at].id for at in (0, 2, 4)]
    assert len(data.test) == 4
