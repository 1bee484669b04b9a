"""QLoRAModule and PubMedQADataModule under a user's own Trainer, as Lightning's documentation shows."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from fuzzing import nightly
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from own_programs import Own, equal, weights
from safetensors.torch import load_file
from tensorboard_events import logged

from medqlora.callbacks import (
    AdapterCheckpoint,
    Answers,
    EvaluationReport,
    GPUMemory,
    StepProgress,
    Throughput,
)
from medqlora.data import JSONLines
from medqlora.datamodule import PubMedQADataModule
from medqlora.errors import InputError
from medqlora.module import QLoRAModule

# Lightning 2.6 says it of its defaults, which are what is tested here
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*logger.*"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint.*"),
    pytest.mark.filterwarnings("ignore:.*rich.*"),
]


@pytest.fixture
def own(tiny_bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Own:
    monkeypatch.chdir(tmp_path)
    return Own(tiny_bases["llama"], tmp_path)


def test_the_four_verbs_work_on_the_module_and_the_datamodule(own: Own) -> None:
    module, data, trainer = own.module(), own.data(), own.trainer()
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 3
    trained = weights(module)
    (validated,) = trainer.validate(module, datamodule=data, verbose=False)
    assert {"val/accuracy", "val/macro_f1", "val/loss"} <= validated.keys()
    tested = trainer.test(module, datamodule=data, verbose=False)
    assert tested[0]["test/n"] == 9
    assert tested[0]["test/accuracy"] == pytest.approx(module.tested[0].scores.accuracy)
    assert {"test/macro_f1", "test/base_accuracy"} <= tested[0].keys()
    answers = [one for group in trainer.predict(module, datamodule=data) or [] for one in group]
    assert [one["id"] for one in answers] == [f"q{2000 + number}" for number in range(9)]
    assert all(set(one["probabilities"]) == {"yes", "no", "maybe"} and one["note"] for one in answers)
    json.dumps(answers)
    # the weights that were tested are those in memory: no evaluation changes them
    assert equal(trained, weights(module))
    (checkpoint,) = own.folder.rglob("*.ckpt")
    assert set(torch.load(checkpoint, weights_only=True)["state_dict"]) == {
        f"model.{name}" for name in trained
    }


def test_lightnings_defaults_change_nothing_of_what_is_learned(own: Own) -> None:
    """A sanity check and an epoch's validation come before further steps, both in inference mode by default."""
    found = []
    for options in ({}, {"inference_mode": False, "num_sanity_val_steps": 0}):
        module = own.module()
        trainer = own.trainer(max_epochs=2, logger=False, enable_checkpointing=False, **options)
        trainer.fit(module, datamodule=own.data())
        found.append(weights(module))
    assert equal(*found)


class SeesInference(Callback):
    """Whether tensors made in an evaluation could not take part in a later backward."""

    seen = False

    def on_validation_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.seen = self.seen or torch.zeros(1).is_inference()

    on_test_batch_start = on_predict_batch_start = on_validation_batch_start


def test_no_evaluation_makes_inference_tensors(own: Own) -> None:
    sees = SeesInference()
    module, data = own.module(generate=False), own.data()
    trainer = own.trainer(callbacks=[sees], logger=False, enable_checkpointing=False, max_steps=1)
    for verb in (trainer.fit, trainer.validate, trainer.test, trainer.predict):
        verb(module, datamodule=data)  # type: ignore[operator]
    assert not sees.seen


def test_our_callbacks_do_what_they_do_on_the_command_line(own: Own) -> None:
    callbacks = [
        AdapterCheckpoint(),
        GPUMemory(),
        Throughput(),
        StepProgress(refresh_rate=0),
        EvaluationReport(),
        Answers(),
    ]
    module, data = own.module(), own.data()
    trainer = own.trainer(callbacks=callbacks, log_every_n_steps=1, enable_progress_bar=True)
    trainer.fit(module, datamodule=data)
    run = Path(str(trainer.log_dir))
    exported = load_file(run / "adapter" / "adapter_model.safetensors")
    assert len(exported) == len(weights(module))
    assert len(logged(run, "train/loss")) == 3
    best = trainer.test(module, datamodule=data, ckpt_path="best", verbose=False)
    report = json.loads((run / "test_report.json").read_text())
    assert best[0]["test/accuracy"] == pytest.approx(report["accuracy"])
    assert report["adapter"] == str(trainer.checkpoint_callback.best_model_path)  # type: ignore[union-attr]
    trainer.predict(module, datamodule=data)
    files = sorted(path.name for path in run.glob("predictions*.jsonl"))
    assert files == ["predictions-1.jsonl", "predictions.jsonl"]  # the test's own, and the answers
    # the exported adapter, by a Trainer and a module of their own
    again = own.trainer(logger=False).test(
        own.module(adapter=str(run / "adapter")), datamodule=own.data(), verbose=False
    )
    assert again[0]["test/accuracy"] == best[0]["test/accuracy"]
    assert again[0]["test/nll"] == pytest.approx(best[0]["test/nll"], rel=1e-4)


@pytest.mark.parametrize("saver", [None, AdapterCheckpoint], ids=["Lightning's", "ours"])
def test_a_run_that_goes_on_from_last_learns_what_an_uninterrupted_one_does(own: Own, saver: Any) -> None:
    def run(folder: str, epochs: int, ckpt_path: str | None) -> QLoRAModule:
        module = own.module(generate=False)
        callback = (
            ModelCheckpoint(own.folder / folder, save_last=True) if saver is None else saver(dirpath=folder)
        )
        trainer = own.trainer(logger=CSVLogger(own.folder), callbacks=[callback], max_epochs=epochs)
        trainer.fit(module, datamodule=own.data(), ckpt_path=ckpt_path)
        assert trainer.global_step == 3 * epochs
        return module

    whole = run("whole", 2, None)
    module = own.module(generate=False)
    callback = (
        ModelCheckpoint(own.folder / "part", save_last=True) if saver is None else saver(dirpath="part")
    )

    class Stops(Callback):
        def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
            trainer.should_stop = True

    first = own.trainer(logger=False, callbacks=[Stops(), callback], max_epochs=2)
    first.fit(module, datamodule=own.data())
    assert first.global_step == 3
    assert equal(weights(run("part", 2, "last")), weights(whole))


def test_a_checkpoint_is_tested_without_the_fit(own: Own) -> None:
    trainer, module = own.trainer(logger=False), own.module()
    trainer.fit(module, datamodule=own.data())
    here = trainer.test(module, datamodule=own.data(), verbose=False)
    (path,) = own.folder.rglob("*.ckpt")
    there = own.trainer(logger=False).test(own.module(), datamodule=own.data(), ckpt_path=path, verbose=False)
    assert there[0]["test/nll"] == pytest.approx(here[0]["test/nll"], rel=1e-5)
    loaded = QLoRAModule.load_from_checkpoint(path, backend=own.module().backend, max_new_tokens=4)
    assert loaded.lora.r == 4
    there = own.trainer(logger=False).test(loaded, datamodule=own.data(), verbose=False)
    assert there[0]["test/nll"] == pytest.approx(here[0]["test/nll"], rel=1e-5)
    assert equal(weights(loaded), weights(module))


def test_a_second_fit_goes_on_with_the_weights_in_memory(own: Own) -> None:
    module, data = own.module(generate=False), own.data()
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "max_steps": 2}
    own.trainer(**quiet).fit(module, datamodule=data)
    before = weights(module)
    own.trainer(**quiet).fit(module, datamodule=data)
    assert not equal(before, weights(module))


def test_a_test_after_the_fit_refuses_questions_that_were_trained_on(own: Own) -> None:
    trainer, module = own.trainer(logger=False, callbacks=[EvaluationReport()], max_steps=1), own.module()
    trainer.fit(module, datamodule=own.data())
    leaking = PubMedQADataModule(source=JSONLines(own.files["dev"], test=own.files["train"]))
    with pytest.raises(InputError, match="were in its training set"):
        trainer.test(module, datamodule=leaking)


def test_a_second_fit_on_other_questions_does_not_forget_the_first(own: Own) -> None:
    module = own.module()
    trainer = own.trainer(logger=False, callbacks=[EvaluationReport()], max_steps=1)
    trainer.fit(module, datamodule=own.data())
    further = own.trainer(callbacks=[AdapterCheckpoint()], max_steps=1)
    further.fit(
        module, datamodule=PubMedQADataModule(source=JSONLines(own.files["test"], dev=own.files["dev"]))
    )
    leaking = PubMedQADataModule(source=JSONLines(own.files["dev"], test=own.files["train"]))
    with pytest.raises(InputError, match="were in its training set"):
        own.trainer(logger=False, callbacks=[EvaluationReport()]).test(module, datamodule=leaking)
    record = json.loads(next(own.folder.rglob("medqlora.json")).read_text(encoding="utf-8"))
    assert len(record["train_ids"]) == record["data"]["train_questions"] > len(module.data.train)


def test_a_fast_dev_run_takes_a_step_of_each(own: Own) -> None:
    module, data = own.module(), own.data()
    trainer = own.trainer(fast_dev_run=True, callbacks=[AdapterCheckpoint(), EvaluationReport()])
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    trainer.predict(module, datamodule=data)
    assert trainer.global_step == 1
    assert not list(own.folder.rglob("test_report.json"))


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_a_datamodule_is_needed(own: Own, verb: str) -> None:
    trainer, module = own.trainer(logger=False, enable_checkpointing=False), own.module()
    loader = [0]
    with pytest.raises(InputError, match=r"QLoRAModule: .* pass datamodule=.*PubMedQADataModule"):
        getattr(trainer, verb)(module, loader)
    assert module.model is None


def test_what_is_missing_or_wrong_is_said_before_a_model_is_loaded(own: Own) -> None:
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False}

    def said(verb: str, module: QLoRAModule, data: PubMedQADataModule, **options: Any) -> str:
        with pytest.raises(InputError) as error:
            getattr(own.trainer(**quiet, **options), verb)(module, datamodule=data)
        assert module.model is None
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "nothing says which weights to evaluate" in said("test", own.module(), own.data())
    assert "--model.learning_rate is -1" in said("fit", own.module(learning_rate=-1), own.data())
    assert "--data.batch_size is 0" in said("fit", own.module(), own.data(batch_size=0))
    assert "--trainer.precision 64-true" in said("fit", own.module(), own.data(), precision="64-true")
    train = PubMedQADataModule(source=JSONLines(train=own.files["train"], dev_fraction=0))
    assert "no dev records" in said("validate", own.module(adapter="none"), train)


def test_a_refused_stage_leaves_nothing_in_the_log_folder(own: Own) -> None:
    """Lightning makes the logger's folder between `prepare_data` and `setup`."""
    data = own.data()
    for verb, module, options in (
        ("fit", own.module(), {"precision": "bf16-true"}),
        ("fit", own.module(), {"callbacks": [EarlyStopping("nothing")]}),
        ("fit", own.module(adapter="elsewhere"), {}),
        ("test", own.module(), {}),
    ):
        with pytest.raises(InputError):
            getattr(own.trainer(**options), verb)(module, datamodule=data)
        assert not (own.folder / "lightning_logs").exists()
    module = own.module(generate=False)  # the same data, afterwards
    own.trainer(max_steps=1, logger=False, enable_checkpointing=False).fit(module, datamodule=data)
    assert module.learned is not None


def test_a_stage_without_the_datamodule_of_the_one_before_is_told_to_pass_it(own: Own) -> None:
    trainer = own.trainer(logger=False, enable_checkpointing=False, max_steps=1)
    module, data = own.module(generate=False), own.data()
    trainer.fit(module, datamodule=data)
    with pytest.raises(InputError, match=r"pass datamodule=.* to trainer\.test$"):
        trainer.test(module)
    with pytest.raises(InputError, match=r"pass datamodule=.* to trainer\.predict$"):
        trainer.predict(module, data.predict_dataloader())


def test_a_fit_never_leaves_a_named_adapter_unused(own: Own) -> None:
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "max_steps": 1}
    with pytest.raises(InputError, match=r"--model\.adapter ward/adapter: `fit` trains new adapters"):
        own.trainer(**quiet).fit(own.module(adapter="ward/adapter"), datamodule=own.data())
    module = own.module(adapter="none", generate=False)
    own.trainer(**quiet).fit(module, datamodule=own.data())
    assert module.learned is not None


def test_weights_that_were_loaded_for_a_test_are_not_trained(own: Own) -> None:
    trainer, module = own.trainer(logger=False, enable_checkpointing=False), own.module(adapter="none")
    trainer.validate(module, datamodule=own.data(), verbose=False)
    with pytest.raises(InputError, match="make a new QLoRAModule to fit"):
        trainer.fit(module, datamodule=own.data())


def test_the_datamodule_is_read_without_a_trainer(own: Own) -> None:
    data = own.data()
    data.prepare_data()
    with pytest.raises(InputError, match=r"setup\('fit'\): no Trainer .* read\(tokenizer, "):
        data.setup("fit")
    with pytest.raises(InputError, match=r"no training set was read"):
        data.train_dataloader()
    data.read(own.module().backend.tokenizer(), ("train", "dev"))
    batch = next(iter(data.train_dataloader()))
    assert len(batch.ids) == 4
    assert sum(len(group.examples) for group in data.val_dataloader()) == 6


def test_an_attribute_that_is_missing_while_the_engine_is_chosen_is_named_itself(
    own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise AttributeError("'Config' object has no attribute 'head_dim'")

    monkeypatch.setattr("medqlora.trainer.step_hooks.prepare_engine", broken)
    module = own.module()
    trainer = own.trainer(logger=False, enable_checkpointing=False, num_sanity_val_steps=0)
    with pytest.raises(AttributeError, match="'Config' object has no attribute 'head_dim'"):
        trainer.fit(module, datamodule=own.data())
    with pytest.raises(RuntimeError, match="the engine is chosen when the Trainer starts a stage"):
        _ = module.packed
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


@nightly  # by day tests/unit/evaluation/test_validation_metrics.py has two processes
@pytest.mark.slow
def test_two_processes_have_the_scores_of_all_questions(own: Own) -> None:
    program = Path(__file__).parents[1] / "helpers" / "own_two_processes.py"
    words = [sys.executable, str(program), str(own.base), str(own.folder)]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ, timeout=300)
    assert done.returncode == 0, done.stderr
    scores = [json.loads((own.folder / f"scores-{rank}.json").read_text()) for rank in (0, 1)]
    assert scores[0] == scores[1]
    assert scores[0]["test/n"] == 9
