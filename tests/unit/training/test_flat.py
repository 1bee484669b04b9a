"""One buffer for all weights changes how many launches a step takes, and no value."""

from typing import Any

import pytest
import torch
from torch import nn

from medqlora.errors import InputError
from medqlora.models.quantization import import_bitsandbytes
from medqlora.training.flat import FlatWeights
from medqlora.training.optim import build_optimizer

#: values: below and above what gets 8 bits; 65,536 has as many blocks as a quantization map has entries
SHAPES = [(16, 64), (3,), (16, 300), (65_536,), (129, 33), (1,)]
NAMES = ["adamw_8bit", "paged_adamw_8bit", "adamw"]


def parameters(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def named(weights: list[nn.Parameter]) -> list[tuple[str, nn.Parameter]]:
    return [(f"layer.{number}", weight) for number, weight in enumerate(weights)]


def one_by_one(name: str, weights: list[nn.Parameter]) -> Any:
    """The library's own optimizer on the parameters as they are."""
    optimizers = import_bitsandbytes().optim
    kinds = {
        "adamw": torch.optim.AdamW,
        "adamw_8bit": optimizers.AdamW8bit,
        "paged_adamw_8bit": optimizers.PagedAdamW8bit,
    }
    return kinds[name](weights, lr=0.01, weight_decay=0.1)


def steps(optimizer: Any, weights: list[nn.Parameter], count: int, seed: int = 7) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for weight in weights:
            gradient = torch.randn(weight.shape, generator=generator)
            if weight.grad is None:
                weight.grad = gradient
            else:
                weight.grad += gradient
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", NAMES)
def test_weights_and_state_are_bit_for_bit_those_of_the_parameters_one_by_one(name: Any) -> None:
    weights, expected = parameters(), parameters()
    flat = build_optimizer(name, named(weights), learning_rate=0.01, weight_decay=0.1)
    single = one_by_one(name, expected)
    steps(flat, weights, 5)
    steps(single, expected, 5)
    for weight, other in zip(weights, expected, strict=True):
        assert torch.equal(weight, other)
    saved = flat.state_dict()["state"]
    for number, other in enumerate(expected):
        own, theirs = saved[f"layer.{number}"], single.state[other]
        assert own.keys() == theirs.keys()
        for key, value in theirs.items():
            assert torch.equal(torch.as_tensor(own[key]), torch.as_tensor(value)), (number, key)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", NAMES)
def test_a_state_that_was_saved_and_loaded_goes_on_bit_for_bit(name: Any) -> None:
    straight, begun = parameters(), parameters()
    whole = build_optimizer(name, named(straight), learning_rate=0.01, weight_decay=0.1)
    first = build_optimizer(name, named(begun), learning_rate=0.01, weight_decay=0.1)
    steps(first, begun, 3)
    saved = first.state_dict()
    resumed = [nn.Parameter(weight.detach().clone()) for weight in begun]
    second = build_optimizer(name, named(resumed), learning_rate=0.5, weight_decay=0.0)
    steps(first, begun, 2, seed=1)  # what was saved doesn't change with what it was saved from
    second.load_state_dict(saved)
    steps(whole, straight, 3)
    steps(whole, straight, 2, seed=9)
    steps(second, resumed, 2, seed=9)
    for weight, other in zip(resumed, straight, strict=True):
        assert torch.equal(weight, other)


def test_parameters_and_gradients_stay_views_of_the_buffers() -> None:
    weights = parameters()
    flat = FlatWeights(named(weights))
    for before, weight in zip(parameters(), weights, strict=True):
        assert torch.equal(before, weight)
    sum(weight.square().sum() for weight in weights).backward()  # type: ignore[union-attr]
    total = torch.stack([weight.detach().square().sum() for weight in weights]).sum()
    assert torch.allclose(flat.weights.square().sum(), total)
    assert torch.allclose(flat.gradients, 2 * flat.weights)
    optimizer = build_optimizer("adamw", named(weights), learning_rate=0.1, weight_decay=0.0)
    weights[0].grad = torch.ones_like(weights[0])  # what some code puts in its place is taken out again
    optimizer.zero_grad()
    for weight in weights:
        assert weight.grad is not None
        weight.grad += 1.0
    assert int(optimizer.flat.gradients.count_nonzero()) == sum(w.numel() for w in weights)  # type: ignore[attr-defined]


def test_the_clipped_norm_is_that_of_all_gradients() -> None:
    weights = parameters()
    optimizer = build_optimizer("adamw_8bit", named(weights), learning_rate=0.1, weight_decay=0.0)
    for number, weight in enumerate(weights):
        weight.grad += float(number)  # type: ignore[operator]
    expected = sum(number**2 * weight.numel() for number, weight in enumerate(weights)) ** 0.5
    norm = nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    assert norm.item() == pytest.approx(expected, rel=1e-6)
    after = sum(float(weight.grad.square().sum()) for weight in weights)  # type: ignore[union-attr]
    assert after == pytest.approx(1.0, rel=1e-4)


def test_the_state_of_other_parameters_is_refused() -> None:
    weights = parameters()
    optimizer = build_optimizer("adamw_8bit", named(weights), learning_rate=0.1, weight_decay=0.0)
    steps(optimizer, weights, 1)
    saved = optimizer.state_dict()
    other = build_optimizer("adamw_8bit", named(weights[:3]), learning_rate=0.1, weight_decay=0.0)
    with pytest.raises(InputError, match="optimizer state is not of these adapters"):
        other.load_state_dict(saved)
