"""The validation metrics are torchmetrics', and their values are the report's."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from odd_predictions import ODD, labels_of

from medqlora.evaluation import ValidationMetrics, quick_scores
from medqlora.evaluation.metrics.calibration import calibration
from medqlora.evaluation.statistics.intervals import confusion_counts
from medqlora.evaluation.validation import GENERATED, LIKELIHOOD
from medqlora.records import YES_NO_MAYBE, Prediction


def expected(predictions: list[Prediction]) -> dict[str, float]:
    scores = quick_scores(predictions)
    return {**scores, "ece": calibration(predictions)["ece"]} if predictions[0].logprobs else scores


@pytest.mark.parametrize("name", ODD)
def test_values_are_those_of_the_report(name: str) -> None:
    predictions = ODD[name]
    metrics = ValidationMetrics(labels_of(predictions))
    for start in range(0, len(predictions), 7):
        metrics.update(predictions[start : start + 7])
    scores = metrics.compute()
    assert scores == pytest.approx(expected(predictions), abs=1e-6)
    assert metrics.compute() == scores


def test_the_confusion_matrix_is_the_reports_with_unparsed_answers_last() -> None:
    predictions = ODD["random"]
    gold, labels = [str(one.gold) for one in predictions], labels_of(predictions)
    metrics = ValidationMetrics(labels)
    metrics.update(predictions)
    metrics.compute()
    for kind, decisions in (
        (GENERATED, [one.parsed for one in predictions]),
        (LIKELIHOOD, [one.decision for one in predictions]),
    ):
        assert metrics.confusion_matrix(kind) == confusion_counts(gold, decisions, labels).tolist()


def test_reset_forgets_the_last_validation() -> None:
    metrics = ValidationMetrics(YES_NO_MAYBE)
    metrics.update(ODD["unparsed"])
    metrics.compute()
    metrics.reset()
    assert metrics.compute() == {}
    metrics.update(ODD["ties"])
    assert metrics.compute() == pytest.approx(expected(ODD["ties"]), abs=1e-6)


#: forks after the import, which is most of what a process costs
_TWO_PROCESSES = """
import json, os, sys
from pathlib import Path
import torch.distributed as dist
from odd_predictions import ODD, labels_of
from medqlora.evaluation import ValidationMetrics

child = os.fork()
rank, folder = int(child == 0), Path(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
results = {}
for name, predictions in ODD.items():
    metrics = ValidationMetrics(labels_of(predictions))
    metrics.update(predictions[rank::2])
    results[name] = metrics.compute()
    if metrics.labels:
        results[f"{name}: counts"] = metrics.confusion_matrix()
(folder / f"{rank}.json").write_text(json.dumps(results))
dist.destroy_process_group()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_two_processes_have_the_scores_of_all_questions_also_where_one_has_none(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    paths = [root, root / "tests/helpers", root / "tests/unit/evaluation"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    code = ["-W", "error::UserWarning", "-c", _TWO_PROCESSES, str(tmp_path)]
    subprocess.run([sys.executable, *code], check=True, cwd=root, env=environment)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    for name, predictions in ODD.items():
        assert first[name] == pytest.approx(expected(predictions), abs=1e-6), name
        if predictions[0].logprobs:
            counts = confusion_counts(
                [str(one.gold) for one in predictions],
                [one.decision for one in predictions],
                labels_of(predictions),
            )
            assert first[f"{name}: counts"] == counts.tolist()


def test_a_question_without_an_answer_is_refused() -> None:
    with pytest.raises(KeyError):
        ValidationMetrics(YES_NO_MAYBE).update([replace(ODD["ties"][0], gold="perhaps")])
