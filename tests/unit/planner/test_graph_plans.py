"""CUDA graphs in the plan: taken where they pay and fit, and their memory is counted in every phase after the first."""

from dataclasses import replace
from typing import Any

import pytest

from medqlora.config.data import DataOptions
from medqlora.config.model import ModelOptions
from medqlora.models import LoRA, Transformers
from medqlora.planner import Setting, Shape, plan
from medqlora.planner.memory import GIB, GRAPHS_BYTES
from medqlora.training.fit_plan import FitOptions, FitPlan, plan_fit

LLAMA_8B = Shape(32, 4096, 32, 8, 128, 14336, 128256, tied=False)
LENGTHS = [(324, 54)] * 40


def planned(memory: float | None = 140, **changes: Any) -> FitPlan:
    """The plan of a fit with 2,048 tokens in a micro-batch, on a GPU with `memory` GiB to allocate."""
    fit = {
        "fused": True,
        "width": 2,
        "shards": 1,
        "devices": 1,
        "optimizer": "adamw_8bit",
        "device": "cuda",
    }
    fit |= {"tokens": 2048, "generate": False}
    model = {
        key: changes.pop(key) for key in ("graphs", "checkpointing", "weights", "head") if key in changes
    }
    data = changes.pop("data", {})
    fit |= changes
    options = FitOptions(
        Transformers("base"),
        LoRA(),
        ModelOptions(generate=fit["generate"], **{"checkpointing": "none", "weights": "nf4", **model}),
        DataOptions(batch_size=32, **data),
        fit["optimizer"],
        fit["tokens"],
        device=fit["device"],
    )
    room = None if memory is None else int(memory * GIB)
    keys = ("fused", "width", "shards", "devices")
    return plan_fit(LLAMA_8B, options, LENGTHS, memory=room, **{key: fit[key] for key in keys})


def test_graphs_are_planned_for_small_micro_batches_on_a_gpu() -> None:
    assert planned().setting.graphs
    assert planned(None).setting.graphs
    assert "CUDA graphs" in planned().summary()
    for without in (
        {"graphs": "off"},
        {"fused": False},
        {"width": 4},
        {"shards": 2, "devices": 2},
        {"optimizer": "lion_8bit"},
        {"optimizer": lambda parameters: None},
        {"device": "cpu"},
        {"head": "host"},
        {"tokens": 8192},
    ):
        other = planned(**without)
        assert not other.setting.graphs, without
        assert "CUDA graphs" not in other.summary()


def test_graphs_change_no_other_choice_and_stay_out_where_memory_is_short() -> None:
    choices: dict[str, Any] = {"checkpointing": "auto", "weights": "auto", "tokens": "auto", "generate": True}
    for memory in (5, 6, 8, 10, 12, 16, 24, 80):
        with_graphs, without = (planned(memory, graphs=how, **choices) for how in ("auto", "off"))
        assert replace(with_graphs.setting, graphs=False) == without.setting
        assert with_graphs.micro_batch_tokens == without.micro_batch_tokens
        if with_graphs.setting.graphs:
            assert with_graphs.plan.peak <= memory * GIB
    peak = planned().plan.peak / GIB
    assert not planned(peak + 0.2).setting.graphs  # the graphs themselves lie outside of what torch allocates
    assert planned(peak + 0.3).setting.graphs


@pytest.mark.parametrize("checkpointing", ["none", "offload", 16])
def test_the_memory_of_graphs_is_that_of_a_padded_pass_and_stays_in_evaluations(checkpointing: Any) -> None:
    setting = Setting(
        checkpointing=checkpointing, tokens=1990, loss_rows=300, rows=4, prompt_tokens=900, new_tokens=48
    )
    phases = plan(LLAMA_8B, replace(setting, graphs=True)).phases
    without = plan(LLAMA_8B, setting).phases
    padded = plan(LLAMA_8B, replace(setting, tokens=2048, loss_rows=384)).phases["fit"]
    assert phases["load"] == without["load"]
    assert phases["fit"] == {**padded, "CUDA graphs": GRAPHS_BYTES}
    held = padded["activations"] + padded["logits"] + padded["dequantized group"] + GRAPHS_BYTES
    for name in ("validate", "generate"):
        assert phases[name] == {**without[name], "CUDA graphs": held}


def test_the_texts_of_an_evaluation_fill_the_memory_or_what_the_user_gives() -> None:
    auto: dict[str, Any] = {"eval_batch_size": "auto"}
    all_rows = planned(80, graphs="off", generate=True, data=auto)
    assert all_rows.setting.cache_tokens == 40 * 384  # all 40 questions, 372 tokens each in blocks of 16
    small = planned(10, graphs="off", generate=True, data=auto)
    limited = planned(80, graphs="off", generate=True, data={**auto, "eval_memory_gib": 7.5})
    assert 384 < limited.setting.cache_tokens < all_rows.setting.cache_tokens
    assert limited.plan.total("generate") <= 7.5 * GIB < all_rows.plan.total("generate")
    assert limited.plan.phases["fit"] == all_rows.plan.phases["fit"]
    assert small.plan.total("generate") <= 10 * GIB
    # with a number of rows too; and at least one text
    numbers = [
        planned(80, graphs="off", generate=True, data={"eval_memory_gib": gib}).setting
        for gib in (1, 6.6, 60)
    ]
    assert [each.rows for each in numbers] == [1, 5, 12]
    assert numbers[0].cache_tokens == 384
    assert numbers[0].cache_tokens < numbers[1].cache_tokens < numbers[2].cache_tokens
    assert numbers[2].cache_tokens == planned(80, graphs="off", generate=True).setting.cache_tokens
