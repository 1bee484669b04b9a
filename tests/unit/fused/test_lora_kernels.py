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


@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_launch_adds_the_parts_of_a_matrix_to_gradients(count: int) -> None:
    from medqlora.fused.kernels.adding import add_in_one_launch

    parts = torch.randn(count * 16, 100, device=DEVICE).split(16)
    targets = [torch.randn(16, 100, device=DEVICE) for _ in parts]
    wanted = [target + 2.5 * part for target, part in zip(targets, parts, strict=True)]
    assert add_in_one_launch(targets, parts, [2.5] * count)
    for found, right in zip(targets, wanted, strict=True):
        assert torch.allclose(found, right, rtol=1e-6, atol=1e-6)
    if count > 1:
        assert not add_in_one_launch(targets, parts, [1.0, 2.0, 2.0][:count])
