"""`test` over several question sets, and the ways in which it can decide."""

import json
from pathlib import Path
from typing import Any

import pytest
from harness import options, questions, run, write_rows

from medqlora.cli import main
from medqlora.data import JSONLines, Source
from medqlora.datamodule import PubMedQADataModule
from medqlora.records import Record, Splits


def choices(count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"c{number}",
            "question": f"Which of them is drug {number}?",
            "options": {"A": f"Drug {number}", "B": "Water", "C": "Sugar"},
            "answer": "ABC"[number % 3],
        }
        for number in range(count)
    ]


class Choices(JSONLines):
    """A second benchmark under a name of its own."""

    name = "Choices"


def report(cli: Any) -> dict[str, Any]:
    return json.loads((Path(cli.trainer.log_dir) / "test_report.json").read_text())


@pytest.fixture
def words(tiny_bases: dict[str, Path], tmp_path: Path) -> list[str]:
    return [*options(tiny_bases["llama"], tmp_path), "--trainer.max_epochs=1", "--model.generate=false"]


@pytest.fixture
def with_benchmark(words: list[str], tmp_path: Path) -> list[str]:
    rows = write_rows(tmp_path / "choices.jsonl", choices(8))
    config = tmp_path / "suite.yaml"
    config.write_text(
        f"""
data:
  benchmarks:
    - class_path: test_benchmarks_run.Choices
      init_args: {{train: {write_rows(tmp_path / "other.jsonl", questions(2, 5000))}, test: {rows}}}
"""
    )
    return [*words, f"--config={config}"]


def test_benchmarks_are_asked_on_the_same_model_and_averaged_in_one_report(
    words: list[str], with_benchmark: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", words)
    alone = report(run("test", words))
    capsys.readouterr()
    cli = run("test", with_benchmark)
    whole = report(cli)
    printed = capsys.readouterr().out
    for key in ("dataset", "n", "accuracy", "nll", "mcnemar_p", "temperature"):
        assert whole[key] == alone[key], key  # the run's own set is reported as without the others
    sets = whole["suite"]["sets"]
    assert {name: one["n"] for name, one in sets.items()} == {"JSONLines": 9, "Choices": 8}
    average = sum(one["accuracy"] for one in sets.values()) / 2
    assert whole["suite"]["macro_average"]["accuracy"] == pytest.approx(average)
    rows = (Path(cli.trainer.log_dir) / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(row)["dataset"] for row in rows] == ["JSONLines"] * 9 + ["Choices"] * 8
    assert [json.loads(row)["id"] for row in rows[9:]] == [f"c{number}" for number in range(8)]
    assert "Choices" in printed
    assert "Choices" in (Path(cli.trainer.log_dir) / "report.html").read_text()


def test_a_benchmark_that_was_trained_on_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", words)
    leaked = write_rows(tmp_path / "leaked.jsonl", [{**row, "id": f"x{row['id']}"} for row in questions(3)])
    config = tmp_path / "suite.yaml"
    other = write_rows(tmp_path / "other.jsonl", questions(2, 5000))
    config.write_text(
        f"data:\n  benchmarks:\n    - class_path: test_benchmarks_run.Choices\n"
        f"      init_args: {{train: {other}, test: {leaked}}}\n"
    )
    assert main(["test", *words, f"--config={config}"]) == 2
    message = capsys.readouterr().err
    assert "3 of the 3 test questions of Choices were in its training set" in message
    assert "--report.allow_overlap true" in message


def test_a_benchmark_named_twice_is_refused(
    with_benchmark: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "twice.yaml"
    text = (tmp_path / "suite.yaml").read_text()
    config.write_text(text + text.partition("benchmarks:\n")[2])
    assert main(["test", *with_benchmark[:-1], f"--config={config}", "--model.adapter=none"]) == 2
    assert "--data.benchmarks: Choices is evaluated twice" in capsys.readouterr().err


def test_prior_correction_takes_off_what_the_labels_have_without_a_question(words: list[str]) -> None:
    run("fit", words)
    plain = run("test", words)
    corrected = run("test", [*words, "--report.prior_correction=true"])
    prior = plain.model.heard[0].prior
    assert len(prior) == 3
    assert report(plain)["prior"] is None
    assert report(corrected)["prior"] == pytest.approx(prior)
    assert report(corrected)["base_prior"] == pytest.approx(plain.model.heard[0].base_prior)
    lines = (Path(corrected.trainer.log_dir) / "predictions.jsonl").read_text().splitlines()
    for one, line in zip(plain.report.tested[0].predictions, map(json.loads, lines), strict=True):
        scores = [value - less for value, less in zip(one.logprobs, prior, strict=True)]
        assert line["decision"] == one.labels[scores.index(max(scores))]


def test_a_prior_of_different_labels_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = choices(4)
    del rows[0]["options"]["C"]
    test = write_rows(tmp_path / "test.jsonl", rows)
    mixed = [word for word in words if not word.startswith("--data.source.test")]
    bare = ["--model.adapter=none", f"--data.source.test={test}"]
    assert main(["test", *mixed, *bare, "--report.prior_correction=true"]) == 2
    assert (
        "--report.prior_correction true: the questions of JSONLines don't all have" in capsys.readouterr().err
    )
    assert main(["test", *mixed, *bare]) == 0


def test_length_normalisation_is_an_option_and_said_in_the_report(words: list[str]) -> None:
    found = report(run("test", [*words, "--model.adapter=none", "--report.normalisation=length"]))
    assert found["normalisation"] == "length"


def test_the_base_is_not_asked_where_that_is_not_wanted(words: list[str]) -> None:
    run("fit", words)
    assert report(run("test", [*words, "--compare_base=false"]))["base"] is None


# ---- calibration: never on what was learned ------------------------------------------------------------


class Numbered(Source):
    """Ten training, four dev and two test questions, by number."""

    name = "Numbered"

    def read(self) -> Splits:
        def some(start: int, stop: int) -> list[Record]:
            return [
                Record(id=str(number), question=f"Does drug {number} help?", answer="yes")
                for number in range(start, stop)
            ]

        return Splits(some(0, 10), some(10, 14), some(14, 16))

    def fingerprint(self) -> dict[str, object]:
        return {}


@pytest.mark.parametrize(
    ("trained", "held_out", "expected"),
    [
        ((), None, {10, 11, 12, 13}),  # the bare base: the source's own dev set
        (range(0, 10), range(10, 14), {10, 11, 12, 13}),
        (range(4, 14), range(0, 4), {0, 1, 2, 3}),  # an adapter of another fold: what that one held out
        (range(50, 60), range(60, 64), {10, 11, 12, 13}),  # an adapter of another source
        (range(0, 14), None, set()),  # an adapter that learned all: nothing may calibrate it
        (range(0, 12), range(11, 14), {12, 13}),  # a record that contradicts itself: training wins
    ],
)
def test_only_questions_that_the_adapter_did_not_learn_calibrate_it(
    trained: Any, held_out: Any, expected: set[int], tiny_bases: dict[str, Path]
) -> None:
    from transformers import AutoTokenizer

    data = PubMedQADataModule(Numbered())
    data.read(
        AutoTokenizer.from_pretrained(tiny_bases["llama"]),
        ("dev", "test"),
        report=lambda line: None,
        trained=lambda records: [str(number) for number in trained],
        held_out=None if held_out is None else [str(number) for number in held_out],
    )
    assert {int(example.id) for example in data.dev} == expected
    assert [example.id for example in data.test] == ["14", "15"]


def test_a_test_of_an_adapter_with_other_dev_questions_is_calibrated_on_those_it_held_out(
    words: list[str], tmp_path: Path
) -> None:
    fit = run("fit", words)
    record = json.loads((Path(fit.trainer.log_dir) / "adapter" / "medqlora.json").read_text())
    assert record["dev_ids"] == [f"q{number}" for number in range(1000, 1006)]
    cli = run("test", words)
    dev = cli.model.heard[0].dev
    assert [one.id for one in sorted(dev, key=lambda one: one.id)] == record["dev_ids"]
    temperature = report(cli)["temperature"]
    assert temperature["value"] == record["calibration"]["temperature"] == 1.0
    assert temperature["why_not_fitted"] == "6 validation questions are too few, 20 are the least"
    assert record["calibration"]["n"] == temperature["fitted_on"] == len(dev) == 6


# ---- every benchmark, through the command ----------------------------------------------------------------


def test_every_benchmark_is_asked_with_the_harness_prompts_and_stands_in_one_report(
    words: list[str], tmp_path: Path
) -> None:
    def put(name: str, value: Any) -> str:
        path = tmp_path / name
        path.write_text(json.dumps(value), encoding="utf-8")
        return str(path)

    letters = {letter: f"Drug {letter}" for letter in "ABCD"}
    medqa = {"question": "What is given?", "options": letters, "answer": "Drug B", "answer_idx": "B"}
    medmcqa = [
        {"id": f"m{n}", "question": f"Nerve {n}?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": n}
        for n in (1, 2, 4)  # the authors' count from 1
    ]
    mmlu = {"question": "Which bone?", "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": 2}
    bioasq = {
        "id": "b1",
        "type": "yesno",
        "body": "Is it a suppressor?",
        "exact_answer": "yes",
        "ideal_answer": ["It is."],
        "snippets": [{"text": "It was lost.", "document": "http://www.ncbi.nlm.nih.gov/pubmed/1"}],
    }
    mirage = {"bioasq": {"x1": {"question": "Is it?", "options": {"A": "yes", "B": "no"}, "answer": "B"}}}
    part = {"allow_partial": True}
    sources = {
        "MedQA": {"test": str(write_rows(tmp_path / "medqa.jsonl", [medqa])), **part},
        "MedMCQA": {"test": put("medmcqa.json", medmcqa), **part},
        "MedicalMMLU": {"test": str(write_rows(tmp_path / "mmlu.jsonl", [mmlu])), **part},
        "BioASQ": {"test": put("bioasq.json", {"questions": [bioasq]})},
        "Mirage": {"test": put("benchmark.json", mirage), "dataset": "bioasq", **part},
    }
    benchmarks = [{"class_path": f"medqlora.data.{k}", "init_args": v} for k, v in sources.items()]
    config = put("all.yaml", {"data": {"benchmarks": benchmarks}})  # JSON is YAML
    cli = run("test", [*words, f"--config={config}", "--model.adapter=none", "--data.prompt=lm_eval"])
    sets = report(cli)["suite"]["sets"]
    assert {name: one["n"] for name, one in sets.items()} == {
        "JSONLines": 9,
        "MedQA": 1,
        "MedMCQA": 3,
        "MMLU medical": 1,
        "BioASQ": 1,
        "MIRAGE bioasq": 1,
    }
    asked = {
        one.source.name: cli.datamodule._tokenizer.decode(one.test[0].prompt) for one in cli.datamodule.sets
    }
    assert "multiple choice questions (with answers) about anatomy" in asked["MMLU medical"]
    assert asked["MedQA"].endswith("\nD. Drug D\nAnswer:")
