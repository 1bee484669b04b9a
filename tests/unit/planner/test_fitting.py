"""What is chosen fits, and nothing that fits would be faster."""

from dataclasses import replace
from typing import Any

import pytest

from medqlora.data.batching.loader import StepLoader
from medqlora.planner import Setting, Shape, Work, fill, plan, with_budget
from medqlora.planner.fitting import (
    imbalance,
    largest_budgets,
    largest_micro_batch,
    relative_time,
    with_cache_in,
)
from medqlora.planner.memory import GIB
from medqlora.profiling.lengths import random_examples
from medqlora.profiling.shapes import SHAPES
from medqlora.records import Encoded

LLAMA = SHAPES["llama-3-8b"][1]


@pytest.fixture(scope="module")
def shape() -> Shape:
    from transformers import AutoConfig

    fields = {key: value for key, value in LLAMA.items() if key != "model_type"}
    return Shape.of(AutoConfig.for_model("llama", **fields))


@pytest.fixture(scope="module")
def work() -> Work:
    examples = random_examples(vocab_size=2, longest=10_000)
    return Work([(len(one.prompt), len(one.completion)) for one in examples], 8, 2, 0)


@pytest.mark.parametrize("budget", [700, 1536, 4096, 100_000])
def test_the_largest_micro_batch_is_one_that_the_loader_draws(work: Work, budget: int) -> None:
    examples = [
        Encoded(str(number), list(range(prompt)), list(range(completion)))
        for number, (prompt, completion) in enumerate(work.lengths)
    ]
    loader = StepLoader(examples, work.batch_size, budget, seed=work.seed)
    drawn = max(micro.input_ids.numel() for _ in range(3) for step in loader for micro in step.micro_batches)
    tokens, indices = largest_micro_batch(work, budget)
    assert tokens == drawn == sum(sum(work.lengths[index]) for index in indices)


@pytest.mark.parametrize("gib", [4.5, 6.5, 7, 8, 10, 12, 16, 24, 40, 80, 140])
def test_the_choice_fits_and_no_other_that_fits_is_faster(gib: float, shape: Shape, work: Work) -> None:
    memory = int(gib * GIB)
    given = Setting(new_tokens=48)
    budget, chosen = fill(
        shape, given, work, memory, micro_batch_tokens=None, checkpointing=True, weights=True
    )
    peak = plan(shape, chosen).peak
    others = [
        replace(with_budget(given, work, tokens), checkpointing=kept, cached=cached)
        for tokens in (768, 1024, 1536, 2048, 3072, 4096, 8192)
        for kept in ("none", "full", "offload", 4, 8, 16, 24)
        for cached in (0, 32)
    ]
    fitting: list[Any] = [one for one in others if plan(shape, one).peak <= memory]
    if not fitting:  # even the least is too much: it is taken all the same
        assert peak > memory
        assert peak <= min(plan(shape, one).peak for one in others)
        return
    assert peak <= memory
    assert relative_time(shape, chosen) <= min(relative_time(shape, one) for one in fitting) + 1e-9
    assert with_budget(chosen, work, budget).tokens == chosen.tokens


@pytest.mark.parametrize("devices", [1, 2, 4, 16])
def test_devices_share_a_step_as_the_loaders_deal_it_out(work: Work, devices: int) -> None:
    shared = work._replace(devices=devices)
    examples = [
        Encoded(str(number), list(range(prompt)), list(range(completion)))
        for number, (prompt, completion) in enumerate(work.lengths)
    ]
    loaders = [
        StepLoader(examples, work.batch_size, 2048, seed=work.seed, rank=rank, world_size=devices)
        for rank in range(devices)
    ]
    epochs = [[list(loader) for _ in range(3)] for loader in loaders]
    largest = max(
        micro.input_ids.numel()
        for steps in epochs
        for epoch in steps
        for one in epoch
        for micro in one.micro_batches
    )
    assert largest_micro_batch(shared, 2048)[0] == largest
    assert imbalance(shared) >= 1
    flat = [one for epoch in epochs[0] for one in epoch]
    waited = sum(one.imbalance * one.all_tokens for one in flat) / sum(one.all_tokens for one in flat)
    assert imbalance(shared) == pytest.approx(waited)
    for ranks in zip(*(steps[0] for steps in epochs), strict=True):
        assert sum(one.tokens for one in ranks) == ranks[0].all_tokens


def test_what_is_given_is_kept(shape: Shape, work: Work) -> None:
    given = Setting(checkpointing="full", cached=0)
    budget, chosen = fill(
        shape, given, work, 100 * GIB, micro_batch_tokens=1000, checkpointing=False, weights=False
    )
    assert (budget, chosen.checkpointing, chosen.cached) == (1000, "full", 0)


def test_host_memory_takes_the_embeddings_and_the_heads_bytes(shape: Shape) -> None:
    given = Setting()
    held = [
        plan(shape, replace(given, embedding=embedding, head=head)).total("load")  # type: ignore[arg-type]
        for embedding, head in [("device", "device"), ("host", "device"), ("host", "host")]
    ]
    assert held[0] - held[1] == held[1] - held[2] == 128256 * 4096 * 2
    tied = replace(shape, tied=True)
    alone = plan(tied, replace(given, embedding="host")).total("load")
    assert alone == plan(tied, given).total("load")  # one weight, and the head still needs it
    assert plan(tied, replace(given, embedding="host", head="host")).total("load") < alone


def test_the_most_tokens_are_the_most_that_fit(shape: Shape, work: Work) -> None:
    setting, memory = with_budget(Setting(), work, 2048), 9 * GIB
    for kind, tokens in largest_budgets(shape, setting, memory, work.longest).items():
        if tokens is None:
            continue
        share = setting.loss_rows / setting.tokens

        def peak(count: int, kind: Any = kind, share: float = share) -> int:
            rows = round(share * count)
            tried = replace(
                setting, checkpointing=kind, tokens=count, score_tokens=count, loss_rows=rows, cached=0
            )
            return plan(shape, tried).peak

        assert peak(tokens) <= memory < peak(tokens + 256)


def test_answers_are_written_as_many_at_once_as_the_budget_holds_of_the_longest_prompt() -> None:
    work = Work([(100, 50), (300, 20)], batch_size=2, eval_batch_size=16, seed=0)
    for budget, rows in ((1000, 3), (899, 2), (299, 1), (10_000, 16)):
        made = with_budget(Setting(engine="native"), work, budget)
        assert (made.rows, made.prompt_tokens) == (rows, 300 * rows)
    fused = with_budget(Setting(decodes=True, new_tokens=48), work, 1000)
    assert (fused.rows, fused.prompt_tokens) == (16, 300 * 16)  # its cache has a limit of its own
    assert fused.cache_tokens == 160 + 352  # both texts, in blocks of 16
    many = with_budget(Setting(decodes=True, new_tokens=48), work._replace(lengths=work.lengths * 50), 1000)
    assert many.cache_tokens == 2 * 1000 + 16 * 48
    few = with_budget(Setting(decodes=True, new_tokens=48), work._replace(questions=[100]), 1000)
    assert few.cache_tokens == 160  # of the validation questions, where they are known
    assert with_budget(Setting(), work, 10_000).loss_rows == 50 + 20


@pytest.mark.parametrize("rows", [None, 32])
def test_a_cache_in_a_given_memory_leaves_what_the_rest_needs(shape: Shape, rows: int | None) -> None:
    work = Work([(300, 50), (800, 20)] * 200, batch_size=8, eval_batch_size=1, seed=0)
    setting = with_budget(Setting(decodes=True, new_tokens=64), work, 2048)
    caches, counts = [], []
    for gib in (6, 8, 16, 24):
        made = with_cache_in(shape, setting, work, gib * GIB, rows=rows)
        limited = with_cache_in(shape, setting, work, 80 * GIB, rows=rows, limit=gib * GIB)
        caches.append(made.cache_tokens)
        counts.append(made.rows)
        assert (
            made.cache_tokens <= limited.cache_tokens
        )  # a limit is used up, of all memory a share stays free
        for each in (made, limited):
            least = 864  # the longest text alone
            assert plan(shape, each).total("generate") <= gib * GIB or each.cache_tokens == least
    assert caches == sorted(caches)
    assert caches[0] < caches[1]
    if rows:
        assert caches[-1] == 2 * 2048 + 32 * 64  # as without a limit
    else:
        assert counts[2] == 64  # NF4: more rows are faster from three times as many on
        assert counts[3] > 192
