"""The kernels of LoRA's casts and gradients give what products and casts one by one give; on a GPU or interpreted."""

import os

import pytest
import torch

if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip(
        "no GPU: with Triton installed, TRITON_INTERPRET=1 runs its kernels here", allow_module_level=True
    )
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def test_one_launch_casts_matrices_of_any_size_into_rows_that_lie_apart() -> None:
    from medqlora.fused.kernels.triton_casts import prepare

    whole = torch.full((340, 200), 7.0, dtype=torch.float16, device=DEVICE)
    targets = [whole[:16, :100], whole[16:40, 100:116], whole[40:, 16:32]]
    sources = [torch.randn(target.shape, device=DEVICE) for target in targets]
    factors = [2.0, 1.0, 0.3]
    prepare(list(zip(targets, sources, factors, strict=True)))()
    for target, source, factor in zip(targets, sources, factors, strict=True):
        assert torch.equal(target, (source * factor).half())
    assert (whole[16:40, :100] == 7).all()
    assert (whole[40:, 32:] == 7).all()


@pytest.mark.parametrize("rank", [16, 8])
def test_gradients_of_a_groups_adapters_are_added_to_those_before(rank: int) -> None:
    from medqlora.fused.kernels.triton_lora import add_own, add_shared

    torch.manual_seed(0)
    x, dy = torch.randn(150, 96, device=DEVICE), torch.randn(150, 256, device=DEVICE)
    low = torch.randn(150, 3 * rank + 4, device=DEVICE)[:, : 3 * rank]
    parts = low.split(rank, 1)
    of_a = [torch.randn(rank, 96, device=DEVICE) for _ in parts]
    of_b = [torch.randn(outputs, rank, device=DEVICE) for outputs in (128, 64, 64)]
    wanted = [held + 2 * part.t() @ x for held, part in zip(of_a, parts, strict=True)]
    wanted += [
        held + y.t() @ part for held, y, part in zip(of_b, dy.split((128, 64, 64), 1), parts, strict=True)
    ]
    add_shared(x, low, of_a, 2.0)
    add_own(dy, low, of_b, [0, 128, 192])
    tolerance = 5e-2 if DEVICE.type == "cuda" else 1e-4  # a GPU multiplies float32 in TF32
    for found, right in zip([*of_a, *of_b], wanted, strict=True):
        assert torch.allclose(found, right, rtol=tolerance, atol=tolerance)
