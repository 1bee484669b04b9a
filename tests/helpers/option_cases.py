"""Command lines and configurations that Lightning's parser accepts, on top of `configs/demo.yaml`."""

SOURCE = ["--data.source=medqlora.data.JSONLines", "--data.source.train=x"]
UNSLOTH = ["--model.backend", "medqlora.models.Unsloth", "--model.backend.base", "x"]
STOP = "lightning.pytorch.callbacks.EarlyStopping"

#: words after `fit --config configs/demo.yaml`
LINES: list[list[str]] = [
    *(
        line.split()
        for line in (
            "--model.lora.r 8",
            "--model.lora.r=8 --model.lora.alpha 1e1",
            "--model.lora.r 1_000",
            "--model.learning_rate 1e-4",
            "--model.lora.dropout .1",
            "--model.generate True",
            "--model.generate no",
            "--model.lora.target_modules [q_proj,v_proj]",
            "--model.lora.target_modules q_proj,v_proj",
            "--model.lora.target_modules+=q_proj",
            "--model.lora.target_modules null",
            "--model.lora lora.yaml",
            "--model model.yaml",
            "--model.backend medqlora.models.TinyLlama",
            "--model.backend TinyLlama",
            "--model.backend=backend.yaml",
            "--model.backend medqlora.models.tiny_llama.TinyLlama",
            "--model.backend.init_args.seed 4",
            "--model.backend.class_path medqlora.models.Transformers --model.backend.base x",
            "--model.optimizer AdamW",
            "--model.optimizer SGD --model.optimizer.momentum 0.5",
            "--model.optimizer torch.optim.SGD --model.optimizer.momentum 0.5",
            "--model.lr_scheduler linear",
            "--model.lr_scheduler torch.optim.lr_scheduler.StepLR --model.lr_scheduler.step_size 3",
            "--model.lr_scheduler StepLR --model.lr_scheduler.step_size 3",
            "--model.checkpointing 3",
            "--model.adapter null",
            "--model.adapter 5",
            "--data.micro_batch_tokens auto",
            "--data.train_samples null",
            "--data.source JSONLines --data.source.train x",
            "--data.source medqlora.data.sources.jsonlines.JSONLines --data.source.train x",
            "--data.source medqlora.data.PubMedQA --data.source.fold 3 --data.source.on_bad_record skip",
            "--data.source medqlora.data.Mirage --data.source.dataset medqa --data.source.test x",
            "--data.benchmarks+=medqlora.data.MedQA --data.benchmarks.test x",
            "--data.benchmarks=[medqlora.data.MedQA,medqlora.data.MedMCQA]",
            "--data.benchmarks null",
            "--trainer.max_epochs null",
            "--trainer.limit_train_batches 0.5",
            "--trainer.limit_train_batches 5",
            "--trainer.precision 32",
            "--trainer.precision bf16-mixed",
            "--trainer.devices [0,1]",
            "--trainer.devices auto",
            "--trainer.strategy lightning.pytorch.strategies.DDPStrategy",
            "--trainer.logger TensorBoardLogger --trainer.logger.save_dir x",
            "--trainer.logger+=CSVLogger --trainer.logger.save_dir x",
            "--trainer.callbacks EarlyStopping --trainer.callbacks.monitor val/loss",
            "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=x --trainer.callbacks+=LearningRateMonitor",
            f"--trainer.callbacks={STOP} --trainer.callbacks.monitor=x",
            "--trainer.callbacks null",
            "--trainer.fast_dev_run 2",
            "--trainer.val_check_interval 0.5",
            "--trainer.max_time 00:01:00:00",
            "--trainer.profiler simple",
            "--trainer.default_root_dir ~/x",
            "--trainer.deterministic warn",
            "--trainer.plugins+=LightningEnvironment",
            "--checkpoint.mode null --checkpoint.save_top_k -1",
            "--seed_everything true",
            "--ckpt_path null",
            "--answers.note hello --progress.refresh_rate 0 --report.normalisation length",
            "--print_config=skip_null",
            "--data.seed -3",
        )
    ),
    ["--model.lora", "{r: 4}"],
    ["--model", '{"lora": {"r": 4}}'],
    ["--model.backend", "{class_path: medqlora.models.TinyLlama, init_args: {seed: 3}}"],
    ["--model.optimizer", "{class_path: torch.optim.SGD, init_args: {momentum: 0.5}}"],
    ["--trainer.max_time", "{hours: 1}"],
    ["--answers.note", "several words, -and one with a dash"],
    [*SOURCE, "--data.source.fields={question: q}"],
    [*SOURCE, "--data.source.fields.question=q"],
    [*SOURCE, "--data.source.labels=[a,b]"],
    [*SOURCE, "--data.source.labels={0: no, 1: yes}"],
    [*SOURCE, "--data.source.labels=[]", "--data.source.answer_index=1"],
    [*UNSLOTH, "--model.backend.gradient_checkpointing", "true"],
    [*UNSLOTH, "--model.backend.gradient_checkpointing", "unsloth"],
]

#: a configuration after `configs/demo.yaml`
FILES = [
    "model.lora.r: 4\n",
    "model: {lora: {r: '8', alpha: 8}, learning_rate: 1e-4}\n",
    "model: {generate: yes, adapter: null}\n",
    "data: {}\n",
    "throughput: {}\n",
    "seed_everything: null\nckpt_path: null\nweights_only: true\ncompare_base: false\n",
    "trainer: {callbacks: {class_path: EarlyStopping, init_args: {monitor: x}}}\n",
    "trainer: {callbacks: [{class_path: EarlyStopping, init_args: {monitor: x}}, LearningRateMonitor]}\n",
    "trainer:\n  callbacks+: [{class_path: EarlyStopping, init_args: {monitor: x}}]\n",
    "trainer: {logger: {class_path: CSVLogger, init_args: {save_dir: x}}}\n",
    "trainer: {precision: 'bf16', devices: [0], max_time: {hours: 1}, default_root_dir: null}\n",
    "model:\n  backend: medqlora.models.TinyLlama\n",
    "model:\n  backend:\n    seed: 3\n",
    "model:\n  backend:\n    init_args:\n      seed: 3\n",
    "model:\n  lora: {<<: {r: 4}, alpha: 3}\n",
    "model: {optimizer: {class_path: SGD, init_args: {momentum: 0.3}}}\n",
    "model: {lr_scheduler: constant}\n",
    "model: {lr_scheduler: {class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 2}}}\n",
    "model: {lora: {target_modules: [q_proj]}}\n",
    "data:\n  benchmarks:\n  - medqlora.data.MedQA\n  - class_path: medqlora.data.MedMCQA\n    init_args: {test: x}\n",
    "data:\n  source:\n    class_path: medqlora.data.JSONLines\n    init_args:\n      train: x\n"
    "      labels: {0: no, 1: yes}\n      fields: {options: 'a,b'}\n",
    "data:\n  source:\n    class_path: medqlora.data.JSONLines\n    init_args: {train: 2024-01-01}\n",
    '{"model": {"lora": {"r": 4}}}',
]


def write_parts(folder: str) -> None:
    """Writes the files that some lines read a part of the options from."""
    from pathlib import Path

    Path(folder, "lora.yaml").write_text("r: 4\n", encoding="utf-8")
    Path(folder, "model.yaml").write_text("lora: {r: 4}\n", encoding="utf-8")
    backend = "class_path: medqlora.models.TinyLlama\ninit_args: {seed: 3}\n"
    Path(folder, "backend.yaml").write_text(backend, encoding="utf-8")
