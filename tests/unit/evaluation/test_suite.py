"""Several question sets in one report: the average is right, each set is whole, nothing leaves its place."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from evaluation_builders import random_predictions, records_of
from pages import EVIL, parsed

from medqlora.evaluation import Tested, score, suite_figure, suite_table, write_suite
from medqlora.evaluation.metrics.suite_scores import holm, suite_scores
from medqlora.evaluation.report.plots import svg
from medqlora.records import Prediction


def asked(name: str, n: int, seed: int, *, base: bool = True, labels: str = "ABCD") -> Tested:
    items = random_predictions(n, seed=seed, labels=labels)
    compared = random_predictions(n, seed=seed + 50, labels=labels, skill=0.4) if base else None
    records = records_of(items, question=EVIL)
    scores = score(items, records=records, base=compared, dataset=name, split="test", seed=3)
    return Tested(name, scores, items, records, compared)


def sets() -> list[Tested]:
    return [asked("Trials", 90, 0), asked("PubMedQA", 40, 1), asked(EVIL, 60, 2)]


def test_the_macro_average_and_its_interval_are_a_plain_loops() -> None:
    average = suite_scores(sets())["macro_average"]
    rng = np.random.default_rng(1)
    right = [
        (
            np.array([one.decision == one.gold for one in each.predictions]),
            np.array([one.decision == one.gold for one in each.base or ()]),
        )
        for each in sets()
    ]
    assert average["accuracy"] == pytest.approx(np.mean([mine.mean() for mine, _ in right]))
    assert average["base_accuracy"] == pytest.approx(np.mean([base.mean() for _, base in right]))
    assert average["difference"] == pytest.approx(average["accuracy"] - average["base_accuracy"])
    draws, differences = [], []
    for _ in range(4000):
        picked = [(rng.integers(0, len(mine), len(mine)), mine, base) for mine, base in right]
        draws.append(np.mean([mine[places].mean() for places, mine, _ in picked]))
        differences.append(
            np.mean([mine[places].mean() - base[places].mean() for places, mine, base in picked])
        )
    assert average["accuracy_ci95"] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.012)
    assert average["difference_ci95"] == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=0.015)
    assert suite_scores(sets())["macro_average"] == average


def test_holm_is_what_statsmodels_has() -> None:
    from statsmodels.stats.multitest import multipletests

    p = {"a": 0.04, "b": 0.001, "c": 0.03, "d": 0.9}
    assert list(holm(p).values()) == pytest.approx(multipletests(list(p.values()), method="holm")[1])
    assert list(holm(p)) == list(p)


def test_the_files_hold_the_first_sets_keys_and_each_set_whole(tmp_path: Path) -> None:
    several = sets()
    paths = write_suite(tmp_path, several, {"command": EVIL})
    report = json.loads(paths["test_report.json"].read_text("utf-8"))
    suite = report.pop("suite")
    assert report == json.loads(json.dumps(several[0].scores.to_json()))
    assert suite["sets"]["PubMedQA"] == json.loads(json.dumps(several[1].scores.to_json()))
    assert suite["n"] == 190
    lines = [json.loads(line) for line in paths["predictions.jsonl"].read_text("utf-8").splitlines()]
    assert [line["dataset"] for line in lines] == ["Trials"] * 90 + ["PubMedQA"] * 40 + [EVIL] * 60
    assert len(json.loads(paths["predictions_official.json"].read_text("utf-8"))) == 40


def test_the_page_escapes_all_and_repeats_no_id(tmp_path: Path) -> None:
    page = write_suite(tmp_path, sets(), {"command": EVIL})["report.html"].read_text("utf-8")
    reader = parsed(page)
    assert {"iframe", "link", "object", "svg"}.isdisjoint(reader.tags)
    assert page.count("<script>") == 1
    assert reader.handlers == []
    assert all(source.startswith("data:image/svg+xml;base64,") for source in reader.sources)
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert page.count('<details class="set">') == 3
    assert "Holm 1979" in reader.text
    assert "2,000 draws" in reader.text


def test_the_table_is_a_line_a_set_of_80_columns_and_ends_with_the_average() -> None:
    lines = suite_table(sets()).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 8
    assert lines[-1].startswith("macro average")
    assert f"{100 * suite_scores(sets())['macro_average']['accuracy']:.1f}%" in lines[-1]


def test_a_set_without_a_base_leaves_the_average_without_a_difference(tmp_path: Path) -> None:
    free = [Prediction(str(n), "40 mg", (), text="40 mg" if n else "") for n in range(4)]
    records = records_of(free)
    several = [asked("Trials", 30, 0), Tested("Free", score(free, records=records), free, records, None)]
    suite = suite_scores(several)
    assert suite["macro_average"]["difference"] is None
    assert list(suite["mcnemar_p_holm"]) == ["Trials"]
    assert suite["macro_average"]["accuracy"] == pytest.approx((several[0].scores.accuracy + 0.75) / 2)
    parsed(write_suite(tmp_path, several)["report.html"].read_text("utf-8"))
    assert svg(suite_figure(several))
    assert suite_table(several)


def test_one_set_or_two_of_a_name_are_no_suite() -> None:
    one = asked("Trials", 10, 0)
    for several in ([one], [one, one]):
        with pytest.raises(ValueError, match="two or more sets of different names"):
            suite_scores(several)
