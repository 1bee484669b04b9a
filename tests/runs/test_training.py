"""Real QLoRA on a CPU: NF4 by bitsandbytes, LoRA by PEFT, 8-bit AdamW, through the command line."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import adapter_weights, options, questions, run
from tensorboard_events import logged

from medqlora.data import encode_all, lookup
from medqlora.data.batching.packing import StepBatch, step_batch
from medqlora.models import LoRA, Transformers
from medqlora.models.adapters import trainable_state
from medqlora.records import Encoded, Record
from medqlora.training.optim import build_optimizer

CPU = torch.device("cpu")


def load(base: Path, quantization: str = "nf4", **lora: Any) -> tuple[Transformers, Any]:
    backend = Transformers(str(base), quantization=quantization, gradient_checkpointing=False)  # type: ignore[arg-type]
    model = backend.load(
        lora=LoRA(**{"r": 8, "alpha": 16, **lora}), adapter=None, device=CPU, dtype=torch.float32, seed=0
    )
    return backend, model


def examples(backend: Transformers, count: int = 8) -> list[Encoded]:
    records = [
        Record(
            row["id"],
            row["question"],
            tuple(row["contexts"]),
            answer=row["answer"],
            long_answer=row["long_answer"],
        )
        for row in questions(count)
    ]
    return encode_all(records, lookup("medical"), backend.tokenizer(), 256, progress=False)


def step_loss(backend: Transformers, model: Any, batch: StepBatch) -> float:
    """The step as QLoRAModule takes it; the gradients are left on the adapters."""
    decoder = backend.decoder(model)
    total = 0.0
    for micro in batch.micro_batches:
        part = decoder.loss_sum(micro) / batch.completion_tokens
        part.backward()
        total += part.item()
    return total


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    return found


def test_overfitting_one_batch_takes_the_loss_below_a_hundredth_and_moves_the_adapters_alone(
    tiny_bases: dict[str, Path],
) -> None:
    backend, model = load(tiny_bases["llama"], r=16, alpha=32)
    batch = step_batch(examples(backend, 4), 1000)
    frozen = {name: value.clone() for name, value in model.state_dict().items() if "lora" not in name}
    adapters = {name: value.clone() for name, value in trainable_state(model).items()}
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    optimizer = build_optimizer("adamw_8bit", trained, learning_rate=1e-2, weight_decay=0.0)
    first = step_loss(backend, model, batch)
    last = first
    for _ in range(150):
        optimizer.step()
        optimizer.zero_grad()
        last = step_loss(backend, model, batch)
        if last < first / 100:
            break
    assert last < first / 100
    assert all(
        torch.equal(frozen[name], model.state_dict()[name]) for name in frozen
    )  # the bytes of NF4 included
    assert any(name.endswith("weight.absmax") for name in frozen)
    assert all(not torch.equal(adapters[name], value) for name, value in trainable_state(model).items())


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_the_step_is_the_same_for_every_micro_batch_size_and_for_packed_and_padded_rows(
    tiny_bases: dict[str, Path], family: str
) -> None:
    backend, model = load(tiny_bases[family])
    with torch.no_grad():  # B is 0 at first, and A would have no gradient
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(
                    torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.05
                )
    data = examples(backend)
    results = {
        (tokens, packed): (
            step_loss(backend, model, step_batch(data, tokens, packed=packed, pad_token_id=2)),
            gradients(model),
        )
        for tokens, packed in itertools.product((1, 150, 400, 10_000), (True, False))
    }
    loss, expected = results[1, True]  # one example at a time
    for (tokens, packed), (other_loss, other) in results.items():
        assert other_loss == pytest.approx(loss, rel=1e-5), (tokens, packed)
        for name, gradient in expected.items():
            assert (other[name] - gradient).norm() <= 1e-5 * gradient.norm(), (tokens, packed, name)


def test_validation_between_steps_changes_neither_the_base_nor_what_is_learned(
    tiny_bases: dict[str, Path],
) -> None:
    """bitsandbytes 0.50 repacks weights in eval mode on CPUs with AVX512-BF16: gradients were silently wrong."""

    def train(validate: bool) -> tuple[float, dict[str, torch.Tensor]]:
        backend, model = load(tiny_bases["llama"])
        data = examples(backend)
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        optimizer = build_optimizer("adamw", trained, learning_rate=5e-3, weight_decay=0.0)
        loss = 0.0
        for _ in range(3):
            if validate:
                model.eval()
                with torch.no_grad():
                    model(input_ids=torch.tensor([list(data[0].prompt)]))
                model.train()
            loss = step_loss(backend, model, step_batch(data, 1000))
            optimizer.step()
            optimizer.zero_grad()
        return loss, {name: value.clone() for name, value in model.state_dict().items()}

    loss, state = train(validate=False)
    loss_with, state_with = train(validate=True)
    assert loss_with == loss
    assert all(torch.equal(state[name], state_with[name]) for name in state)


def test_gradient_checkpointing_is_in_force_when_asked_for_and_gives_the_same_weights(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    words = options(tiny_bases["llama"], tmp_path)
    weights = []
    for wanted in ("true", "false"):
        cli = run(
            "fit", [*words, f"--model.backend.gradient_checkpointing={wanted}", "--trainer.max_steps=3"]
        )
        layers = [m for m in cli.model.model.modules() if getattr(m, "gradient_checkpointing", False)]
        assert bool(layers) == (wanted == "true")
        weights.append(adapter_weights(cli))
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_adapters_stay_in_float32(tiny_bases: dict[str, Path], tmp_path: Path, precision: str) -> None:
    cli = run(
        "fit",
        [
            *options(tiny_bases["llama"], tmp_path),
            f"--trainer.precision={precision}",
            "--trainer.max_steps=2",
        ],
    )
    assert {value.dtype for value in adapter_weights(cli).values()} == {torch.float32}


def test_a_run_learns_what_its_questions_hold(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    cli = run("fit", [*options(tiny_bases["llama"], tmp_path), "--trainer.max_epochs=12"])
    losses = logged(Path(cli.trainer.log_dir), "train/loss")
    assert [step for step, _ in losses] == list(range(12 * 6))  # every step, once
    assert losses[-1][1] < 0.5 * losses[0][1]
    rates = [value for _, value in logged(Path(cli.trainer.log_dir), "train/learning_rate")]
    assert max(rates) == pytest.approx(5e-3)
    assert rates[-1] < 0.01 * max(rates)


def test_the_loss_that_is_logged_is_that_of_a_plain_loop_over_the_same_model(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    """The oracle: transformers' own forward, one example at a time, mean over the step's completion tokens."""
    words = [
        *options(tiny_bases["llama"], tmp_path, train=4),
        "--trainer.max_epochs=5",
        "--model.optimizer=adamw",
    ]
    cli = run("fit", [*words, "--model.warmup_ratio=0", "--model.max_grad_norm=0"])
    _, model = load(tiny_bases["llama"], r=4, alpha=8)
    data = cli.datamodule.train
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)
    expected = []
    for _ in range(5):
        losses = []
        for example in data:
            ids = torch.tensor([[*example.prompt, *example.completion]])
            logits = model(input_ids=ids).logits[0, len(example.prompt) - 1 : -1]
            losses.append(
                torch.nn.functional.cross_entropy(
                    logits, torch.tensor(list(example.completion)), reduction="none"
                )
            )
        loss = torch.cat(losses).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        expected.append(loss.item())
    assert [value for _, value in logged(Path(cli.trainer.log_dir), "train/loss")] == pytest.approx(
        expected, rel=1e-4
    )
