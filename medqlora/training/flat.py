"""All trained weights in one buffer and their gradients in another: what is done to each, is done in a launch.

The norm, the clipping, the check for overflows and the optimizer's update then are a few operations on the
device instead of some for each of LoRA's hundreds of tensors, and a message between processes is one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from medqlora.errors import InputError

#: values that share a scale in bitsandbytes' 8-bit state: a weight begins at a multiple of it
BLOCK = 256
#: bitsandbytes keeps the state of a tensor with fewer values in 32 bits
LEAST_8BIT = 4096


class FlatWeights:
    """Moves parameters, and the gradients they will get, into two float32 buffers; they become views of them.

    Args:
        named: (name, parameter), all float32 on one device.

    Attributes:
        weights, gradients: [N] float32, with zeros between some weights.
        message: the gradients and behind them `tail` [256], room for what processes tell each other beside.
        parts: what an elementwise optimizer is given: the large weights as one tensor, and each of fewer than
            4,096 values for itself, as bitsandbytes treats those otherwise. Views of `weights`, their `grad` of
            `gradients`.
    """

    def __init__(self, named: Sequence[tuple[str, nn.Parameter]]) -> None:
        small = [one for one in named if one[1].numel() < LEAST_8BIT]
        large = [one for one in named if one[1].numel() >= LEAST_8BIT]
        #: name → (parameter, where it begins)
        self.places: dict[str, tuple[nn.Parameter, int]] = {}
        size = 0
        for name, parameter in (*small, *large):
            self.places[name] = (parameter, size)
            size += -(-parameter.numel() // BLOCK) * BLOCK
        device = named[0][1].device
        self.weights = torch.zeros(size, device=device)
        self.message = torch.zeros(size + BLOCK, device=device)
        self.gradients, self.tail = self.message[:size], self.message[size:]
        with torch.no_grad():
            for parameter, start in self.places.values():
                view = _at(self.weights, parameter, start)
                view.copy_(parameter)
                parameter.data = view
        self.attach()
        first = self.places[large[0][0]][1] if large else size
        spans = [(start, parameter.numel()) for parameter, start in self.places.values() if start < first]
        self.parts = [self.weights[start : start + count] for start, count in spans]
        starts = [start for start, _ in spans]
        if large:
            self.parts.append(self.weights[first:])
            starts.append(first)
        for part, start in zip(self.parts, starts, strict=True):
            part.grad = self.gradients[start : start + part.numel()]
        #: name → (index among `parts`, where it begins there)
        self.in_parts: dict[str, tuple[int, int]] = {}
        for number, (name, (_, start)) in enumerate(self.places.items()):
            index = min(number, len(spans))
            self.in_parts[name] = (index, start - starts[index])

    def attach(self) -> None:
        """Makes every parameter's gradient a view of the buffer, if something has put another in its place."""
        begin, size = self.gradients.data_ptr(), self.gradients.element_size()
        for parameter, start in self.places.values():
            if parameter.grad is None or parameter.grad.data_ptr() != begin + start * size:
                parameter.grad = _at(self.gradients, parameter, start)


class FlatOptimizer(Optimizer):
    """An elementwise optimizer on `FlatWeights`, whose state is saved for each parameter by its name.

    What is saved is what the same optimizer would save of the parameters one by one.

    Args:
        weights: what is optimized.
        build: makes the optimizer of the parts that it is given; it has to treat each value for itself, or
            in blocks of 256 (https://arxiv.org/abs/2110.02861).
    """

    def __init__(self, weights: FlatWeights, build: Callable[[list[Tensor]], Optimizer]) -> None:
        self.flat = weights
        self.inner = build(weights.parts)
        super().__init__(weights.parts, self.inner.defaults)
        # a schedule and a scaler change these: they are the inner optimizer's own
        self.param_groups = self.inner.param_groups
        self.state = self.inner.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        inner: Any = self.inner
        if not hasattr(inner, "update_step") or inner.is_paged or closure is not None:
            return inner.step(closure)
        # as bitsandbytes' own `step`, which waits for the device after every parameter: nothing here reads
        # what it writes, and the host would begin the next step late
        (group,) = inner.param_groups
        for index, part in enumerate(self.flat.parts):
            if part not in self.state:
                self._begin(part, index)
            inner.update_step(group, part, 0, index)
        return None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Fills the gradients with zeros; they stay where they are."""
        self.flat.gradients.zero_()
        self.flat.attach()

    def state_dict(self) -> dict[str, Any]:
        """`state` by parameter name, in the parameters' shapes, and the groups without their parameters."""
        state: dict[str, dict[str, Any]] = {}
        for name, (parameter, _) in self.flat.places.items():
            index, start = self.flat.in_parts[name]
            part = self.flat.parts[index]
            state[name] = {
                key: _cut(key, value, parameter, start) for key, value in self.state.get(part, {}).items()
            }
        groups = [{key: value for key, value in one.items() if key != "params"} for one in self.param_groups]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Raises InputError for the state of other parameters, or of another kind of optimizer."""
        saved, groups = state_dict["state"], state_dict["param_groups"]
        if saved.keys() != self.flat.places.keys() or len(groups) != len(self.param_groups):
            raise InputError(
                "--ckpt_path: its optimizer state is not of these adapters, or was not written with this "
                "--model.optimizer: pass the options that the run was begun with"
            )
        for own, other in zip(self.param_groups, groups, strict=True):
            own.update(other)
        for name, (parameter, _) in self.flat.places.items():
            if not saved[name]:
                continue  # of before the first step
            index, start = self.flat.in_parts[name]
            part = self.flat.parts[index]
            if part not in self.state:
                self._begin(part, index)
            for key, value in saved[name].items():
                self._paste(part, parameter, start, key, value)

    def _begin(self, part: Tensor, index: int) -> None:
        if hasattr(self.inner, "init_state"):  # bitsandbytes: a paged state is memory of its own kind
            self.inner.init_state(self.param_groups[0], part, 0, index)
        else:
            self.state[part] = {}

    def _paste(self, part: Tensor, parameter: Tensor, start: int, key: str, value: Any) -> None:
        state = self.state[part]
        kind = _kind(key, value)
        if kind == "whole":
            if key not in state:
                state[key] = torch.zeros_like(part, dtype=value.dtype)
            state[key].view(-1)[start : start + parameter.numel()].copy_(value.view(-1))
        elif kind == "blocks":
            begin = start // BLOCK
            state[key][begin : begin + value.numel()].copy_(value)
        elif isinstance(value, Tensor) and key in state and isinstance(state[key], Tensor):
            state[key].copy_(value)
        else:
            state[key] = value.clone() if isinstance(value, Tensor) else value


def _at(buffer: Tensor, parameter: Tensor, start: int) -> Tensor:
    return buffer[start : start + parameter.numel()].view(parameter.shape)


def _kind(key: str, value: Any) -> str:
    """Whether a state's value is one for each weight, one for each block of them, or neither.

    By bitsandbytes' names: a weight of 65,536 values has as many blocks as a quantization map has entries.
    """
    if not isinstance(value, Tensor) or value.dim() == 0 or key.startswith("qmap"):
        return "one"
    return "blocks" if key.startswith("absmax") else "whole"


def _cut(key: str, value: Any, parameter: Tensor, start: int) -> Any:
    """A parameter's share of its part's state."""
    kind = _kind(key, value)
    if kind == "whole":
        return value.view(-1)[start : start + parameter.numel()].clone().view(parameter.shape)
    if kind == "blocks":
        begin = start // BLOCK
        return value[begin : begin + -(-parameter.numel() // BLOCK)].clone()
    return value.clone() if isinstance(value, Tensor) else value
