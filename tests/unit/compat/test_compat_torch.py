"""Private parts of torch compute what `medqlora.compat.torch` says."""

import pytest
import torch
from torch import nn

from medqlora.compat.torch import (
    all_keys_match,
    assert_async,
    flash_attention_backward,
    flash_attention_forward,
    foreach_add_,
    foreach_copy_,
    foreach_mul,
    foreach_mul_,
)


def test_operators_over_lists_compute_tensor_by_tensor() -> None:
    tensors, others = [torch.ones(2), torch.full((3,), 2.0)], [torch.ones(2), torch.ones(3)]
    assert [tensor[0].item() for tensor in foreach_mul(tensors, 3)] == [3, 6]
    foreach_add_(tensors, others)
    assert [tensor[0].item() for tensor in tensors] == [2, 3]
    foreach_mul_(tensors, [2.0, 10.0])
    assert [tensor[0].item() for tensor in tensors] == [4, 30]
    halves = [torch.zeros(2, dtype=torch.float16), torch.zeros(3, dtype=torch.float16)]
    foreach_copy_(halves, tensors)
    assert [tensor[0].item() for tensor in halves] == [4, 30]


def test_an_assertion_on_a_tensor_raises_its_message() -> None:
    assert_async(torch.tensor(True), "never shown")
    with pytest.raises(RuntimeError, match="rows out of order"):
        assert_async(torch.tensor(False), "rows out of order")


def test_flash_attention_takes_bounds_of_examples() -> None:
    forward = flash_attention_forward.default._schema
    backward = flash_attention_backward.default._schema
    names = [argument.name for argument in forward.arguments]
    assert names[:10] == [
        *("query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k"),
        *("dropout_p", "is_causal", "return_debug_mask"),
    ]
    assert len(forward.returns) == 5
    names = [argument.name for argument in backward.arguments]
    assert names[:10] == [
        *("grad_out", "query", "key", "value", "out", "logsumexp", "cum_seq_q", "cum_seq_k", "max_q", "max_k")
    ]
    assert len(backward.returns) == 3


def test_a_result_without_keys_is_what_torch_returns_where_all_match() -> None:
    module = nn.Linear(1, 1)
    assert module.load_state_dict(module.state_dict()) == all_keys_match()
    assert str(all_keys_match()) == "<All keys matched successfully>"
