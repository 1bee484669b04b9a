"""The fastest settings that fit a given memory: micro-batches, checkpointing, cached weights."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from medqlora.data.batching.loader import epoch_order
from medqlora.data.batching.packing import deal, split_by_budget
from medqlora.fused.decoding.cache import BLOCK, blocks_for
from medqlora.fused.decoding.decode_pass import fastest_rows
from medqlora.inference.decoding.layout import CACHE_SHARE, MOST_ROWS, Layout, given_tokens
from medqlora.planner.memory import Setting, plan, recomputed_layers
from medqlora.planner.shape import Shape

#: share of a GPU's memory left to its driver and to parts outside the plan
RESERVE = 0.06
#: budgets of a micro-batch that "auto" tries, beside a full step
_BUDGETS = (512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384)
#: fixed cost of a pass in tokens' time, and dequantization's part of it: fitted on an H200
_OVERHEAD, _DEQUANTIZATION = 1000, 300
#: the part of it that CUDA graphs save
_LAUNCHES = 360
#: a layer's recomputation relative to its forward and backward, and the factor of copies to host memory
_RECOMPUTATION, _COPIES = 0.4, 1.03
#: epochs whose steps are examined
_EPOCHS = 3


class Work(NamedTuple):
    """The examples of a run and how they are batched.

    Attributes:
        lengths: (prompt, completion) of each training example, in tokens.
        batch_size: examples per step.
        eval_batch_size: maximum number of answers generated together; 0 without generation.
        seed: of the examples' order.
        devices: processes that share each step.
        questions: tokens of the prompt of each question that an evaluation answers; none for those of the examples.
    """

    lengths: Sequence[tuple[int, int]]
    batch_size: int
    eval_batch_size: int
    seed: int
    devices: int = 1
    questions: Sequence[int] = ()

    def texts(self, new_tokens: int) -> list[int]:
        """Tokens of each question with an answer of so many tokens."""
        return [prompt + new_tokens for prompt in self.questions or [prompt for prompt, _ in self.lengths]]

    @property
    def longest(self) -> int:
        return max(map(sum, self.lengths))


def steps(work: Work, epochs: int = _EPOCHS) -> Iterator[list[int]]:
    """The indices of each step's examples in the first epochs, as `StepLoader` draws them."""
    for epoch in range(epochs):
        order = epoch_order(len(work.lengths), work.seed, epoch)
        for start in range(0, len(order), work.batch_size):
            yield order[start : start + work.batch_size]


def _shares(work: Work, sizes: Sequence[int]) -> list[list[int]]:
    """The result of `deal` for a step, without devices that have no example."""
    return deal(sizes, min(work.devices, len(sizes)))


def largest_micro_batch(work: Work, micro_batch_tokens: int) -> tuple[int, list[int]]:
    """Tokens of the largest packed micro-batch in the first epochs, and the indices of its examples."""
    largest: tuple[int, list[int]] = (0, [])
    for step in steps(work):
        sizes = [sum(work.lengths[index]) for index in step]
        for share in _shares(work, sizes):
            for group in split_by_budget([sizes[position] for position in share], micro_batch_tokens):
                positions = [share[index] for index in group]
                tokens = sum(sizes[position] for position in positions)
                if tokens > largest[0]:
                    largest = (tokens, [step[position] for position in positions])
    return largest


def imbalance(work: Work) -> float:
    """Tokens of the device with the most over the mean, in the first epochs; 1 for one device."""
    most = total = 0
    for step in steps(work):
        sizes = [sum(work.lengths[index]) for index in step]
        most += max(sum(sizes[position] for position in share) for share in _shares(work, sizes))
        total += sum(sizes)
    return most * work.devices / total


def with_budget(setting: Setting, work: Work, micro_batch_tokens: int) -> Setting:
    """`setting` with the largest batches under this budget, in training, scoring and generation."""
    tokens, examples = largest_micro_batch(work, micro_batch_tokens)
    prompt = max(prompt for prompt, _ in work.lengths)
    rows = max(1, min(work.eval_batch_size, micro_batch_tokens // prompt)) if work.eval_batch_size else 0
    cache = 0
    if setting.decodes and work.eval_batch_size:
        rows = work.eval_batch_size
        layout = Layout(rows, given_tokens(rows, micro_batch_tokens, setting.new_tokens))
        cache = BLOCK * layout.together(work.texts(setting.new_tokens))
    return replace(
        setting,
        tokens=tokens,
        loss_rows=sum(work.lengths[index][1] for index in examples),
        score_tokens=micro_batch_tokens,
        prompt_tokens=rows * prompt,
        rows=rows,
        cache_tokens=cache,
    )


def with_cache_in(
    shape: Shape,
    setting: Setting,
    work: Work,
    memory: int | None,
    *,
    rows: int | None,
    limit: int | None = None,
) -> Setting:
    """`setting` with the decode engine's cache as `cache_limits` chooses it.

    Args:
        shape: of the model.
        setting: with a cache for at least one text.
        work: of the run.
        memory: bytes that torch may allocate; None for any number.
        rows: most texts at once; None for as many as the memory holds.
        limit: bytes that an evaluation may fill; None for what is free.
    """
    needs = work.texts(setting.new_tokens)
    rest = plan(shape, replace(setting, cache_tokens=0)).total("generate")
    token = 2 * shape.layers * shape.kv_heads * shape.head_dim * setting.width
    tokens = BLOCK * sum(map(blocks_for, needs))
    if memory is not None:
        tokens = min(tokens, max(0, int(CACHE_SHARE * (memory - rest))) // token)
    if limit is not None:
        tokens = min(tokens, max(0, limit - rest) // token)
    if rows is not None:
        tokens = min(tokens, given_tokens(rows, setting.score_tokens, setting.new_tokens))
    layout = Layout(MOST_ROWS if rows is None else rows, tokens)
    most = layout.fitting(needs)
    count = most if setting.cached >= shape.layers else fastest_rows(most)
    if count < most:
        layout = Layout(count, tokens)
    return replace(
        setting,
        rows=count,
        prompt_tokens=setting.prompt_tokens // setting.rows * count,
        cache_tokens=BLOCK * layout.together(needs),
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
    """The fastest setting that fits.

    Args:
        shape: of the model.
        setting: the given settings; the chosen ones are replaced.
        work: of the run.
        memory: bytes that torch may allocate.
        micro_batch_tokens: a budget, or None to choose one.
        checkpointing: whether to choose it; fused engine only.
        weights: whether to choose cached weights; fused engine only.

    Returns:
        The budget and its setting. If nothing fits, the setting with the lowest peak.
    """
    budgets = _budgets(work, micro_batch_tokens)
    best: tuple[float, int, Setting] | None = None
    least: tuple[int, int, Setting] | None = None
    for budget in budgets:
        initial = with_budget(setting, work, budget)
        for choice in _choices(shape, initial, memory) if checkpointing else [initial.checkpointing]:
            candidate = replace(initial, checkpointing=choice)
            peak = plan(shape, candidate).peak
            if least is None or peak < least[0]:
                least = (peak, budget, candidate)
            if peak > memory:
                continue
            if weights:
                candidate = replace(candidate, cached=_most_cached(shape, candidate, memory))
            time = relative_time(shape, candidate)
            if best is None or time < best[0]:
                best = (time, budget, candidate)
    assert least is not None
    if best is None:
        return least[1:]
    _, budget, chosen = best
    if micro_batch_tokens is None and budget == budgets[-1]:
        # a full step fits one micro-batch; a larger budget makes evaluation faster
        for larger in (tokens for tokens in _BUDGETS if tokens > budget):
            candidate = with_budget(chosen, work, larger)
            if plan(shape, candidate).peak > memory:
                break
            budget, chosen = larger, candidate
    return budget, chosen


def _budgets(work: Work, micro_batch_tokens: int | None) -> list[int]:
    """The budgets to try: the given one, or those from the longest example up to a full step."""
    if micro_batch_tokens is not None:
        return [micro_batch_tokens]
    full, _ = largest_micro_batch(work, sum(map(sum, work.lengths)))
    longest = work.longest
    return sorted({tokens for tokens in (*_BUDGETS, full) if longest <= tokens <= full} | {longest})


def relative_time(shape: Shape, setting: Setting) -> float:
    """The time of a token in arbitrary units, to rank the settings of one engine."""
    recomputed = min(recomputed_layers(shape, setting), shape.layers) / shape.layers
    dequantized = 1 - min(setting.cached, shape.layers) / shape.layers
    overhead = _OVERHEAD - _DEQUANTIZATION + _DEQUANTIZATION * dequantized - _LAUNCHES * setting.graphs
    copies = _COPIES if setting.checkpointing == "offload" else 1.0
    return (1 + _RECOMPUTATION * recomputed) * (1 + overhead / setting.tokens) * copies


def largest_budgets(shape: Shape, setting: Setting, memory: int, longest: int) -> dict[str, int | None]:
    """Checkpointing → the most tokens of a micro-batch that fit; None if the longest example doesn't fit."""
    loss_share = setting.loss_rows / setting.tokens
    kinds: tuple[Literal["none", "full", "offload"], ...] = ("none", "full")
    if setting.engine == "fused":
        kinds = ("none", "full", "offload")
    largest: dict[str, int | None] = {}
    for kind in kinds:
        largest[kind] = None
        for tokens in range(256, 32769, 256):
            rows = round(loss_share * tokens)
            candidate = replace(
                setting, checkpointing=kind, tokens=tokens, score_tokens=tokens, loss_rows=rows, cached=0
            )
            if tokens >= longest and plan(shape, candidate).peak <= memory:
                largest[kind] = tokens
    return largest


def _choices(shape: Shape, setting: Setting, memory: int) -> list[Literal["none", "full", "offload"] | int]:
    """The fewest recomputed layers that fit, and offloading."""
    low, high = 0, shape.layers
    while low < high:
        middle = (low + high) // 2
        if plan(shape, replace(setting, checkpointing=middle)).peak <= memory:
            high = middle
        else:
            low = middle + 1
    return ["none" if low == 0 else "full" if low >= shape.layers - 1 else low, "offload"]


def _most_cached(shape: Shape, setting: Setting, memory: int) -> int:
    """All layers or none: a partial cache still needs the workspace of dequantization."""
    cached = replace(setting, cached=shape.layers)
    return shape.layers if plan(shape, cached).peak <= memory else 0
