"""The acceptance on a GPU: random weights of the Llama-3-8B shape, real questions, the real commands.

    python tests/gpu/acceptance.py FOLDER --tokenizer DIR --data ori_pqal.json --shape 8b \
        --stages checkpoint unsloth-16 unsloth-bf16 transformers-16+transformers-bf16 test resume overfit

Each stage is a process of its own, with its log in FOLDER/STAGE.log and its figures in FOLDER/summary.json;
one that fails doesn't stop the others. Stages joined by "+" run at the same time (their memory figures hold,
their speeds don't). Options that are not known here go to every `medqlora` command. Without a GPU every
stage runs on the CPU, in float32 and on the Transformers backend: that tries this script, not the product.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from faults import FAULTS
from figures import figures, longest_fold, step_of, versions
from scaling import scaling, whole

import medqlora

#: stages for two GPUs of one host, and one of them for one
SEVERAL: dict[str, Any] = {
    "scaling": scaling,
    "whole": whole,
    "whole-1": partial(whole, devices=(1,)),
    "whole-2": partial(whole, devices=(2,)),
}
CONFIGS = Path(medqlora.__file__).resolve().parent.parent / "configs"
#: what a fit may hold at `qlora.yaml`'s settings: issue 2
LIMIT_GIB = 6.5
OVERFIT_STEPS, OVERFIT_RATE = 10, 2e-4
STAGES = (
    "checkpoint", "unsloth-16", "unsloth-bf16", "transformers-16", "transformers-bf16", "test", "test-written",
    "validate", "resume", "overfit", "full", "fast", "speed-likelihood", "speed-compared", "speed-written",
    *FAULTS, *SEVERAL,
)  # fmt: skip
#: what a test of all 500 questions may take in seconds, after loading, and in GiB above the loaded model: issue 3
SPEED = {
    "speed-likelihood": (12, 1.5, ["--compare_base=false", "--model.generate=false"]),
    "speed-compared": (24, 1.5, ["--model.generate=false"]),
    "speed-written": (90, math.inf, ["--compare_base=false", "--model.max_new_tokens=64"]),
}


@dataclass
class Acceptance:
    """What every stage needs to know.

    Attributes:
        folder: where all is written.
        tokenizer: a folder with the tokenizer's files.
        data: PubMedQA's `ori_pqal.json`.
        shape: "8b" or "tiny".
        samples: training questions of the short fits.
        gpu: whether there is one.
        more: options for every `medqlora` command.
    """

    folder: Path
    tokenizer: Path
    data: Path
    shape: str
    samples: int
    gpu: bool
    more: list[str]

    @property
    def configs(self) -> Path:
        return CONFIGS

    @property
    def base(self) -> Path:
        return self.folder / f"base-{self.shape}"

    # ---- the commands ----------------------------------------------------------------------------

    def words(self, verb: str, stage: str, backend: str, precision: str) -> list[str]:
        """`medqlora VERB` with the experiment's configuration, in the folder of `stage`."""
        configs = ["qlora.yaml"]
        if precision == "bf16-mixed":
            configs.append("bf16.yaml")
        if backend == "transformers" or not self.gpu:
            configs.append("no_unsloth.yaml")
        words = [verb, *(word for name in configs for word in ("--config", str(CONFIGS / name)))]
        words += [f"--model.backend.base={self.base}", f"--data.source.path={self.data}"]
        words += [f"--trainer.default_root_dir={self.folder / stage}"]
        if not self.gpu:
            words += ["--trainer.accelerator=cpu", "--trainer.precision=32"]
        return words

    def fit(self, stage: str, backend: str, precision: str, *more: str) -> dict[str, Any]:
        """A fit and its figures."""
        words = self.words("fit", stage, backend, precision)
        result = self.medqlora(stage, [*words, "--trainer.log_every_n_steps=5", *more])
        result |= figures(self.run(stage))
        result["within_limit"] = result.get("peak_gib", math.inf) <= LIMIT_GIB
        return result

    def short(self, stage: str, backend: str, precision: str) -> dict[str, Any]:
        """As shipped, but on fewer questions and for two epochs."""
        return self.fit(
            stage, backend, precision, f"--data.train_samples={self.samples}", "--trainer.max_epochs=2"
        )

    def run(self, stage: str) -> Path:
        """The newest run's folder of a stage."""
        runs = (self.folder / stage / "lightning_logs").glob("version_*")
        return max(
            runs, key=lambda path: int(path.name.removeprefix("version_")), default=self.folder / "none"
        )

    def medqlora(self, stage: str, words: list[str]) -> dict[str, Any]:
        return self.process(stage, [sys.executable, "-m", "medqlora", *words, *self.more])

    def process(self, stage: str, command: list[str], until: Any = None) -> dict[str, Any]:
        """Runs a command, its output in the stage's log.

        Args:
            until: asked twice a second; when it says yes the process is killed.
        """
        (self.folder / stage).mkdir(parents=True, exist_ok=True)
        environment = {
            "MEDQLORA_CACHE": str(self.folder / "cache"),
            "UNSLOTH_COMPILE_LOCATION": str(self.folder / stage / "unsloth_compiled"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what deterministic products need
        } | dict(os.environ)
        # for the callbacks of `faults`
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        started, killed = time.monotonic(), False
        with (self.folder / f"{stage}.log").open("a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(command)}\n")
            log.flush()
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
            while process.poll() is None:
                time.sleep(0.2)
                if until is not None and until():
                    process.send_signal(signal.SIGKILL)
                    killed = True
                    process.wait()
        result: dict[str, Any] = {
            "exit_code": process.returncode,
            "seconds": round(time.monotonic() - started, 1),
        }
        if killed:
            result["killed"] = True
        elif process.returncode:
            text = (self.folder / f"{stage}.log").read_text(encoding="utf-8", errors="replace")
            result["end_of_log"] = text.replace("\r", "\n").splitlines()[-40:]
        return result

    # ---- the stages ------------------------------------------------------------------------------

    def stage(self, name: str) -> dict[str, Any]:
        """Runs one of `STAGES`."""
        if name in SPEED:
            return self.speed(name)
        if name in FAULTS:
            return FAULTS[name](self)
        if name in SEVERAL:
            return SEVERAL[name](self)
        if name.startswith(("unsloth-", "transformers-")):
            backend, bits = name.split("-")
            return self.short(name, backend, f"{bits}-mixed")
        return getattr(self, name.replace("-", "_"))()

    def checkpoint(self) -> dict[str, Any]:
        script = Path(__file__).with_name("random_checkpoint.py")
        return self.process(
            "checkpoint", [sys.executable, str(script), str(self.base), str(self.tokenizer), self.shape]
        )

    def _test(self, stage: str, *more: str) -> dict[str, Any]:
        words = self.words("test", stage, "unsloth", "bf16-mixed")
        adapter = self.run("unsloth-bf16") / "adapter"
        result = self.medqlora(stage, [*words, f"--model.adapter={adapter}", *more])
        report = self.run(stage) / "test_report.json"
        if report.is_file():
            scores = json.loads(report.read_text(encoding="utf-8"))
            names = (
                "n",
                "accuracy",
                "accuracy_ci95",
                "macro_f1",
                "unparsed_fraction",
                "nll",
                "ece",
                "mcnemar_p",
            )
            result["report"] = {key: scores[key] for key in names}
            result["report"]["base_accuracy"] = (scores["base"] or {}).get("accuracy")
            result["files"] = sorted(path.name for path in report.parent.iterdir())
        return result | figures(self.run(stage))

    def test(self) -> dict[str, Any]:
        """All 500 by likelihood, with and without the adapter."""
        return self._test("test", "--model.generate=false")

    def speed(self, stage: str) -> dict[str, Any]:
        """All 500, with the memory of a large GPU for what is written."""
        seconds, gib, options = SPEED[stage]
        if stage == "speed-written":
            options = [*options, "--data.eval_batch_size=64", "--data.eval_memory_gib=null"]
            options += ["--data.micro_batch_tokens=32768"]
        else:
            options = [*options, "--data.micro_batch_tokens=4096"]
        result = self._test(stage, *options)
        report = self.run(stage) / "test_report.json"
        if report.is_file():
            result["asking_s"] = json.loads(report.read_text(encoding="utf-8"))["asking_s"]
            result["within_limit"] = result["asking_s"] <= seconds
        result["limits"] = {"asking_s": seconds, "gib_above_load": gib if math.isfinite(gib) else None}
        return result

    def test_written(self) -> dict[str, Any]:
        """All 500, with written answers, as many at once as on a small GPU."""
        return self._test("test-written")

    def validate(self) -> dict[str, Any]:
        """The fold whose validation set holds the longest question, which decides the memory."""
        words = self.words("validate", "validate", "unsloth", "16-mixed")
        fold = longest_fold(self.data)
        made = [self.run(stage) / "adapter" for stage in ("unsloth-16", "full")]
        adapter = next((folder for folder in made if folder.is_dir()), "none")
        result = self.medqlora(
            "validate", [*words, f"--model.adapter={adapter}", f"--data.source.fold={fold}"]
        )
        return {"fold": fold} | result | figures(self.run("validate"))

    def resume(self) -> dict[str, Any]:
        """The fit of `unsloth-bf16` again, killed after its fifth step and resumed from there."""
        more = [f"--data.train_samples={self.samples}", "--trainer.max_epochs=2", "--model.generate=false"]
        more += ["--trainer.log_every_n_steps=5", "--checkpoint.every_n_train_steps=5", *self.more]
        words = self.words("fit", "resume", "unsloth", "bf16-mixed") + more
        known = set((self.folder / "resume").glob("lightning_logs/version_*"))

        def begun() -> bool:
            return any(
                (run / "checkpoints" / "last.ckpt").is_file()
                for run in (self.folder / "resume").glob("lightning_logs/version_*")
                if run not in known
            )

        command = [sys.executable, "-m", "medqlora"]
        first = self.process("resume", [*command, *words], until=begun)
        checkpoint = self.run("resume") / "checkpoints" / "last.ckpt"
        if not checkpoint.is_file():
            return {"first": first, "exit_code": first["exit_code"] or 1}
        sizes = {"last.ckpt": checkpoint.stat().st_size}
        at = step_of(checkpoint)
        second = self.process("resume", [*command, *words, f"--ckpt_path={checkpoint}"])
        sizes |= {path.name: path.stat().st_size for path in sorted(checkpoint.parent.iterdir())}
        result = {"first": first, "resumed_at_step": at, "checkpoint_bytes": sizes, **second}
        result |= figures(self.run("resume"))
        whole = figures(self.run("unsloth-bf16")).get("losses", {})
        both = {step: (loss, whole[step]) for step, loss in result.get("losses", {}).items() if step in whole}
        result["steps_compared"] = len(both)
        result["largest_difference"] = max((abs(a / b - 1) for a, b in both.values()), default=None)
        return result

    def overfit(self) -> dict[str, Any]:
        """One batch of four, ten times, under Lightning and in a plain loop."""
        options = ["--data.train_samples=4", "--data.batch_size=4", f"--trainer.max_epochs={OVERFIT_STEPS}"]
        options += [
            "--model.warmup_ratio=0",
            f"--model.learning_rate={OVERFIT_RATE}",
            "--model.max_grad_norm=1",
        ]
        options += ["--trainer.log_every_n_steps=1", "--trainer.limit_val_batches=0"]
        words = self.words("fit", "overfit", "unsloth", "bf16-mixed")
        result = self.medqlora("overfit", [*words, *options])
        lightning = figures(self.run("overfit")).get("losses", {})
        target = self.folder / "overfit" / "plain.json"
        script = Path(__file__).with_name("plain_loop.py")
        command = [sys.executable, str(script), str(self.base), str(self.data), str(target)]
        plain = self.process("overfit-plain", [*command, str(OVERFIT_STEPS), str(OVERFIT_RATE)])
        if target.is_file():
            plain |= json.loads(target.read_text(encoding="utf-8"))
            curves = {"differences": list(lightning.values()), "differences_of_rounding": plain["rows"]}
            for name, losses in curves.items():
                pairs = zip(losses, plain["whole"], strict=False)
                result[name] = [round(a / b - 1, 5) for a, b in pairs]
        result["exit_code"] = result["exit_code"] or plain["exit_code"]
        return result | {"losses": lightning, "plain": plain}

    def full(self) -> dict[str, Any]:
        """All 450 questions, the longest among them, for one epoch, as shipped."""
        return self.fit("full", "unsloth", "16-mixed", "--trainer.max_epochs=1")

    def fast(self) -> dict[str, Any]:
        """What the memory of a large GPU buys."""
        more = ["--model.backend.gradient_checkpointing=false", "--data.micro_batch_tokens=8192"]
        more += ["--data.batch_size=20", "--trainer.max_epochs=1", "--trainer.limit_val_batches=0"]
        return self.fit("fast", "unsloth", "bf16-mixed", *more)


def main() -> int:
    """Runs the stages; 0 when all of them ended well."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where everything is written; needs 8 GB for the 8b shape")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of the Llama-3 tokenizer")
    parser.add_argument("--data", type=Path, required=True, help="PubMedQA's ori_pqal.json")
    parser.add_argument("--shape", choices=("8b", "small", "tiny"), default="8b")
    parser.add_argument("--samples", type=int, default=120, help="training questions of the short fits")
    stages = f"of {', '.join(STAGES)}; A+B runs both at once"
    parser.add_argument("--stages", nargs="+", default=list(STAGES), help=stages)
    options, more = parser.parse_known_args()
    import torch

    gpu = torch.cuda.is_available()
    paths = [path.resolve() for path in (options.folder, options.tokenizer, options.data)]
    acceptance = Acceptance(*paths, options.shape, options.samples, gpu, more)
    groups = [group.split("+") for group in options.stages]
    for name in (name for group in groups for name in group):
        if name not in STAGES:
            parser.error(f"there is no stage '{name}': they are {', '.join(STAGES)}")
    acceptance.folder.mkdir(parents=True, exist_ok=True)
    path = acceptance.folder / "summary.json"
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    summary["versions"] = versions()
    failed = []
    for group in groups:
        with ThreadPoolExecutor(len(group)) as pool:
            for name, result in zip(group, pool.map(_guarded(acceptance), group), strict=True):
                result["options"] = more
                summary[name] = result
                if result["exit_code"]:
                    failed.append(name)
                told = ("exit_code", "seconds", "fit_seconds", "peak_gib", "tokens_per_s_median", "error")
                print(name, {key: result[key] for key in told if key in result}, flush=True)
                path.write_text(json.dumps(summary, indent=1, default=str) + "\n", encoding="utf-8")
    print(f"failed: {', '.join(failed)}" if failed else "all stages ended well", flush=True)
    return 1 if failed else 0


def _guarded(acceptance: Acceptance) -> Any:
    """A stage whose own mistakes are its result, so that the next one runs."""

    def run(name: str) -> dict[str, Any]:
        try:
            return acceptance.stage(name)
        except Exception as error:
            return {"exit_code": 1, "error": f"{type(error).__name__}: {error}"}

    return run


if __name__ == "__main__":
    sys.exit(main())
