"""All trained weights in one buffer and their gradients in another, so that one kernel launch treats all of them.

Norm, clipping, overflow check and update then are a few operations on the device, instead of some for each of LoRA's
hundreds of tensors, and the processes exchange one message a step.
"""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypedDict, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from medqlora.errors import InputError
from medqlora.training.adamw_8bit import BLOCK, FastAdamW8bit

#: bitsandbytes keeps the state of smaller tensors in 32 bits
LEAST_8BIT = 4096


class FlatWeights:
    """Moves parameters and their gradients into two float32 buffers; they become views of the buffers.

    Args:
        named: (name, parameter), all float32 on one device.

    Attributes:
        weights, gradients: [N] float32, with zeros between some weights.
        message: the gradients followed by `tail` [256], where processes add other values to a message.
        parts: tensors for an elementwise optimizer: all large weights as one, and each weight of fewer than 4,096
            values alone, since bitsandbytes treats those differently. Views of `weights`; their `grad` are views of
            `gradients`.
        places: name → (parameter, start in `weights`).
        in_parts: name → (index in `parts`, start there).
    """

    def __init__(self, named: Sequence[tuple[str, nn.Parameter]]) -> None:
        small = [(name, parameter) for name, parameter in named if parameter.numel() < LEAST_8BIT]
        large = [(name, parameter) for name, parameter in named if parameter.numel() >= LEAST_8BIT]
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
        self.in_parts: dict[str, tuple[int, int]] = {}
        for number, (name, (_, start)) in enumerate(self.places.items()):
            index = min(number, len(spans))
            self.in_parts[name] = (index, start - starts[index])

    def attach(self) -> None:
        """Makes every parameter's gradient a view of the buffer again, if something has replaced it."""
        begin, size = self.gradients.data_ptr(), self.gradients.element_size()
        for parameter, start in self.places.values():
            if parameter.grad is None or parameter.grad.data_ptr() != begin + start * size:
                parameter.grad = _at(self.gradients, parameter, start)


class _UpdatesParts(Protocol):
    """The part of bitsandbytes' optimizers that updates one tensor."""

    is_paged: bool

    def init_state(self, group: dict[str, object], part: Tensor, group_index: int, index: int) -> None: ...

    def update_step(self, group: dict[str, object], part: Tensor, group_index: int, index: int) -> None: ...


class SavedState(TypedDict):
    """State of a `FlatOptimizer`: by parameter name, and the groups without their parameters."""

    state: dict[str, dict[str, object]]
    param_groups: list[dict[str, object]]


class FlatOptimizer(Optimizer):
    """An elementwise optimizer on `FlatWeights`, whose state is saved per parameter name.

    The saved state equals that of the same optimizer on the separate parameters.

    Args:
        weights: the optimized weights.
        build: makes the optimizer of the given parts; it has to treat each value, or each block of 256 values, by
            itself (https://arxiv.org/abs/2110.02861).
    """

    def __init__(self, weights: FlatWeights, build: Callable[[list[Tensor]], Optimizer]) -> None:
        self.flat = weights
        self.inner = build(weights.parts)
        super().__init__(weights.parts, self.inner.defaults)
        # shared with the inner optimizer: a schedule and a scaler change them
        self.param_groups = self.inner.param_groups
        self.state = self.inner.state
        #: bitsandbytes' optimizer, which this class calls part by part; None for another
        self._by_part = cast(_UpdatesParts, self.inner) if hasattr(self.inner, "update_step") else None
        self._fast = FastAdamW8bit(self.inner)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        inner = self._by_part
        if inner is None or inner.is_paged:
            return self.inner.step(closure)
        loss = None
        if closure is not None:  # Lightning's, which unscales and clips
            with torch.enable_grad():
                loss = closure()
        # the loop of bitsandbytes' own `step`, without its device sync after every tensor
        (group,) = self.param_groups
        for index, part in enumerate(self.flat.parts):
            if part not in self.state:
                self._begin(part, index)
            if not self._fast.update(group, part, index, self.state[part]):
                inner.update_step(group, part, 0, index)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Fills the gradients with zeros; they stay in their buffer."""
        self.flat.gradients.zero_()
        self.flat.attach()

    def state_dict(self) -> dict[str, object]:
        """`state` by parameter name, in the parameters' shapes, and the groups without their parameters."""
        state: dict[str, dict[str, object]] = {}
        for name, (parameter, _) in self.flat.places.items():
            index, start = self.flat.in_parts[name]
            part = self.flat.parts[index]
            state[name] = {
                key: _cut(key, value, parameter, start) for key, value in self.state.get(part, {}).items()
            }
        groups = [
            {key: value for key, value in group.items() if key != "params"} for group in self.param_groups
        ]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: SavedState) -> None:  # type: ignore[override]
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
                continue  # from before the first step
            index, start = self.flat.in_parts[name]
            part = self.flat.parts[index]
            if part not in self.state:
                self._begin(part, index)
            for key, value in saved[name].items():
                _paste(self.state[part], part, parameter, start, key, value)

    def _begin(self, part: Tensor, index: int) -> None:
        if self._by_part is not None:  # a paged state is allocated by bitsandbytes
            self._by_part.init_state(self.param_groups[0], part, 0, index)
        else:
            self.state[part] = {}


def _at(buffer: Tensor, parameter: Tensor, start: int) -> Tensor:
    return buffer[start : start + parameter.numel()].view(parameter.shape)


def _layout(key: str, value: Tensor) -> Literal["values", "blocks", "single"]:
    """Whether a state tensor has an entry for each weight, for each block of weights, or neither.

    Decided by bitsandbytes' names: a weight of 65,536 values has as many blocks as a quantization map has entries.
    """
    if value.dim() == 0 or key.startswith("qmap"):
        return "single"
    return "blocks" if key.startswith("absmax") else "values"


def _cut(key: str, value: object, parameter: Tensor, start: int) -> object:
    """A parameter's share of the state of its part."""
    if not isinstance(value, Tensor):
        return value
    layout = _layout(key, value)
    if layout == "values":
        return value.view(-1)[start : start + parameter.numel()].clone().view(parameter.shape)
    if layout == "blocks":
        begin = start // BLOCK
        return value[begin : begin + -(-parameter.numel() // BLOCK)].clone()
    return value.clone()


def _paste(
    state: dict[str, object], part: Tensor, parameter: Tensor, start: int, key: str, value: object
) -> None:
    """Copies a parameter's share, as `_cut` gives it, into the state of its part."""
    own = state.get(key)
    if not isinstance(value, Tensor):
        state[key] = value
    elif _layout(key, value) == "values":
        if not isinstance(own, Tensor):
            own = state[key] = torch.zeros_like(part, dtype=value.dtype)
        own.view(-1)[start : start + parameter.numel()].copy_(value.view(-1))
    elif not isinstance(own, Tensor):
        state[key] = value.clone()
    elif _layout(key, value) == "blocks":
        begin = start // BLOCK
        own[begin : begin + value.numel()].copy_(value)
    else:
        own.copy_(value)
