"""Casts of the adapters' weights, whatever type those are in."""

import pytest
import torch
from torch import nn

from medqlora.fused.casts import Casts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scaling_rounds_once_whatever_type_the_weights_have(dtype: torch.dtype) -> None:
    """PEFT combines adapters of a 16-bit base into weights of 16 bits."""
    draw = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(8, 8, generator=draw).to(dtype)) for _ in range(2)]
    whole = torch.zeros(8, 16)
    Casts([(whole[:, :8], weights[0], 1.7), (whole[:, 8:], weights[1], 1.0)])()
    assert torch.equal(whole[:, :8], weights[0].detach().float() * 1.7)
    assert torch.equal(whole[:, 8:], weights[1].detach().float())
