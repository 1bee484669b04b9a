"""Cross-validation, ensembles, combination, comparison and library, as a user runs them, on a tiny base."""

import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing import nightly
from harness import write_rows
from safetensors.torch import load_file
from warm_process import WarmCommand

from medqlora.artifacts.evaluated_weights import trained_on
from medqlora.artifacts.merge.folder import merged_record
from medqlora.cli import main
from medqlora.data import SyntheticTrials
from medqlora.errors import InputError
from medqlora.inference.predictor import Predictor
from medqlora.models.adapters import read_adapter
from medqlora.utils.manifests import write_folder_manifest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FOLDS = (0, 4)


def words(base: Path, root: Path) -> list[str]:
    config = root / "folds.yaml"
    config.write_text(
        f"""
model:
  backend:
    class_path: medqlora.models.Transformers
    init_args: {{base: {base}, gradient_checkpointing: false}}
  lora: {{r: 4, alpha: 8, dropout: 0.1}}
  learning_rate: 5.0e-3
  generate: false
data:
  source:
    class_path: medqlora.data.SyntheticTrials
    init_args: {{train: 26, dev: 4, test: 9}}
  max_prompt_tokens: 256
  batch_size: 4
  micro_batch_tokens: 600
trainer: {{accelerator: cpu, precision: 32, max_epochs: 1, devices: 1, default_root_dir: {root}}}
checkpoint: {{every_n_train_steps: 2}}
progress: {{refresh_rate: 0}}
""",
        encoding="utf-8",
    )
    return [f"--config={config}"]


def run(*given: str) -> int:
    return main([*given])


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def left(group: Path) -> dict[str, Any]:
    """What has to be the same after a kill: weights, out-of-fold predictions, calibration."""
    found: dict[str, Any] = {}
    for fold in FOLDS:
        run_folder = group / f"version_{fold}"
        found[f"weights {fold}"] = (run_folder / "adapter" / "adapter_model.safetensors").read_bytes()
        found[f"out of fold {fold}"] = (run_folder / "out_of_fold.jsonl").read_text()
        found[f"calibration {fold}"] = read_adapter(str(run_folder / "adapter"))["calibration"]
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("folds")


@pytest.fixture(scope="module")
def group(tiny_bases: dict[str, Path], root: Path) -> Path:
    """A finished cross-validation of two folds."""
    assert run("fit", *words(tiny_bases["llama"], root), "--folds=0,4") == 0
    return root / "lightning_logs" / "cv_0"


def test_each_fold_is_answered_by_the_adapter_that_did_not_train_on_it_and_all_calibrate(group: Path) -> None:
    report = json.loads((group / "cv_report.json").read_text())
    asked = set()
    for fold in FOLDS:
        record = read_adapter(str(group / f"version_{fold}" / "adapter"))
        rows = lines(group / f"version_{fold}" / "out_of_fold.jsonl")[1:]
        ids = {row["id"] for row in rows}
        assert len(ids) == 3
        assert ids.isdisjoint(record["train_ids"])  # type: ignore[arg-type]
        assert ids.isdisjoint(asked)
        asked |= ids
        assert record["calibration"] == report["calibration"]
        assert record["calibration"]["n"] == 6  # type: ignore[index,call-overload]
        origin = {"kind": "out-of-fold", "folds": [0, 4], "n": 6}
        assert record["calibrated_on"] == origin
        merged = merged_record(record, group / f"version_{fold}" / "adapter", "float16")
        assert merged["calibrated_on"] == origin
    assert report["pooled"]["n"] == 6
    page = (group / "cv_report.html").read_text()
    assert "Learning curves" in page
    assert "<script" not in page


@nightly  # by day test_stages_killed.py and tests/faults kill single runs
def test_a_cross_validation_killed_in_its_second_fold_ends_as_one_that_never_was(
    tiny_bases: dict[str, Path], group: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*words(tiny_bases["llama"], tmp_path), "--folds=0,4"]
    given += ["--trainer.callbacks=signal_at.KilledIn", "--trainer.callbacks.step=3"]
    environment = {**os.environ, "KILLED_IN": "version_4"}
    process = WarmCommand(["fit", *given], cwd=tmp_path, log=tmp_path / "log.txt", env=environment)
    assert process.wait() == -signal.SIGKILL, process.log.read_text()[-2000:]
    killed = tmp_path / "lightning_logs" / "cv_0"
    assert json.loads((killed / "version_4" / "run.json").read_text())["state"] == "running"
    first = (killed / "version_0" / "run.json").read_text()
    assert run("fit", *given, "--model.learning_rate=1e-3", "--ckpt_path=last") == 2
    assert "--model.learning_rate" in capsys.readouterr().err
    assert run("fit", *given, "--ckpt_path=last") == 0
    shown = capsys.readouterr().out
    assert "Fold 0: trained already" in shown
    assert re.search(r"Going on with .*, of step 2$", shown, re.MULTILINE)
    assert (killed / "version_0" / "run.json").read_text() == first
    assert left(killed) == left(group)


def test_an_ensemble_is_the_mean_of_log_probabilities_calibrated_on_what_each_member_did_not_see(
    tiny_bases: dict[str, Path], root: Path, group: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words(tiny_bases["llama"], root)
    combined = root / "combined"
    assert run("combine", str(group), "--out", str(combined), "--device=cpu") == 0
    capsys.readouterr()
    assert run("test", *given, f"--ensemble={group}", f"--against={combined}") == 0
    tested = root / "lightning_logs" / "version_0"
    report = json.loads((tested / "test_report.json").read_text())
    names = [row["name"] for row in report["side_by_side"]]
    assert names == [
        "the ensemble",
        *(str(group / f"version_{fold}" / "adapter") for fold in FOLDS),
        str(combined),
    ]
    saved = json.loads((tested / "ensemble.json").read_text())
    assert saved["calibration"]["n"] == 6  # each development question of the two folds, once
    assert saved["calibrated_on"] == {"questions": 6, "members": 2, "answered_by": {"1": 6}}
    assert report["temperature"]["fitted_on"] == 6
    fold = SyntheticTrials(train=26, dev=4, test=9, fold=0).read()
    copied = [replace(fold.train[0], id="elsewhere"), fold.train[1], fold.dev[0]]  # also under another id
    assert trained_on(str(group / "version_0" / "adapter"), copied) == {"elsewhere", fold.train[1].id}
    records = SyntheticTrials(train=26, dev=4, test=9).read().test
    each = [
        Predictor.load(group / f"version_{fold}" / "adapter", device="cpu", generate=False).predict(records)
        for fold in FOLDS
    ]
    found = _logprobs(tested)
    for of_question in zip(*each, strict=True):  # the members alone
        wanted = torch.tensor([one.logprobs for one in of_question]).mean(0)
        torch.testing.assert_close(torch.tensor(found[of_question[0].id]), wanted, rtol=0, atol=2e-4)
    assert "Adapter by adapter" in (tested / "report.html").read_text()


def _logprobs(run_folder: Path) -> dict[str, list[float]]:
    rows = lines(run_folder / "predictions.jsonl")
    return {row["id"]: list(row["logprobs"].values()) for row in rows}


def test_a_combination_is_the_weighted_sum_of_the_updates_with_its_whole_origin(
    root: Path, group: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [group / f"version_{fold}" / "adapter" for fold in FOLDS]
    out = root / "weighted"
    assert (
        run("combine", *map(str, folders), "--weights", "0.75", "0.25", "--out", str(out), "--device=cpu")
        == 0
    )
    members, made = (
        [load_file(folder / "adapter_model.safetensors") for folder in folders],
        load_file(out / "adapter_model.safetensors"),
    )
    for name in [name for name in made if "lora_A" in name]:
        other = name.replace("lora_A", "lora_B")
        wanted = sum(w * 2.0 * one[other] @ one[name] for w, one in zip((0.75, 0.25), members, strict=True))
        torch.testing.assert_close(made[other] @ made[name], wanted, rtol=1e-4, atol=1e-6)
    record: Any = read_adapter(str(out))
    parts = [read_adapter(str(folder)) for folder in folders]
    assert set(record["train_ids"]) == {one for part in parts for one in part["train_ids"]}  # type: ignore[attr-defined]
    assert record["dev_ids"] == []  # each fold's validation questions were trained on by the other
    assert record["calibration"] is None
    assert [one["weight"] for one in record["combined"]["members"]] == [0.75, 0.25]
    assert [one["fold"] for one in record["combined"]["members"]] == [0, 4]
    assert "Combined from" in (out / "README.md").read_text()
    assert run("combine", str(folders[0]), "--out", str(root / "none")) == 2
    assert run("combine", *map(str, folders), "--weights=1", "--out", str(root / "none")) == 2
    assert not (root / "none").exists()


def test_runs_and_cross_validations_are_compared_from_their_folders(
    group: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert run("compare", str(group / "version_0"), str(group / "version_4"), "--out", str(page)) == 0
    shown = capsys.readouterr().out
    assert "data.source.init_args.fold" in shown
    assert "learning_rate" not in shown  # the same in both
    assert "training tokens" in shown
    best = [json.loads((group / f"version_{fold}" / "run.json").read_text())["best"] for fold in (0, 4)]
    (row,) = [line for line in shown.splitlines() if line.startswith("val/accuracy ")]
    assert row.split() == ["val/accuracy", *(f"{one['val/accuracy']:.4f}" for one in best)]
    assert run("runs", str(group.parent)) == 0
    assert "cv_0/version_4" in capsys.readouterr().out
    assert "was not tested" in shown
    own = group / "version_0"
    assert f"medqlora test --config {own}/config.yaml --model.adapter {own}/adapter`" in shown
    text = page.read_text()
    assert "Settings that differ" in text
    assert text.count('<div class="runs">') == 3, "tables whose words break, so that they fit a phone"
    again = tmp_path / "cv_1"
    shutil.copytree(group, again)
    assert run("compare", str(group), str(again), "--out", str(page)) == 0
    file = again / "version_0" / "out_of_fold.jsonl"
    head, *rows = lines(file)
    rows[0]["question_sha256"] = "0" * 64  # another question under the same id
    file.write_text("".join(f"{json.dumps(row)}\n" for row in (head, *rows)))
    assert run("compare", str(group), str(again), "--out", str(page)) == 2
    assert f"{rows[0]['id']} is another question" in capsys.readouterr().err
    assert run("compare", str(group), "--out", str(page)) == 2
    assert run("compare", str(group), str(tmp_path)) == 2


def test_a_library_routes_by_topic_and_calls_nothing_better_without_a_test(
    tiny_bases: dict[str, Path], root: Path, group: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library, questions = tmp_path / "library", write_rows(tmp_path / "topics.jsonl", _topical(90))
    general, special = (str(group / f"version_{fold}" / "adapter") for fold in FOLDS)
    add = ["library", "add", f"--library={library}"]
    assert run(*add, "heart", special, "--topics", "Heart Diseases") == 2  # the general one comes first
    assert not library.exists()
    assert run(*add, "general", general) == 0
    assert run(*add, "heart", special, "--topics", "heart diseases", "--questions", str(questions)) == 0
    assert run(*add, "heart", special, "--topics", "Heart Diseases") == 2
    capsys.readouterr()
    answers = tmp_path / "answers.jsonl"
    given = [*words(tiny_bases["llama"], root), f"--data.questions={questions}", f"--answers.path={answers}"]
    assert run("predict", *given, f"--library={library}") == 0
    said = next(line for line in capsys.readouterr().out.splitlines() if "answers (" in line)
    rows = lines(answers)
    routed = [row for row in rows if row["adapter"] == "heart"]
    assert all("heart" in row["question"] for row in routed)  # an unsure one goes to the general adapter
    assert len(routed) > 40
    whole = answers.read_bytes()
    answers.write_bytes(whole[: len(whole) // 2])
    assert run("predict", *given, f"--library={library}") == 0
    assert answers.read_bytes() == whole
    assert said in capsys.readouterr().out.splitlines()  # counts the answers of both runs
    test = [*words(tiny_bases["llama"], tmp_path), "--data.source=medqlora.data.JSONLines"]
    test += [
        f"--data.source.train={questions}",
        f"--data.source.test={write_rows(tmp_path / 'test.jsonl', _topical(24, 500))}",
    ]
    assert run("library", "compare", f"--library={library}", *test) == 0
    assert "rarely suffice" in capsys.readouterr().out
    found = json.loads((library / "comparison.json").read_text())
    assert found["by_topic"]["heart"][1]["n"] == 12
    assert "rarely suffice" in (library / "comparison.html").read_text()
    new = tmp_path / "not" / "there"
    assert run("test", *test, f"--library={library}", f"--trainer.default_root_dir={new}") == 0
    answered = json.loads((new / "lightning_logs" / "version_0" / "routing.json").read_text())["answered"]
    assert sum(answered.values()) == 24
    assert set(answered) == {"general", "heart"}
    capsys.readouterr()
    ask = ["--context=The result was yes.", f"--library={library}", "--json", "--max_new_tokens=4"]
    for question, name in (
        ("Does it help the heart valve?", "heart"),
        ("Does it help the knee joint?", "general"),
    ):
        assert run("ask", question, *ask, "--device=cpu") == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["adapter"] == name
    assert run("library", "remove", f"--library={library}", "general") == 2
    assert run("library", "remove", f"--library={library}", "heart") == 0
    assert not (library / "adapters" / "heart").exists()
    assert not (library / "router.npz").exists()


def _topical(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Questions of which every other is about the heart, and says so in its words."""
    labels = ("yes", "no", "maybe")
    rows = []
    for number in range(start, start + count):
        heart = number % 2 == 0
        rows.append(
            {
                "id": f"t{number}",
                "question": f"Does drug {number} help {'the heart valve' if heart else 'the knee joint'} of people?",
                "contexts": [f"The result was {labels[number % 3]}."],
                "answer": labels[number % 3],
                "topics": ["Heart Diseases"] if heart else ["Knee Injuries"],
            }
        )
    return rows


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--folds=11", "'11' is no fold"),
        ("--folds=1,1", "named twice"),
        ("--folds=0 --data.source.fold=1", "--data.source.fold"),
        ("--folds=0 --trainer.fast_dev_run=true", "--trainer.fast_dev_run"),
        ("--folds=0 --folds_at_once=0", "--folds_at_once"),
        ("--folds=0 --against=nowhere", "--against"),
        ("--folds=0 --ckpt_path=nowhere", "--ckpt_path"),
        ("--folds=0 --checkpoint.dirpath=somewhere", "--checkpoint.dirpath"),
        ("--against=cv_0", "belongs to --folds"),
        ("--fold=all", "folds"),
    ],
)
def test_what_contradicts_folds_is_refused_before_a_folder_is_made(
    option: str, named: str, tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fit", *words(tiny_bases["llama"], tmp_path), *option.split()) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "lightning_logs").exists()


def test_folds_side_by_side_leave_the_same_weights(
    tiny_bases: dict[str, Path], group: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medqlora.artifacts.fold_group import FoldGroup, GroupRecord
    from medqlora.commands.fold_training import worker

    made = FoldGroup.new(tmp_path / "lightning_logs", GroupRecord(FOLDS, "", {}))
    assert worker([str(made.path), "4", *words(tiny_bases["llama"], tmp_path)]) == 0
    name = Path("version_4", "adapter", "adapter_model.safetensors")
    assert (made.path / name).read_bytes() == (group / name).read_bytes()
    assert worker([str(made.path), "4", "--config=nowhere.yaml"]) == 2


def test_another_sources_questions_are_no_cross_validation_to_compare_with() -> None:
    from medqlora.evaluation.cross_validation import FoldResult, compare_groups
    from medqlora.records import Prediction

    one, other = (
        [FoldResult(0, "", [Prediction(name, "yes", ("yes", "no"), (-1.0, -2.0), (1, 1))])]
        for name in ("a", "b")
    )
    with pytest.raises(InputError, match="none of these questions"):
        compare_groups(one, other, "cv_1")


def test_folds_that_decide_after_a_rationale_are_validated_as_each_run_was(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--data.rationale=before", "--model.generate=true", "--model.max_new_tokens=4"]
    given = [*words(tiny_bases["llama"], tmp_path), *more]
    assert run("fit", *given, "--folds=0,4") == 0
    found = tmp_path / "lightning_logs" / "cv_0"
    report = json.loads((found / "cv_report.json").read_text())
    for row in report["each"]:
        scores = read_adapter(str(found / f"version_{row['fold']}" / "adapter"))["scores"]
        assert row["accuracy"] == pytest.approx(scores["val/likelihood_accuracy"])  # type: ignore[call-overload,index]
    capsys.readouterr()
    assert run("test", *given, f"--ensemble={found}") == 0
    # an adapter that trained on a fold's questions is not asked them out of fold
    record = found / "version_0" / "adapter" / "medqlora.json"
    stored = json.loads(record.read_text())
    stored["train_ids"] += stored["dev_ids"][:1]
    record.write_text(json.dumps(stored))
    write_folder_manifest(record.parent)
    (found / "version_0" / "out_of_fold.jsonl").unlink()
    assert run("fit", *given, "--folds=0,4", f"--ckpt_path={found}") == 2
    assert "validation questions of fold 0 were trained on" in capsys.readouterr().err
