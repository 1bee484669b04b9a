"""The kernel of 8-bit AdamW rounds as bitsandbytes does; on a GPU, weights and states have the same bits."""

import numpy as np
import pytest
import torch
from torch import nn

from medqlora.models.quantization import import_bitsandbytes
from medqlora.training.adamw_8bit import FastAdamW8bit, same_bits, thresholds
from medqlora.training.optim import build_optimizer


def search(code: list[float], value: float, *, signed: bool) -> int:
    """The code of a value, as the binary search in bitsandbytes' kernel finds it (`quantize_2D`)."""
    pivot, above, below = 127, 255, 0
    lower, upper, found = -1.0 if signed else 0.0, 1.0, code[127]
    distance = 64
    while distance:
        if value > found:
            below, lower, pivot = pivot, found, pivot + distance
        else:
            above, upper, pivot = pivot, found, pivot - distance
        found = code[pivot]
        distance //= 2
    if value > found:
        return above if value > half(upper, found) else pivot
    return below if value < half(lower, found) else pivot


def half(a: float, b: float) -> float:
    """The middle of two numbers in float32."""
    return float((np.float32(a) + np.float32(b)) * np.float32(0.5))


@pytest.mark.parametrize("signed", [True, False])
def test_thresholds_round_every_value_as_the_search_does(signed: bool) -> None:
    code = import_bitsandbytes().functional.create_dynamic_map(signed=signed)
    limits = thresholds(code)
    middles = (code[1:] + code[:-1]) * 0.5
    special = torch.tensor([torch.nan, 0.0, -0.0, 2.0, -2.0])
    values = torch.cat((code, middles, middles.nextafter(code[1:]), middles.nextafter(code[:-1]), special))
    numbers = code.tolist()
    for value, found in zip(values.tolist(), (values[:, None] > limits).sum(1).tolist(), strict=True):
        assert found == search(numbers, value, signed=signed), value


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_steps_on_a_gpu_have_the_bits_of_bitsandbytes_own() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    assert same_bits(device)
    shapes = [(16, 4096), (3,), (14_336, 16), (129, 33)]
    starts = [torch.randn(shape, device=device) for shape in shapes]
    weights, expected = ([nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    named = [(f"layer.{number}", weight) for number, weight in enumerate(weights)]
    flat = build_optimizer("adamw_8bit", named, learning_rate=0.01, weight_decay=0.1)
    single = import_bitsandbytes().optim.AdamW8bit(expected, lr=0.01, weight_decay=0.1)
    for number in range(6):
        flat.zero_grad()
        for weight, other in zip(weights, expected, strict=True):
            gradient = torch.randn_like(other) * 10.0 ** (2 - 4 * number)
            gradient.view(-1)[:2] = torch.nan if number == 3 else 0.0
            weight.grad.add_(gradient)  # type: ignore[union-attr]
            other.grad = gradient
        flat.step()
        single.step()
    saved = flat.state_dict()["state"]
    for number, (weight, other) in enumerate(zip(weights, expected, strict=True)):
        assert torch.equal(weight, other)
        for key, value in single.state[other].items():
            assert torch.equal(torch.as_tensor(saved[f"layer.{number}"][key]), torch.as_tensor(value)), key


def test_other_optimizers_and_cpus_are_left_to_their_own_update() -> None:
    part = torch.zeros(4096)
    part.grad = torch.ones(4096)
    optimizers = import_bitsandbytes().optim
    for optimizer in (
        optimizers.AdamW8bit([part], lr=0.1),
        optimizers.Lion8bit([part], lr=0.1),
        torch.optim.AdamW([part], lr=0.1),
    ):
        assert not FastAdamW8bit(optimizer).update(optimizer.param_groups[0], part, 0, {"step": 0})
    assert not same_bits(torch.device("cpu"))
    assert not part.any()
