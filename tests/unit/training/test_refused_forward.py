"""A test forward tells a fault of the architecture from one of the device, and leaves the model as it was."""

import pytest
import torch

from medqlora.errors import InputError
from medqlora.training.checks.model import refusing_forward

LOST = getattr(torch, "AcceleratorError", torch.OutOfMemoryError)


@pytest.mark.parametrize("training", [True, False])
def test_an_error_of_the_architecture_is_a_line_and_the_model_gets_its_mode_back(training: bool) -> None:
    model = torch.nn.Linear(2, 2).train(training)
    modes = []

    def fail() -> None:
        modes.append(model.training)
        raise KeyError("x")

    said = r"the forward of Odd \(odd\) fails on an image \(KeyError: 'x'\)"
    with pytest.raises(InputError, match=said), refusing_forward(model, "Odd (odd) fails on an image"):
        fail()
    assert (modes, model.training) == ([False], training)


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, LOST])
def test_an_error_of_the_device_stays_one(kind: type[RuntimeError]) -> None:
    error = kind.__new__(kind)  # torch alone can give an AcceleratorError its arguments
    with pytest.raises(kind), refusing_forward(torch.nn.Linear(2, 2), "Odd (odd) fails"):
        raise error
