"""What a model backend is to the rest of the project."""

import inspect
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import asdict, fields
from typing import Any, ClassVar

import torch
from torch import nn

from medqlora.config.backends import TinyLlamaOptions, TransformersOptions, UnslothOptions
from medqlora.models.decoder import Decoder
from medqlora.models.lora import LoRA


class Backend(ABC):
    """Loads a 4-bit base with LoRA adapters. A new backend is a new file in this folder with one subclass.

    Constructors take plain values (they are the command-line help) and touch no file.
    """

    #: the dataclass of the constructor's options; None where the constructor lists them itself
    options_type: ClassVar[type[TransformersOptions | UnslothOptions | TinyLlamaOptions] | None] = None
    #: the constructor's values, of a class with `options_type`
    settings: TransformersOptions | UnslothOptions | TinyLlamaOptions
    #: the model's name on the Hub or a local folder, as the user gave it
    base: str
    #: whether a base that is loaded on the host may be spread over GPUs from there (`models.sharded`)
    sharable: bool = False

    def options(self) -> dict[str, Any]:
        """The constructor's values: with them the same backend can be made again."""
        if self.options_type is not None:
            return asdict(self.settings)
        return {name: getattr(self, name) for name in self.option_names()}

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """The names of the constructor's options."""
        if cls.options_type is not None:
            return tuple(field.name for field in fields(cls.options_type))
        return tuple(inspect.signature(cls).parameters)

    @abstractmethod
    def check(self, lora: LoRA, *, device: torch.device, precision: str) -> None:
        """Everything that can be known to be wrong before a weight is loaded.

        Raises:
            InputError: names the option, the value and the fix.
        """

    def check_files(self) -> None:  # noqa: B027  # may be left out
        """Whether the base's weight files on this machine are there and complete, by their headers.

        Apart from `check`, which can be asked of a configuration alone.

        Raises:
            InputError: one isn't; names the file and the fix.
        """

    def check_adapter(self, folder: str, option: str = "--model.adapter") -> None:  # noqa: B027  # may be left out
        """Whether every tensor of an adapter has its place in this base; before a weight is loaded.

        `load` checks it again, so that a backend without an early check is no less strict.

        Raises:
            InputError: it doesn't fit; says how many of its tensors do, and why not the others.
        """

    def remarks(self) -> tuple[str, ...]:
        """What a user has to know of how the base is read, a line each."""
        return ()

    @abstractmethod
    def tokenizer(self) -> Any:
        """The base's tokenizer (a transformers `PreTrainedTokenizerBase`).

        Raises:
            InputError: it can't be had.
        """

    @abstractmethod
    def config(self) -> Any:
        """The base's transformers configuration, without its weights.

        Raises:
            InputError: it can't be had.
        """

    def positions(self) -> tuple[int | None, str]:
        """How many tokens an example may have, None where that isn't known; and what says so."""
        config = self.config().get_text_config()
        return getattr(config, "max_position_embeddings", None), "the base's max_position_embeddings"

    @abstractmethod
    def identity(self) -> str:
        """What tells this base from every other; runs, checkpoints and adapters carry it."""

    @abstractmethod
    def load(
        self, *, lora: LoRA | None, adapter: str | None, device: torch.device, dtype: torch.dtype, seed: int
    ) -> nn.Module:
        """The quantized base on `device`.

        Args:
            lora: fresh adapters to train; None for none.
            adapter: a folder in PEFT's format to put on instead; None for none.
            device: where every weight goes.
            dtype: what the quantized layers compute in, and the type of all that isn't quantized but the
                adapters, which stay float32.
            seed: of the adapters' initialisation.

        Raises:
            InputError: the base or the adapter can't be loaded as asked.
        """

    @abstractmethod
    def decoder(self, model: nn.Module) -> Decoder:
        """`model` as the training step and the scorer use it."""

    @abstractmethod
    def generating(self, model: nn.Module) -> AbstractContextManager[None]:
        """While it is entered `model` can generate; afterwards it is as before, training included."""
