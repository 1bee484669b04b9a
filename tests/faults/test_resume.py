"""A run that was interrupted and resumed ends as one that never was."""

import json
import os
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from harness import adapter_weights, options, run
from interruptions import InterruptionError, same
from tensorboard_events import logged

from medqlora.artifacts.run_folder import RunFolder
from medqlora.errors import InputError


@pytest.mark.parametrize(
    "stop", [3, 6, 7, 11]
)  # mid-epoch, at an epoch's end, just after it, in the last epoch
def test_weights_optimizer_and_curve_are_bit_for_bit_those_of_an_uninterrupted_run(
    tiny_bases: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, stop: int
) -> None:
    caplog.set_level("INFO", logger="medqlora")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    extra = ["--model.lora.dropout=0.1", "--checkpoint.every_n_train_steps=1"]
    straight = run("fit", [*options(tiny_bases["llama"], whole), *extra])
    words = [*options(tiny_bases["llama"], parts), *extra]
    with pytest.raises(InterruptionError):
        run("fit", [*words, "--trainer.callbacks=interruptions.StopAt", f"--trainer.callbacks.step={stop}"])
    folder = parts / "lightning_logs" / "version_0"
    last = folder / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == stop
    caplog.clear()
    resumed = run("fit", [*words, f"--ckpt_path={last}"])
    assert resumed.trainer.global_step == straight.trainer.global_step == 12
    # the time of the resumed part, from its own first step on, in mid-epoch too
    said = re.search(r"Fit: ([\d.]+) s from the first step on \(steps ([\d.]+) s", caplog.text)
    assert said is not None
    assert float(said[2]) <= float(said[1]) + 0.1
    for name, value in adapter_weights(straight).items():
        assert torch.equal(adapter_weights(resumed)[name], value), name
    a, b = (cli.trainer.optimizers[0].state_dict()["state"] for cli in (straight, resumed))
    assert same(a, b)
    assert Path(resumed.trainer.log_dir) == folder
    for name in ("train/loss", "train/learning_rate"):
        assert logged(Path(resumed.trainer.log_dir), name) == logged(Path(straight.trainer.log_dir), name)


def test_the_best_adapter_keeps_its_own_scores_and_calibration_when_later_ones_are_worse(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    # the loss falls, and the highest is asked for: the first validation stays the best
    best = ["--checkpoint.monitor=val/loss", "--checkpoint.mode=max", "--checkpoint.every_n_train_steps=1"]
    words = [*options(tiny_bases["llama"], tmp_path), *best]
    with pytest.raises(InterruptionError):
        run("fit", [*words, "--trainer.callbacks=interruptions.StopAt", "--trainer.callbacks.step=8"])
    folder = tmp_path / "lightning_logs" / "version_0"
    record = folder / "adapter" / "medqlora.json"
    before = json.loads(record.read_text())
    resumed = run("fit", [*words, f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}"])
    assert float(resumed.trainer.callback_metrics["val/loss"]) < before["scores"]["val/loss"]
    after = json.loads(record.read_text())
    for name in ("scores", "calibration", "chosen_by"):
        assert after[name] == before[name], name
    assert after["training"]["step"] == before["training"]["step"] == 6


def test_a_checkpoint_holds_the_adapter_and_not_the_base(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    cli = run("fit", [*options(tiny_bases["llama"], tmp_path), "--trainer.max_steps=2"])
    file = Path(cli.trainer.log_dir) / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=True)  # no pickle is needed to read it
    assert checkpoint["state_dict"].keys() == {f"model.{name}" for name in adapter_weights(cli)}


def test_a_checkpoint_of_another_base_or_shape_is_refused(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    words = options(tiny_bases["llama"], tmp_path)
    cli = run("fit", [*words, "--trainer.max_steps=1"])
    last = Path(cli.trainer.log_dir) / "checkpoints" / "last.ckpt"
    with pytest.raises(InputError, match="trained on the base"):
        run("fit", [*words, f"--model.backend.base={tiny_bases['mistral']}", f"--ckpt_path={last}"])
    with pytest.raises(InputError, match=r"lora\.r is 8, but the checkpoint was trained with 4"):
        run("fit", [*words, "--model.lora.r=8", f"--ckpt_path={last}"])


def interrupted(base: Path, folder: Path, *extra: str, step: int = 3) -> list[str]:
    """The options of a run that something ended before the step after `step`."""
    words = [*options(base, folder), "--checkpoint.every_n_train_steps=1", *extra]
    with pytest.raises(InterruptionError):
        run("fit", [*words, "--trainer.callbacks=interruptions.StopAt", f"--trainer.callbacks.step={step}"])
    return words


def test_last_is_the_newest_whole_checkpoint_of_the_newest_unfinished_run_on_this_base(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = interrupted(tiny_bases["llama"], tmp_path, step=8)
    logs = tmp_path / "lightning_logs"
    record = json.loads((logs / "version_0" / "run.json").read_text())
    assert (record["state"], record["pid"], record["host"]) == ("failed", os.getpid(), socket.gethostname())
    last = logs / "version_0" / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])  # the best of step 6 is whole
    with pytest.raises(
        InputError, match=r"last\.ckpt' is not a whole checkpoint .* pass .*epoch0-step6\.ckpt"
    ):
        run("fit", [*words, f"--ckpt_path={last}"])
    with pytest.raises(InputError, match="holds no unfinished fit on the base"):
        run("fit", [*words, f"--model.backend.base={tiny_bases['mistral']}", "--ckpt_path=last"])
    capsys.readouterr()
    run("fit", [*words, "--trainer.max_steps=1"])  # a new run says that there is one to go on with
    shown = capsys.readouterr().out
    assert f"Note: {logs / 'version_0'} was not finished (step 6)" in shown
    assert "--ckpt_path last" in shown
    resumed = run("fit", [*words, "--ckpt_path=last"])  # version_1 is newer, and finished
    assert "epoch0-step6.ckpt, of step 6" in capsys.readouterr().out
    assert Path(resumed.trainer.log_dir) == logs / "version_0"
    assert resumed.trainer.global_step == 12
    with pytest.raises(InputError, match=r"--ckpt_path last: .* holds no unfinished fit"):
        run("fit", [*words, "--ckpt_path=last"])
    run("fit", [*words, "--trainer.max_steps=1"])
    assert "was not finished" not in capsys.readouterr().out


def test_last_without_any_run_says_so(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--ckpt_path last: there are no runs in"):
        run("fit", [*options(tiny_bases["llama"], tmp_path), "--ckpt_path=last"])
    assert not (tmp_path / "lightning_logs").exists()


def test_other_values_are_named_with_both_and_go_on_only_if_told_to(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = interrupted(tiny_bases["llama"], tmp_path)
    changes = [
        "--data.batch_size=6",
        "--model.learning_rate=1e-3",
        "--model.weight_decay=0.1",
        "--data.seed=3",
    ]
    with pytest.raises(InputError) as error:
        run("fit", [*words, *changes, "--ckpt_path=last"])
    for part in (
        "--data.batch_size 6 (the checkpoint: 4)",
        "--model.learning_rate 0.001 (the checkpoint: 0.005)",
        "--model.weight_decay 0.1 (the checkpoint: 0.0)",
        "--data.seed 3 (the checkpoint: 0)",
        "--resume_anyway true",
    ):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"--model\.optimizer adamw \(the checkpoint: adamw_8bit\)"):
        run("fit", [*words, "--model.optimizer=adamw", "--ckpt_path=last", "--resume_anyway=true"])
    rows = (tmp_path / "train.jsonl").read_text()
    (tmp_path / "train.jsonl").write_text(rows.replace("Does drug 3 help?", "Did drug 3 help?"))
    with pytest.raises(InputError, match="values: the training examples"):
        run("fit", [*words, "--ckpt_path=last"])
    (tmp_path / "train.jsonl").write_text(rows)
    capsys.readouterr()
    given = ["--model.learning_rate=1e-3", "--model.weight_decay=0.1"]
    resumed = run("fit", [*words, *given, "--ckpt_path=last", "--resume_anyway=true"])
    assert "Going on with other values: --model.learning_rate 0.001" in capsys.readouterr().out
    assert resumed.trainer.optimizers[0].param_groups[0]["weight_decay"] == 0.1
    assert resumed.trainer.lr_scheduler_configs[0].scheduler.base_lrs == [1e-3]


def test_what_a_process_killed_in_its_last_save_left_is_gone_though_nothing_is_saved_again(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    words = interrupted(tiny_bases["llama"], tmp_path, step=8)
    folder = tmp_path / "lightning_logs" / "version_0" / "checkpoints"
    for name in (".last.ckpt.json.4711", ".last.ckpt.4711.part"):
        (folder / name).write_text("{")
    run("fit", [*words, "--trainer.max_steps=8", "--ckpt_path=last"])
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_another_score_to_choose_by_is_named_for_the_best_so_far_would_be_forgotten(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    words = interrupted(tiny_bases["llama"], tmp_path, step=8)
    said = r"values: --checkpoint\.monitor val/loss \(the checkpoint: val/accuracy\): pass the checkpoint's"
    with pytest.raises(InputError, match=said):
        run("fit", [*words, "--checkpoint.monitor=val/loss", "--ckpt_path=last"])


def test_another_length_of_the_texts_that_are_scored_is_named_unless_no_text_decides(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    """A text that is cut off earlier is scored otherwise, and the best so far would be of another kind."""
    longer = ["--model.max_new_tokens=7", "--ckpt_path=last"]
    words = interrupted(tiny_bases["llama"], tmp_path, step=8)
    with pytest.raises(InputError, match=r"values: --model\.max_new_tokens 7 \(the checkpoint: 6\): pass"):
        run("fit", [*words, *longer])
    by_loss = tmp_path / "by_loss"
    by_loss.mkdir()
    monitor = ["--checkpoint.monitor=val/loss", "--checkpoint.mode=min"]
    words = interrupted(tiny_bases["llama"], by_loss, *monitor, step=8)
    assert run("fit", [*words, *longer]).trainer.global_step == 12


def test_the_runs_length_and_memory_knobs_may_change_and_files_may_move(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    words = interrupted(tiny_bases["llama"], tmp_path)
    (tmp_path / "train.jsonl").rename(tmp_path / "moved.jsonl")
    changes = [
        f"--data.source.train={tmp_path / 'moved.jsonl'}",
        "--trainer.max_epochs=3",
        "--data.micro_batch_tokens=200",
        "--model.engine=native",
    ]
    assert run("fit", [*words, *changes, "--ckpt_path=last"]).trainer.global_step == 18


def test_paths_in_a_checkpoint_do_not_lead_out_of_the_runs_folder(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    words = interrupted(tiny_bases["llama"], tmp_path, "--checkpoint.monitor=val/loss", step=8)
    victim = tmp_path / "victim.ckpt"
    victim.write_text("not to be removed")
    last = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    (state,) = (one for one in checkpoint["callbacks"].values() if "best_k_models" in one)
    state |= {"kth_best_model_path": str(victim), "best_model_path": str(victim)}
    state["best_k_models"] = {str(victim): torch.tensor(-1e9)}
    last.with_name("last.ckpt.json").unlink()
    torch.save(checkpoint, last)
    run("fit", [*words, "--checkpoint.monitor=val/loss", f"--ckpt_path={last}"])
    assert victim.read_text() == "not to be removed"


def test_a_run_that_another_process_goes_on_with_is_not_taken_from_it(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    words = interrupted(tiny_bases["llama"], tmp_path)
    run_ = tmp_path / "lightning_logs" / "version_0"
    record = json.loads((run_ / "run.json").read_text())
    record |= {"state": "running", "pid": os.getppid(), "host": socket.gethostname()}
    record["started"] = "2999-01-01T00:00:00+00:00"
    (run_ / "run.json").write_text(json.dumps(record))
    before = {path: path.read_bytes() for path in run_.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=rf"{run_} is still running, as process {os.getppid()}"):
        run("fit", [*words, f"--ckpt_path={run_ / 'checkpoints' / 'last.ckpt'}"])
    assert before == {path: path.read_bytes() for path in run_.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["", "checkpoints", "config.yaml"])
def test_a_run_whose_folder_cannot_be_written_is_refused_before_it_trains(
    tiny_bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    words = interrupted(tiny_bases["llama"], tmp_path)
    place = tmp_path / "lightning_logs" / "version_0" / name
    # root may write anywhere: what the system would say to others
    really = os.access
    monkeypatch.setattr(
        os, "access", lambda path, *mode, **how: really(path, *mode, **how) and Path(path) != place
    )
    with pytest.raises(InputError, match=rf"--ckpt_path: {place} can't be written"):
        run("fit", [*words, "--ckpt_path=last"])


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_an_adapter_folder_that_is_a_link_ends_no_run(
    tiny_bases: dict[str, Path], tmp_path: Path, target: str
) -> None:
    # each validation is the best: two exports and more
    best = ["--checkpoint.monitor=val/loss", "--checkpoint.mode=min", "--trainer.val_check_interval=2"]
    words = interrupted(tiny_bases["llama"], tmp_path, *best)
    run_ = tmp_path / "lightning_logs" / "version_0"
    (tmp_path / "elsewhere").mkdir()
    if (run_ / "adapter").exists():
        (run_ / "adapter").rename(tmp_path / "elsewhere" / "adapter")
    (run_ / "adapter").symlink_to(tmp_path / target, target_is_directory=True)
    run("fit", [*words, "--ckpt_path=last"])
    assert (run_ / "adapter" / "adapter_config.json").is_file()
    assert (tmp_path / "elsewhere").is_dir()
    assert not [one for one in run_.iterdir() if one.name.startswith(".adapter")]


def test_runs_that_start_together_get_a_folder_each(tmp_path: Path) -> None:
    logs = tmp_path / "lightning_logs"
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: RunFolder.new(logs).path, range(32)))
    assert sorted(folders) == sorted(logs / f"version_{number}" for number in range(32))


def test_a_log_folder_that_can_not_be_made_is_said_before_any_work(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = options(tiny_bases["llama"], tmp_path)
    (tmp_path / "file").touch()
    capsys.readouterr()
    # the last is a file system that can't be written, whoever asks
    for place in (tmp_path / "file", Path("/proc")):
        with pytest.raises(InputError, match=rf"--trainer\.default_root_dir {place}: no run's folder"):
            run("fit", [*words, f"--trainer.default_root_dir={place}"])
    assert capsys.readouterr().out == ""
