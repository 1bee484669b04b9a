"""The Triton kernel for 4-bit integers gives what `Int4State.dequantize` gives; on a GPU, or in the interpreter."""

import os

import pytest
import torch

from medqlora.models.int4 import Int4State

if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip(
        "no GPU: with Triton installed, TRITON_INTERPRET=1 runs its kernels here", allow_module_level=True
    )
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
#: the interpreter of Triton 3.9 truncates to bfloat16, where a GPU rounds
DTYPES = [torch.float16, torch.bfloat16] if torch.cuda.is_available() else [torch.float16]


def random_state(rows: int, inputs: int, size: int, *, ordered: bool) -> tuple[torch.Tensor, Int4State]:
    count = inputs // size
    packed = torch.randint(0, 256, (rows, inputs // 2), dtype=torch.uint8)
    groups = None if ordered else (torch.arange(inputs, dtype=torch.int32) // size)[torch.randperm(inputs)]
    scales, zeros = torch.rand(rows, count).half(), torch.randint(0, 16, (rows, count), dtype=torch.uint8)
    return packed.to(DEVICE).view(-1, 1), Int4State(scales, zeros, groups, inputs).to(DEVICE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ordered", [(True,), (False,), (True, True, True), (False, True)])
def test_one_launch_fills_the_matrices_of_a_group(ordered: tuple[bool, ...], dtype: torch.dtype) -> None:
    from medqlora.fused.kernels.triton_int4 import prepare

    rows, inputs = (24, 40, 8)[: len(ordered)], 192
    pairs = [
        random_state(count, inputs, size, ordered=each)
        for count, size, each in zip(rows, (32, 64, 192), ordered, strict=False)
    ]
    out = torch.full((sum(rows), inputs + 64), 7.0, dtype=dtype, device=DEVICE)
    prepare(pairs)(out[:, :inputs])
    expected = torch.cat([state.dequantize(packed, dtype) for packed, state in pairs])
    assert torch.equal(out[:, :inputs], expected)
    assert bool((out[:, inputs:] == 7).all())
