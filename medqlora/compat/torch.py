"""Private parts of torch 2.11-2.13. Operators are bound at import: a call costs what torch's own costs."""

import torch
from torch import nn

# Operators over lists of tensors: one kernel launch for all. `torch.optim` is built on them; no public name exists.
#: adds each tensor of the second list to that of the first, in place
foreach_add_ = torch._foreach_add_
#: copies each tensor of the second list into that of the first, with a cast
foreach_copy_ = torch._foreach_copy_
#: multiplies each tensor of a list by a number
foreach_mul = torch._foreach_mul
#: multiplies each tensor of a list by a number, or by its own of a list of numbers, in place
foreach_mul_ = torch._foreach_mul_

#: a matrix product of half-precision operands, added to a float32 tensor in place; no public name takes `out` with it
addmm_out = torch.ops.aten.addmm.dtype_out

#: asserts a condition on the device ; Python's `assert` would wait for the device
assert_async = torch._assert_async

# Flash attention over examples of different lengths in one row. The public functions are nodes of autograd's graph;
# the fused layer has its own node and needs forward and backward apart.
flash_attention_forward = torch.ops.aten._flash_attention_forward
flash_attention_backward = torch.ops.aten._flash_attention_backward


def all_keys_match() -> nn.modules.module._IncompatibleKeys:
    """What `nn.Module.load_state_dict` returns where no key is missing and none is left over.

    torch 2.11-2.13 has no public name for the type that a module with its own `load_state_dict` has to return.
    """
    return nn.modules.module._IncompatibleKeys([], [])


def in_backward() -> bool:
    """Whether autograd's engine runs in this thread: a forward is then a recomputation by activation checkpointing.

    torch's own checkpointing and FSDP2 ask in the same way; no public name exists.
    """
    return bool(torch._C._current_graph_task_id() != -1)
