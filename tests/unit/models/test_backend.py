"""A backend is described by its constructor, and its room costs little to import."""

import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from medqlora.config import TinyLlamaOptions, TransformersOptions, UnslothOptions
from medqlora.errors import InputError
from medqlora.inference.loading import Trained, build_backend
from medqlora.models import Backend, Decoder, LoRA, TinyLlama, Transformers, Unsloth
from medqlora.utils.types import Tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Own(Backend):
    """A user's backend with a plain constructor."""

    def __init__(self, base: str, rank: int = 3) -> None:
        self.base = base
        self.rank = rank

    def check(self, lora: LoRA, *, device: torch.device, precision: str) -> None: ...

    def tokenizer(self) -> Tokenizer:
        raise NotImplementedError

    def config(self) -> "PretrainedConfig":
        raise NotImplementedError

    def identity(self) -> str:
        return self.base

    def load(self, **_: Any) -> nn.Module:
        raise NotImplementedError

    def decoder(self, model: nn.Module) -> Decoder:
        return Decoder(model)

    def generating(self, model: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()


def test_a_backend_with_a_plain_constructor_can_be_built_again_from_its_options() -> None:
    backend = Own("x", rank=5)
    assert Own.option_names() == ("base", "rank")
    assert backend.options() == {"base": "x", "rank": 5}
    assert vars(Own(**backend.options())) == vars(backend)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "given", "options"),
    [
        (Transformers, {"base": "x", "quantization": "fp4"}, TransformersOptions),
        (Unsloth, {"base": "x", "max_seq_length": 7}, UnslothOptions),
        (TinyLlama, {"seed": 3}, TinyLlamaOptions),
    ],
)
def test_our_backends_have_the_options_of_their_dataclass_and_keep_each_under_its_name(
    kind: type[Backend], given: dict[str, Any], options: type
) -> None:
    backend = kind(**given)
    assert backend.options() == vars(options(**given))
    assert all(getattr(backend, name) == value for name, value in backend.options().items())
    assert kind(**backend.options()).options() == backend.options()
    with pytest.raises(TypeError, match="no_such_option"):
        kind(**given, no_such_option=1)
    with pytest.raises(FrozenInstanceError):
        backend.quantization = "none"  # type: ignore[attr-defined]


def test_backends_and_adapter_folders_are_known_without_torch() -> None:
    code = (
        "import sys, medqlora.models.backend, medqlora.models.adapters\n"
        "heavy = {'torch', 'transformers', 'peft', 'bitsandbytes', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_base_for_a_backend_that_has_its_own_is_refused_in_one_line() -> None:
    trained = Trained(backend="TinyLlama", backend_options={"seed": 0})
    said = "--base other: the backend TinyLlama has a base model of its own: leave --base out"
    with pytest.raises(InputError) as error:
        build_backend(trained, base="other", backend=None, device=torch.device("cpu"))
    assert str(error.value) == said
    assert isinstance(build_backend(trained, base=None, backend=None, device=torch.device("cpu")), TinyLlama)
