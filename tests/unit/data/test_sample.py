"""A sample of the evaluated questions keeps the labels' shares, is the seed's, and is called a sample everywhere."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from harness import options, refused, run
from hypothesis import given
from hypothesis import strategies as st

from medqlora.data.sample import Sample, draw_by_label
from medqlora.records import Record


def records(answers: list[str]) -> list[Record]:
    return [Record(str(n), "?", answer=answer) for n, answer in enumerate(answers)]


@given(st.lists(st.sampled_from(["yes", "no", "maybe"]), min_size=1, max_size=80), st.data())
def test_each_label_keeps_its_share_to_a_question(answers: list[str], data: Any) -> None:
    every = records(answers)
    count = data.draw(st.integers(1, len(answers) - 1)) if len(answers) > 1 else 1
    kept, sample = draw_by_label("dev", every, count, seed=3)
    assert len(kept) == count
    assert [one.id for one in kept] == [one.id for one in every if one in kept]
    assert sample == (Sample(count, len(every), 3) if count < len(every) else None)
    before, after = (Counter(one.answer for one in those) for those in (every, kept))
    assert all(abs(after[label] - count * before[label] / len(every)) < 1 for label in before)


def test_the_seed_draws_it() -> None:
    every = records(["yes", "no"] * 30)
    drawn = [[one.id for one in draw_by_label("test", every, 10, seed)[0]] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_every_line_and_report_of_a_sample_says_so(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = options(tiny_bases["llama"], tmp_path, train=8, dev=9, test=12)
    words += ["--trainer.max_epochs=1", "--model.generate=false"]
    fit = run("fit", [*words, "--data.validation_samples=6"])
    out = capsys.readouterr().out
    assert "JSONLines dev sample (6 of 9, seed 0): 6 questions (2 yes, 2 no, 2 maybe)" in out
    assert "Best val/accuracy, sample (6 of 9, seed 0): " in out
    card = (Path(fit.trainer.log_dir) / "adapter" / "README.md").read_text()
    assert "A sample: 6 of 9 validation questions, by label with seed 0." in card

    # the adapter held out 6 questions: of those there are no 8
    tested = run("test", [*words, "--data.test_samples=6", "--data.validation_samples=8"])
    out, folder = capsys.readouterr().out, Path(tested.trainer.log_dir)
    assert "JSONLines test sample (6 of 12, seed 0): 6 questions (2 yes, 2 no, 2 maybe)" in out
    assert "JSONLines, test sample (6 of 12, seed 0), decided by likelihood" in out
    assert "A sample of 6 of 12 questions (by label, seed 0), not the whole set's score." in out
    report = json.loads((folder / "test_report.json").read_text())
    assert (report["n"], report["sample"]) == (6, {"size": 6, "of": 12, "seed": 0})
    assert "test sample (6 of 12, seed 0)" in (folder / "report.html").read_text()
    line = json.loads((folder / "predictions.jsonl").read_text().splitlines()[0])
    assert line["question"] == f"Does drug {line['id'][1:]} help?"

    line = refused(capsys, "test", *words, "--data.test_samples=13", reads=True)
    assert "--data.test_samples is 13, but the test set holds 12: lower it" in line
