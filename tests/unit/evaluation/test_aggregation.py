"""Several adapters on the same questions: mean and spread are right, and none is hidden."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_builders import random_predictions, records_of
from pages import EVIL, parsed
from scipy import stats

from medqlora.errors import InputError
from medqlora.evaluation import aggregate, aggregate_table, score, write_aggregate


def reports(count: int = 3, *, base: bool = True) -> list[dict[str, Any]]:
    compared = random_predictions(50, seed=99, skill=0.3) if base else None
    made = []
    for seed in range(count):
        items = random_predictions(50, seed=seed)
        scores = score(items, records=records_of(items), base=compared, adapter=f"{EVIL}/{seed}", seed=seed)
        made.append(scores.to_json())
    return made


def test_sd_and_interval_of_the_mean_are_scipys() -> None:
    whole = aggregate(reports())
    for metric in whole["metrics"]:
        one = whole[metric]
        expected = stats.t.interval(0.95, 2, np.mean(one["each"]), stats.sem(one["each"]))
        assert one["mean_ci95"] == pytest.approx(expected)
        assert one["sd"] == pytest.approx(stats.tstd(one["each"]))
    assert {"accuracy", "difference"} <= set(whole["metrics"])


@pytest.mark.parametrize("key", ["dataset", "split", "n", "decided_by", "prompt_sha256"])
def test_runs_on_other_questions_or_asked_otherwise_are_not_put_together(key: str) -> None:
    several = reports()
    several[2][key] = 49 if key == "n" else "another"
    with pytest.raises(InputError, match=f"report 3 has {key}"):
        aggregate(several)


def test_a_metric_that_one_report_lacks_is_left_out() -> None:
    several = reports()
    several[1]["ece"] = None
    whole = aggregate(several)
    assert "ece" not in whole["metrics"]
    assert "ece" not in whole
    assert "brier" in whole["metrics"]


def test_one_run_has_no_spread() -> None:
    whole = aggregate(reports(1))
    assert whole["accuracy"]["sd"] is None
    assert whole["accuracy"]["mean_ci95"] is None
    assert "adapter" in aggregate_table(whole)


def test_the_base_is_there_once_and_a_difference_between_bases_is_told() -> None:
    several = reports()
    assert aggregate(several)["base"]["same_in_all"] is True
    assert aggregate(several)["base"]["accuracy"] == several[0]["base"]["accuracy"]
    several[1]["base"] = {**several[1]["base"], "accuracy": 0.0}
    assert aggregate(several)["base"]["same_in_all"] is False
    assert aggregate([*reports(2), *reports(1, base=False)])["base"] is None


def test_the_files_list_every_adapter_and_the_page_escapes_them(tmp_path: Path) -> None:
    several = reports()
    paths = write_aggregate(tmp_path, several, {"runs": [EVIL]})
    assert sorted(paths) == ["aggregate.html", "aggregate_report.json"]
    whole = json.loads(paths["aggregate_report.json"].read_text("utf-8"))
    assert whole["adapters"] == [one["adapter"] for one in several]
    assert "over runs" in whole["spread"]
    reader = parsed(paths["aggregate.html"].read_text("utf-8"))
    assert {"script", "iframe", "link", "object", "svg"}.isdisjoint(reader.tags)
    assert reader.handlers == []
    assert reader.text.count("<script>alert(1)</script>") >= 3
    assert all(source.startswith("data:image/svg+xml;base64,") for source in reader.sources)


def test_the_table_has_a_line_for_each_adapter_within_80_columns() -> None:
    for base in (True, False):
        lines = aggregate_table(aggregate(reports(base=base))).splitlines()
        assert max(map(len, lines)) <= 80
        assert all(line.isprintable() for line in lines)
        assert sum(line.rstrip().startswith("...") for line in lines) == 3


def test_reports_of_several_sets_are_put_together_set_by_set(tmp_path: Path) -> None:
    several = [
        {**one, "suite": {"macro_average": {"accuracy": one["accuracy"]}, "sets": {"a": one, "b": one}}}
        for one in reports()
    ]
    whole = aggregate(several)
    assert whole["suite"]["macro_average"]["mean"] == pytest.approx(whole["accuracy"]["mean"])
    assert whole["suite"]["sets"]["b"]["accuracy"] == whole["accuracy"]
    parsed(write_aggregate(tmp_path, several)["aggregate.html"].read_text("utf-8"))
    with pytest.raises(InputError, match="report 2 has the question sets"):
        aggregate([several[0], reports()[0]])
