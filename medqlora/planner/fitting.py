"""What fits a given memory, and of that the fastest: micro-batches, checkpointing, weights kept dequantized."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from medqlora.data.batching.packing import deal, split_by_budget
from medqlora.planner.memory import Setting, plan
from medqlora.planner.shape import Shape

#: of a GPU's memory, what is left to its driver and to what the plan doesn't see
RESERVE = 0.06
#: budgets of a micro-batch that "auto" tries, beside a whole step
_BUDGETS = (512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384)
#: tokens whose time a pass takes beside its products, and what of it is dequantization: fitted on an H200
_OVERHEAD, _DEQUANTIZATION = 1000, 300
#: a layer that runs again adds this share of its forward and backward; copies to the host take a little more
_AGAIN, _COPIES = 0.4, 1.03
#: epochs whose steps are looked at
_EPOCHS = 3


class Work(NamedTuple):
    """What goes through the model.

    Attributes:
        lengths: (prompt, completion) of each training example, in tokens.
        batch_size: examples a step.
        eval_batch_size: answers written at once, at most; 0 where none are.
        seed: of the examples' order.
        devices: processes that share each step.
    """

    lengths: Sequence[tuple[int, int]]
    batch_size: int
    eval_batch_size: int
    seed: int
    devices: int = 1

    @property
    def longest(self) -> int:
        return max(map(sum, self.lengths))


def steps(work: Work, epochs: int = _EPOCHS) -> Iterator[list[int]]:
    """The examples of each step of the first epochs, as `data.loader.StepLoader` draws them."""
    for epoch in range(epochs):
        order = list(range(len(work.lengths)))
        random.Random(f"{work.seed}/{epoch}").shuffle(order)
        for start in range(0, len(order), work.batch_size):
            yield order[start : start + work.batch_size]


def _shares(work: Work, sizes: Sequence[int]) -> list[list[int]]:
    """As `deal` gives a step's examples to the devices, without those that get none."""
    return deal(sizes, min(work.devices, len(sizes)))


def largest_micro_batch(work: Work, micro_batch_tokens: int) -> tuple[int, list[int]]:
    """Tokens of the largest packed micro-batch in the first epochs, and its examples."""
    largest: tuple[int, list[int]] = (0, [])
    for step in steps(work):
        sizes = [sum(work.lengths[index]) for index in step]
        for share in _shares(work, sizes):
            for group in split_by_budget([sizes[place] for place in share], micro_batch_tokens):
                places = [share[number] for number in group]
                tokens = sum(sizes[place] for place in places)
                if tokens > largest[0]:
                    largest = (tokens, [step[place] for place in places])
    return largest


def imbalance(work: Work) -> float:
    """Tokens of the fullest device over the mean, over the first epochs; 1 for one device."""
    fullest = total = 0
    for step in steps(work):
        sizes = [sum(work.lengths[index]) for index in step]
        fullest += max(sum(sizes[place] for place in share) for share in _shares(work, sizes))
        total += sum(sizes)
    return fullest * work.devices / total


def with_budget(setting: Setting, work: Work, micro_batch_tokens: int) -> Setting:
    """`setting` with what is largest under this budget, in training, scoring and writing."""
    tokens, examples = largest_micro_batch(work, micro_batch_tokens)
    prompt = max(prompt for prompt, _ in work.lengths)
    at_once = max(1, min(work.eval_batch_size, micro_batch_tokens // prompt)) if work.eval_batch_size else 0
    return replace(
        setting,
        tokens=tokens,
        loss_rows=sum(work.lengths[index][1] for index in examples),
        score_tokens=micro_batch_tokens,
        prompt_tokens=at_once * prompt,
        rows=at_once,
    )


def fill(
    shape: Shape,
    setting: Setting,
    work: Work,
    memory: int,
    *,
    micro_batch_tokens: int | None,
    checkpointing: bool,
    weights: bool,
) -> tuple[int, Setting]:
    """The fastest that fits.

    Args:
        shape: of the model.
        setting: what is given; what may be chosen is replaced.
        work: what goes through it.
        memory: bytes that torch may allocate.
        micro_batch_tokens: a budget, or None to choose one.
        checkpointing: whether it may be chosen; of the fused engine alone.
        weights: whether all layers may keep theirs dequantized; of the fused engine alone.

    Returns:
        The budget and its setting. Where nothing fits, what takes the least.
    """
    longest = work.longest
    budgets: list[int]
    if micro_batch_tokens is not None:
        budgets = [micro_batch_tokens]
    else:
        whole, _ = largest_micro_batch(work, sum(map(sum, work.lengths)))
        budgets = sorted({one for one in (*_BUDGETS, whole) if longest <= one <= whole} | {longest})
    best: tuple[float, int, Setting] | None = None
    least: tuple[int, int, Setting] | None = None
    for budget in budgets:
        begun = with_budget(setting, work, budget)
        for kept in _kinds(shape, begun, memory) if checkpointing else [begun.checkpointing]:
            tried = replace(begun, checkpointing=kept)
            peak = plan(shape, tried).peak
            if least is None or peak < least[0]:
                least = (peak, budget, tried)
            if peak > memory:
                continue
            if weights:
                tried = replace(tried, cached=_most_cached(shape, tried, memory))
            time = relative_time(shape, tried)
            if best is None or time < best[0]:
                best = (time, budget, tried)
    assert least is not None
    if best is None:
        return least[1:]
    _, budget, chosen = best
    if micro_batch_tokens is None and budget == budgets[-1]:
        # a whole step goes through at once: what more there is makes evaluation faster
        for larger in (one for one in _BUDGETS if one > budget):
            tried = with_budget(chosen, work, larger)
            if plan(shape, tried).peak > memory:
                break
            budget, chosen = larger, tried
    return budget, chosen


def relative_time(shape: Shape, setting: Setting) -> float:
    """What a token takes, in units of nothing: to rank settings of one engine by."""
    kept = setting.checkpointing
    again = {"none": 0, "full": shape.layers, "offload": shape.layers}.get(str(kept), kept)
    share = min(int(again), shape.layers) / shape.layers
    dequantized = 1 - min(setting.cached, shape.layers) / shape.layers
    overhead = _OVERHEAD - _DEQUANTIZATION + _DEQUANTIZATION * dequantized
    copies = _COPIES if kept == "offload" else 1.0
    return (1 + _AGAIN * share) * (1 + overhead / setting.tokens) * copies


def largest_budgets(shape: Shape, setting: Setting, memory: int, longest: int) -> dict[str, int | None]:
    """Checkpointing → the most tokens of a micro-batch that fit; None where not even the longest example does."""
    share = setting.loss_rows / setting.tokens
    kinds: tuple[Literal["none", "full", "offload"], ...] = ("none", "full")
    if setting.engine == "fused":
        kinds = ("none", "full", "offload")
    found: dict[str, int | None] = {}
    for kind in kinds:
        found[kind] = None
        for tokens in range(256, 32769, 256):
            rows = round(share * tokens)
            tried = replace(
                setting, checkpointing=kind, tokens=tokens, score_tokens=tokens, loss_rows=rows, cached=0
            )
            if tokens >= longest and plan(shape, tried).peak <= memory:
                found[kind] = tokens
    return found


def _kinds(shape: Shape, setting: Setting, memory: int) -> list[Literal["none", "full", "offload"] | int]:
    """The least checkpointing that fits, and offloading."""
    low, high = 0, shape.layers  # the least number of layers that compute again
    while low < high:
        middle = (low + high) // 2
        if plan(shape, replace(setting, checkpointing=middle)).peak <= memory:
            high = middle
        else:
            low = middle + 1
    return ["none" if low == 0 else "full" if low >= shape.layers - 1 else low, "offload"]


def _most_cached(shape: Shape, setting: Setting, memory: int) -> int:
    """All layers or none: keeping some leaves the workspace that dequantizing needs."""
    whole = replace(setting, cached=shape.layers)
    return shape.layers if plan(shape, whole).peak <= memory else 0
