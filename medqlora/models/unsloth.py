"""The backend on Unsloth's patched models: less time and memory on one GPU; it needs a GPU.

Unsloth has to be imported before transformers, PEFT and Lightning, which it patches; the command line does
so when a configuration names this backend. https://github.com/unslothai/unsloth
"""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import nn

from medqlora.config.backends import UnslothOptions
from medqlora.config.lora import ALL_LINEAR, split_names
from medqlora.errors import InputError
from medqlora.models import hub
from medqlora.models.adapters import check_adapter_base
from medqlora.models.adapters.fit import load_adapter
from medqlora.models.backend import Backend
from medqlora.models.decoder import Decoder
from medqlora.models.finite import check_finite, watched_quantization
from medqlora.models.lora import SEVEN_PROJECTIONS, LoRA
from medqlora.models.quantization import check_quantization, settle
from medqlora.utils.cache import cache_folder
from medqlora.utils.types import Tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


class FastModel(Protocol):
    """The part of Unsloth's `FastLanguageModel` and `FastVisionModel` that is used."""

    def from_pretrained(self, **options: object) -> tuple["PreTrainedModel", object]: ...

    def get_peft_model(self, model: nn.Module, **options: object) -> nn.Module: ...

    def patch_peft_model(self, model: nn.Module, use_gradient_checkpointing: bool) -> nn.Module:
        """`FastLanguageModel` alone has it."""
        ...

    def post_patch_model(self, model: nn.Module, use_gradient_checkpointing: bool) -> nn.Module: ...

    def for_training(self, model: nn.Module) -> object: ...

    def for_inference(self, model: nn.Module) -> object: ...


#: backend -> what to use instead, for messages
_INSTEAD = {
    "Unsloth": "add --config configs/no_unsloth.yaml",
    "UnslothVision": "use medqlora.models.VisionLanguage",
}
_DEMOS = {"Unsloth": "configs/demo.yaml", "UnslothVision": "configs/demo_images.yaml"}


def import_unsloth(backend: str = "Unsloth") -> ModuleType:
    """Unsloth's module; its compiled code goes to the cache folder.

    Args:
        backend: the class of `medqlora.models` that needs it, for messages.

    Raises:
        InputError: Unsloth is not installed, or there is no GPU (its import fails without one).
    """
    if importlib.util.find_spec("unsloth") is None:
        raise InputError(
            f"--model.backend medqlora.models.{backend}: Unsloth is not installed: `pip install -e '.[unsloth]'`, or "
            f"{_INSTEAD[backend]}"
        )
    if not torch.cuda.is_available():
        raise InputError(
            f"--model.backend medqlora.models.{backend} needs a CUDA GPU and none is found: {_INSTEAD[backend]}, or "
            f"try {_DEMOS[backend]}, which runs on a CPU"
        )
    os.environ["UNSLOTH_COMPILE_LOCATION"] = compile_folder()
    import unsloth

    return unsloth


def compile_folder() -> str:
    """The folder for Unsloth's compiled code: that of `UNSLOTH_COMPILE_LOCATION`, else one for each process.

    Processes that Lightning starts inherit the first one's environment, and with it the first one's folder.
    """
    folder = os.environ.get("UNSLOTH_COMPILE_LOCATION")
    ours = cache_folder("unsloth_compiled")
    if folder is not None and Path(folder).parent != ours:
        return folder
    return str(cache_folder("unsloth_compiled", os.environ.get("LOCAL_RANK", "0")))


class Unsloth(UnslothOptions, Backend):
    __doc__ = UnslothOptions.__doc__

    #: the class of Unsloth that loads the model
    loader = "FastLanguageModel"

    def check(self, lora: LoRA, *, device: torch.device, precision: str) -> None:
        kind = type(self).__name__
        without = _INSTEAD.get(kind, _INSTEAD["Unsloth"])
        import_unsloth(kind if kind in _INSTEAD else "Unsloth")
        lora.check()
        if lora.init in ("eva", "loftq"):
            raise InputError(f"--model.lora.init {lora.init}: it was not tried with Unsloth: {without}")
        if lora.use_dora:
            raise InputError(f"--model.lora.use_dora: Unsloth has no DoRA: {without}")
        if device.type != "cuda":
            raise InputError("--trainer.accelerator: Unsloth runs on CUDA GPUs alone")
        if precision.startswith("32"):
            raise InputError(f"--trainer.precision {precision}: Unsloth takes bf16-mixed or 16-mixed")
        check_quantization(self.base, self.config(), self.quantization, ("nf4", "none"))
        self._check_targets(lora)

    def _check_targets(self, lora: LoRA) -> None:
        for name in _names(lora):
            if name not in SEVEN_PROJECTIONS:
                raise InputError(
                    f"--model.lora.target_modules: Unsloth has no '{name}'; it takes {', '.join(SEVEN_PROJECTIONS)}"
                )

    def check_files(self) -> None:
        hub.check_files(self.base)

    def remarks(self) -> tuple[str, ...]:
        return hub.remarks(self.base, self.revision)

    def tokenizer(self) -> Tokenizer:
        return hub.load_tokenizer(self.base, self.revision)

    def config(self) -> "PretrainedConfig":
        return hub.load_config(self.base, self.revision)

    def positions(self) -> tuple[int | None, str]:
        return (
            self.max_seq_length,
            "--model.backend.max_seq_length",
        )  # Unsloth cuts longer examples off itself

    def identity(self) -> str:
        return hub.identity(self.base, self.revision)

    def load(
        self, *, lora: LoRA | None, adapter: str | None, device: torch.device, dtype: torch.dtype, seed: int
    ) -> nn.Module:
        fast = self._loader()
        files = hub.check_files(self.base)
        with watched_quantization() as damaged, hub.bare_folder(self.base, self.revision) as folder:
            base, _ = fast.from_pretrained(**self.loading(folder, device=device, dtype=dtype, seed=seed))
        self._check_loaded(base)
        base.config.name_or_path = base.name_or_path = self.base  # PEFT writes it into adapter_config.json
        check_finite(base, damaged, self.base, files)
        settle(base, device, dtype)
        if adapter is not None:
            check_adapter_base(adapter, self.base, self.identity())
            # Unsloth patches adapters of trainable models alone; nothing trains this one
            loaded = load_adapter(base, adapter, self.base, trainable=True)
            return self._patched(loaded).requires_grad_(False)
        if lora is None:
            return base
        # the adapters' initial values depend on the seed alone; the run's own random state stays as it was
        with torch.random.fork_rng(devices=[device]):
            torch.manual_seed(seed)
            model = fast.get_peft_model(base, **self.adapting(lora, seed=seed))
        self._check_adapted(model, lora)
        fast.for_training(model)
        return model

    def loading(
        self, folder: str, *, device: torch.device, dtype: torch.dtype, seed: int
    ) -> dict[str, object]:
        """Arguments of Unsloth's `from_pretrained`."""
        return {
            "model_name": folder,
            "revision": self.revision if folder == self.base else None,
            "max_seq_length": self.max_seq_length,
            "dtype": dtype,
            "load_in_4bit": self.quantization == "nf4",
            "load_in_16bit": self.quantization == "none",
            "device_map": {"": device.index or 0},
            "use_gradient_checkpointing": self.gradient_checkpointing,
            "random_state": seed,
            "use_exact_model_name": True,  # else it may download another model instead of `base`
        }

    def adapting(self, lora: LoRA, *, seed: int) -> dict[str, object]:
        """Arguments of Unsloth's `get_peft_model`, beside the model."""
        return {
            "r": lora.r,
            "lora_alpha": lora.alpha,
            "lora_dropout": lora.dropout,
            "target_modules": self._targets(lora),
            "bias": "none",
            "use_gradient_checkpointing": self.gradient_checkpointing,
            "random_state": seed,
            "use_rslora": lora.use_rslora,
            "init_lora_weights": True if lora.init == "default" else lora.init,
            "max_seq_length": self.max_seq_length,
        }

    def _loader(self) -> "FastModel":
        return cast("FastModel", getattr(import_unsloth(), self.loader))

    def _targets(self, lora: LoRA) -> list[str]:
        """Names of the layers that get an adapter."""
        return _names(lora)

    def _check_loaded(self, model: "PreTrainedModel") -> None:
        """Checks the model as Unsloth has loaded it."""

    def _check_adapted(self, model: nn.Module, lora: LoRA) -> None:
        """Checks which layers have an adapter."""

    def _patched(self, model: nn.Module) -> nn.Module:
        """A model with a loaded adapter, with Unsloth's layers."""
        return self._loader().patch_peft_model(model, use_gradient_checkpointing=False)

    def decoder(self, model: nn.Module) -> Decoder:
        return Decoder(model, packed_lengths=True)

    @contextmanager
    def generating(self, model: nn.Module) -> Iterator[None]:
        fast = self._loader()
        training = model.training
        fast.for_inference(model)
        try:
            yield
        finally:
            # `.train()` alone would leave checkpointing off and the decoding flag on
            fast.for_training(model)
            model.train(training)


def _names(lora: LoRA) -> list[str]:
    """The projections that get an adapter."""
    names = ALL_LINEAR if lora.target_modules is None else split_names(lora.target_modules)
    if names == ALL_LINEAR:
        return list(SEVEN_PROJECTIONS)
    return [names] if isinstance(names, str) else names
