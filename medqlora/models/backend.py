"""The interface of a model backend."""

import inspect
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from medqlora.config.lora import LoRAOptions
from medqlora.utils.types import Tokenizer

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig

    from medqlora.data.encoding.image_slots import ImageReader
    from medqlora.models.decoder import Decoder


class Backend(ABC):
    """Loads a quantized base model with LoRA adapters. A new backend is one file with one subclass.

    A constructor takes plain values, which are the command line's options, keeps each under its own name, and reads no
    file. A subclass may list them itself, or inherit from a dataclass of options, as those of this project do.
    """

    #: the base model's name on the Hub or its folder, as the user gave it
    base: str
    #: whether the base can be sharded over GPUs (`models.sharded`): `load` works on the host too
    sharable: bool = False

    def options(self) -> dict[str, object]:
        """The constructor's arguments: an equal backend can be built from them."""
        return {name: getattr(self, name) for name in self.option_names()}

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """The names of the constructor's arguments."""
        return tuple(inspect.signature(cls).parameters)

    @abstractmethod
    def check(self, lora: LoRAOptions, *, device: "torch.device", precision: str) -> None:
        """Checks options, base and adapters before any weight is loaded.

        Raises:
            InputError: names the option, the value and the fix.
        """

    def check_files(self) -> None:  # noqa: B027  # optional
        """Checks by their headers that the base's local weight files are present and complete.

        It is apart from `check`, which needs the configuration alone.

        Raises:
            InputError: names the file and the fix.
        """

    def check_adapter(self, folder: str, option: str = "--model.adapter") -> None:  # noqa: B027  # optional
        """Checks before a weight is loaded that every tensor of an adapter fits this base.

        `load` checks it again, so a backend without this early check is no less strict.

        Raises:
            InputError: says how many of the adapter's tensors fit, and why the others don't.
        """

    def remarks(self) -> tuple[str, ...]:
        """Notes for the user on how the base is read, a line each."""
        return ()

    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """The base's tokenizer.

        Raises:
            InputError: it can't be loaded.
        """

    def images(self) -> "ImageReader | None":
        """Reads the images of questions; None for a base that reads text alone.

        Raises:
            InputError: the base's image processor can't be loaded.
        """
        return None

    def vision_parameters(self) -> int:
        """Weights of the vision tower and the projector, which stay in 16 bits; 0 for a base that reads text alone."""
        return 0

    @abstractmethod
    def config(self) -> "PretrainedConfig":
        """The base's transformers configuration, without its weights.

        Raises:
            InputError: it can't be loaded.
        """

    def positions(self) -> tuple[int | None, str]:
        """The largest number of tokens in an example (None: not known), and the name of what limits it."""
        config = self.config().get_text_config()
        return getattr(config, "max_position_embeddings", None), "the base's max_position_embeddings"

    @abstractmethod
    def identity(self) -> str:
        """A text that differs between any two bases; runs, checkpoints and adapters record it."""

    @abstractmethod
    def load(
        self,
        *,
        lora: LoRAOptions | None,
        adapter: str | None,
        device: "torch.device",
        dtype: "torch.dtype",
        seed: int,
    ) -> "nn.Module":
        """The quantized base on `device`.

        Args:
            lora: fresh adapters to train; None for none.
            adapter: an adapter's folder in PEFT's format to load instead; None for none.
            device: where every weight goes.
            dtype: type of the quantized layers' products and of all weights that aren't quantized. Adapters stay
                float32.
            seed: of the adapters' initialisation.

        Raises:
            InputError: the base or the adapter can't be loaded.
        """

    def reads_weights_once(self, *, lora: LoRAOptions | None, adapter: str | None) -> bool:
        """Whether `load` needs no packed weight again after it has set it: a sharded base then keeps only its part.

        Args:
            lora, adapter: as for `load`.
        """
        return False

    @abstractmethod
    def decoder(self, model: "nn.Module") -> "Decoder":
        """`model` as the training step and the scorer use it."""

    @abstractmethod
    def generating(self, model: "nn.Module") -> AbstractContextManager[None]:
        """While entered, `model` can generate; afterwards its training state is restored."""
