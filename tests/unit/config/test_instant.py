"""Help and every error that needs no model answer before torch, Lightning or transformers is imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from medqlora.commands.registry import commands

HEAVY = ("torch", "lightning", "transformers", "peft", "bitsandbytes", "datasets", "numpy", "jsonargparse")
#: runs each case in one process, in their order, and tells what each has imported
RUNNER = f"""
import contextlib, io, json, sys
from medqlora.cli import main
rows = []
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
    heavy = [name for name in {HEAVY!r} if name in sys.modules]
    rows.append([code, out.getvalue(), err.getvalue(), heavy])
json.dump(rows, sys.stdout)
"""
FILES = {
    "option.yaml": "data:\n  source: medqlora.data.SyntheticTrials\n  batch_sise: 8\n",
    "value.yaml": "data:\n  source: medqlora.data.SyntheticTrials\n\n  batch_size: many\n",
    "class.yaml": "model:\n  backend:\n    class_path: medqlora.models.Tiny\n",
    "inner.yaml": "model:\n  backend:\n    class_path: medqlora.models.TinyLlama\n    init_args:\n      sed: 3\n",
    "broken.yaml": "model:\n  lora: [1\ndata: 3\n",
}
#: a row without its answer, in a file of the user's
FILES["ward.csv"] = "Question,Decision\nIs it safe?,yes\nIs it cheap?,\n"
FILES["ward.yaml"] = (
    "model:\n  backend: medqlora.models.TinyLlama\ndata:\n  source:\n"
    "    class_path: medqlora.data.JSONLines\n    init_args: {train: ward.csv}\n"
)
DEMO = ["--model.backend=medqlora.models.TinyLlama", "--data.source=medqlora.data.SyntheticTrials"]
#: words → the beginning of the line
REFUSED = [
    (["fti"], "there is no command 'fti': did you mean 'fit'?"),
    (["fit", "--config", "nope.yaml"], "--config: there is no file 'nope.yaml'"),
    (["fit", "--config=broken.yaml"], "broken.yaml:3: not YAML"),
    (
        ["fit", "--config=option.yaml"],
        "option.yaml:3: data.batch_sise: there is no such option: did you mean",
    ),
    (["fit", "--config=value.yaml"], "value.yaml:4: data.batch_size many: it has to be a whole number"),
    (
        ["fit", "--config=class.yaml"],
        "class.yaml:2: model.backend medqlora.models.Tiny: there is no such class",
    ),
    (
        ["fit", "--config=inner.yaml"],
        "inner.yaml:5: model.backend.sed: medqlora.models.TinyLlama has no option",
    ),
    (["fit", "--trainer.max_epoch", "1"], "--trainer.max_epoch: there is no such option: did you mean"),
    (["fit", "--lr", "1"], "--lr: there is no such option: did you mean 'model.learning_rate'?"),
    (["test", "--data.packing", "tight"], "--data.packing tight: choose one of auto, packed, padded"),
    (["validate", "--model.generate", "perhaps"], "--model.generate perhaps: it has to be true or false"),
    (["predict", "--answers.path"], "--answers.path: its value is missing"),
    (["full", "--data.batch_size=0"], "--data.batch_size is 0: it has to be at least 1"),
    (["fit", "--model.learning_rate=-1"], "--model.learning_rate is -1"),
    (["fit", "--model.lora.r=0"], "--model.lora.r is 0: the rank has to be at least 1"),
    (["fit", "--trainer.precision=64"], "--trainer.precision 64: the adapters are kept in float32"),
    (["fit", "--trainer.logger=false"], "--trainer.logger false: a run's folder is where its logger writes"),
    (["fit", "--trainer.max_epochs=-5"], "--trainer.max_epochs -5: it has to be at least -1"),
    (["fit", "--trainer.strategy=deepspeed"], "--trainer.strategy deepspeed: it shards parameters"),
    (["fit", "--seed_everything=-1"], "--seed_everything -1: it has to be from 0"),
    (["fit", "--checkpoint.save_top_k=-2"], "--checkpoint.save_top_k -2: it has to be at least -1"),
    (["fit", "--model.optimizer=Adafator"], "--model.optimizer Adafator: choose one of"),
    (["fit", "--model.optimizer=nowhere.SGD"], "--model.optimizer nowhere.SGD: there is no such class"),
    (
        ["fit", "--trainer.callbacks+=nowhere.Stop"],
        "--trainer.callbacks nowhere.Stop: there is no such class",
    ),
    (["fit", "--data.source=PubMedX"], "--data.source PubMedX: there is no such class: did you mean"),
    (
        ["fit", "--model.backend=medqlora.models.Transformers"],
        "--model.backend medqlora.models.Transformers: its",
    ),
    (
        ["fit", "--data.source=medqlora.data.JSONLines", "--data.source.train=none.jsonl"],
        "--data.source.train: there is no file none.jsonl: check the path",
    ),
    (["fit", "--ckpt_path=none.ckpt"], "--ckpt_path: there is no file 'none.ckpt'"),
    (["init", "ward.csv", "--yes"], "ward.csv:3: Decision is missing or empty: the train set needs answers"),
    (["data", "ward.csv"], "ward.csv:3: Decision is missing or empty: the train set needs answers"),
    (["fit", "--config=ward.yaml"], "ward.csv:3: Decision is missing or empty: the train set needs answers"),
    (
        ["fit", *DEMO[:1], "--data.source=medqlora.data.JSONLines", "--data.source.train=ward.csv"],
        "ward.csv:3: Decision is missing or empty: the train set needs answers",
    ),
    # a test, or a fit that a test follows, on files without test questions
    (["test", "--config=ward.yaml"], "--data.source: JSONLines has no test records: check its options"),
    (["full", "--config=ward.yaml"], "--data.source: JSONLines has no test records: check its options"),
    (
        ["test", "--config=ward.yaml", "--data.source.test=ward.csv"],
        "ward.csv:3: Decision is missing or empty: the train set needs answers",
    ),
    (["ask", "Does it help?", "--adapter", "none"], "--adapter: there is no folder none"),
    (["test", *DEMO, "--ckpt_path=last"], "--ckpt_path last: there are no runs in lightning_logs"),
    (["fit", *DEMO, "--ckpt_path=best"], "--ckpt_path best: there are no runs in lightning_logs"),
    (["validate", *DEMO, "--ckpt_path=auto"], "--ckpt_path: there is no file 'auto'"),
    (
        ["fit", "--lr_scheduler", "linear"],
        "--lr_scheduler: there is no such option: did you mean 'model.lr",
    ),
    (
        ["fit", "--model.lr_scheduler=linaer"],
        "--model.lr_scheduler linaer: choose one of cosine, linear, constant, or",
    ),
    (
        ["fit", "--trainer.callbacks+=pytorch_lightning.callbacks.EarlyStopping"],
        "--trainer.callbacks pytorch_lightning.callbacks.EarlyStopping: the package here is lightning: write "
        "lightning.pytorch.callbacks.EarlyStopping",
    ),
    (
        ["fit", "--trainer.callbacks=GradientAccumulationScheduler"],
        "--trainer.callbacks GradientAccumulationScheduler: a",
    ),
    (
        ["fit", "--trainer.callbacks+=LearningRateFinder"],
        "--trainer.callbacks LearningRateFinder: it needs automatic",
    ),
    (
        ["fit", "--model.backend,", "medqlora.models.TinyLlama"],
        "--model.backend,: there is no such option: did you mean",
    ),
    (
        ["merge", "--out", "merged"],
        "--adapter: lightning_logs holds no finished run: train one with `medqlora fit`",
    ),
    (["predict", "--data.questions=none.jsonl"], "--data.questions: there is no file none.jsonl"),
    (["test", "--data.retrieval.index=none.mqi"], "--data.retrieval.index: there is no file none.mqi"),
    (["verify", "Drug 7 does help.", "--index", "none.mqi"], "--index: there is no file none.mqi"),
    (["index", "search", "none.mqi", "pain"], "INDEX: there is no file none.mqi"),
    (["ask", "Does it help?", "--index", "none.mqi"], "--index: there is no file none.mqi"),
    (["plan", "--data.batch_sise=1"], "--data.batch_sise: there is no such option"),
    (["doctor", "--jsn"], "--jsn: there is no such option: did you mean 'json'?"),
    (["export"], "--ckpt_path: lightning_logs holds no run: train one with `medqlora fit`"),
    (["export", "--ckpt_path", "none.ckpt"], "--ckpt_path: there is no file 'none.ckpt'"),
    (["serve", "--host", "0.0.0.0"], "--host 0.0.0.0: other machines could reach it: pass --tokens FILE"),
    (["serve", "--prot", "1"], "unrecognized arguments: --prot 1: did you mean '--port'?"),
    (["rate", "biuld"], "argument verb: invalid choice: 'biuld'"),
    (["runs", "--jsn"], "unrecognized arguments: --jsn: did you mean '--json'?"),
]


def test_help_and_wrong_input_are_answered_without_torch_or_lightning(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    helps = [[name, "--help"] for name in commands()]
    cases = [*helps, *(words for words, _ in REFUSED)]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    rows = dict(zip(map(tuple, cases), json.loads(done.stdout), strict=True))
    for words in helps:
        code, out, err, heavy = rows[tuple(words)]
        assert (code, err, heavy) == (0, "", []), words
        assert f"medqlora {words[0]}" in out, words
    for words, line in REFUSED:
        code, _, err, heavy = rows[tuple(words)]
        assert (code, heavy) == (2, []), words
        assert err.startswith(f"medqlora: error: {line}"), (words, err)
        assert err.count("\n") == 1, words
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES), "something was written"


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict", "full"])
def test_the_help_of_a_verb_has_every_option_with_its_default(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from medqlora.cli import main
    from medqlora.config.help import default_text
    from medqlora.config.schema import options

    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out.splitlines()
    for option in options("fit" if verb == "full" else verb).values():
        (line,) = (each for each in shown if each.startswith(f"  --{option.name} "))
        assert default_text(option) in line, option.name
        assert option.help, option.name
    assert max(map(len, shown)) <= 120
