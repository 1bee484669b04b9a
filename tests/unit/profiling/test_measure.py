"""What is timed is the training step, and the figures say what they are named for."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from transformers import LlamaConfig

from medqlora.errors import InputError
from medqlora.profiling import SHAPES, Case
from medqlora.profiling.clock import Clock, matrix_product_flops
from medqlora.profiling.figures import summary
from medqlora.profiling.lengths import random_examples
from medqlora.profiling.measure import _planned_gib, measure, step_batches

BUDGET = 1024
EXAMPLES = random_examples(60, vocab_size=512, longest=BUDGET)


def case(trainer: str = "native", **changes: object) -> Case:
    common = {"micro_batch_tokens": BUDGET, "precision": "32", "warm_up": 1, "steps": 2}
    return Case(trainer=trainer, shape=SHAPES["tiny"][1], **{**common, **changes})  # type: ignore[arg-type]


def test_both_engines_and_any_checkpointing_take_the_same_steps() -> None:
    settings = [
        ("native", "full"), ("native", "none"), ("fused", "full"), ("fused", "none"), ("fused", "1"),
        ("fused", "offload"),
    ]  # fmt: skip
    found = [measure(case(trainer, checkpointing=kept)) for trainer, kept in settings]
    for figures in found:
        assert figures["loss"] == pytest.approx(found[0]["loss"], abs=2e-4)
        assert figures["tokens_per_step"] == found[0]["tokens_per_step"]
        assert figures["flop_utilisation"] > 0
        assert figures["tokens_per_s"] > 0
        assert figures["peak_host_gib"] >= figures["loaded_gib"] > 0.05


def test_a_step_without_a_number_of_examples_is_one_full_micro_batch() -> None:
    longest = max(len(example.prompt) + len(example.completion) for example in EXAMPLES)
    for batch in islice(step_batches(EXAMPLES, BUDGET, None, 0), 50):
        assert len(batch.micro_batches) == 1
        assert BUDGET - longest < batch.tokens <= BUDGET
        assert batch.tokens == batch.micro_batches[0].input_ids.numel()


def test_a_step_of_some_examples_has_as_many_within_the_budget() -> None:
    batches = list(islice(step_batches(EXAMPLES, BUDGET, 8, 0), 7))
    for batch in batches:
        assert sum(len(micro.lengths) for micro in batch.micro_batches) == 8
        assert all(micro.input_ids.numel() <= BUDGET for micro in batch.micro_batches)
    # an order holds every example once
    assert len({name for batch in batches for name in batch.ids}) == 56


def test_speed_is_over_all_steps_and_the_rest_says_how_they_differ() -> None:
    figures = summary([1.0, 2.0, 1.0, 4.0], [100, 100, 100, 100])
    assert figures["tokens_per_s"] == 50.0  # 400 tokens in 8 s
    assert figures["tokens_per_s_median"] == 75.0  # of 100, 50, 100, 25
    assert figures["tokens_per_s_quartiles"] == [31.2, 100.0]
    assert figures["step_s"] == 1.5
    assert summary([2.0], [100])["tokens_per_s_quartiles"] == [50.0, 50.0]


def test_marks_are_told_apart_in_order() -> None:
    clock = Clock(torch.device("cpu"))
    assert clock.between_s() == []
    for _ in range(3):
        clock.mark()
    assert len(clock.between_s()) == 2
    assert all(seconds >= 0 for seconds in clock.between_s())


def test_the_ceiling_is_what_this_machine_reaches() -> None:
    # any processor of today does more than 1 and less than 100,000 GFLOP/s on a thread
    assert 1e9 < matrix_product_flops(torch.device("cpu"), torch.float32) < 1e14


def test_what_is_planned_of_one_base_is_without_the_others_shares() -> None:
    shape = SHAPES["llama-3-70b"][1]
    config = LlamaConfig(**shape)
    batches = list(islice(step_batches(EXAMPLES, BUDGET, None, 0), 2))
    both = replace(case("fused", precision="bf16-mixed"), devices=2)
    whole = _planned_gib(config, both, batches)
    half = _planned_gib(config, replace(both, strategy="fsdp"), batches)
    assert whole is not None
    assert half is not None
    # 4 bits a weight, a float of 8 bits for 64 of them, a float of 32 bits for 256 of those
    layer = (2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 28672) * (4 + 8 / 64 + 32 / 64 / 256) / 8 / 2**30
    assert whole - half == pytest.approx(40 * layer - 2 * layer, rel=1e-3)  # two are gathered at a time


def test_what_an_engine_does_not_have_is_said() -> None:
    with pytest.raises(InputError, match="--checkpointing offload: the native engine"):
        measure(case(checkpointing="offload"))
    shape = {**SHAPES["tiny"][1], "model_type": "gemma", "head_dim": 16}
    with pytest.raises(InputError, match="--engine fused: it doesn't run this shape"):
        measure(Case(trainer="fused", shape=shape, precision="32"))
    windowed = {**SHAPES["tiny"][1], "model_type": "mistral", "sliding_window": 64}
    with pytest.raises(InputError, match=r"it doesn't run this shape \(its attention sees the last 64"):
        measure(Case(trainer="fused", shape=windowed, precision="32"))
