"""How the live model holds its base: which modules are quantized, and its weights on disk."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from medqlora.artifacts.merge.base_weights import BaseWeights, Quantized
from medqlora.config.backends import BaseQuantization
from medqlora.config.stored_quantization import int4_layout
from medqlora.errors import InputError
from medqlora.models import hub
from medqlora.models.architecture import unquantized_modules
from medqlora.models.layers import experts, is_conv1d, is_falcon
from medqlora.models.quantization import INT4, stored_config
from medqlora.models.transformers import CAUSAL, skeleton
from medqlora.models.vision.parts import outside_linear
from medqlora.models.vision.weight_names import loaded_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: of a base model's repository, what names its licence
_TEXTS = ("README.md", "LICENSE*", "NOTICE*", "USE_POLICY.md")


class LiveBase(NamedTuple):
    """A base model as an adapter was trained on it.

    Attributes:
        name: folder or Hub name.
        revision: on the Hub.
        quantization, double_quantization: as the backend's options.
        dtype: data type of the weights when they are quantized.
        vision: whether it is a vision-language model, whose vision tower is not quantized.
    """

    name: str
    revision: str | None
    quantization: BaseQuantization
    double_quantization: bool
    dtype: torch.dtype
    vision: bool = False

    @property
    def auto_class(self) -> str:
        """The class of transformers that makes the model."""
        return "AutoModelForImageTextToText" if self.vision else CAUSAL


def left_unquantized(model: "PreTrainedModel", *, vision: bool) -> list[str] | None:
    """transformers' `llm_int8_skip_modules`; None for its default, the head."""
    left = unquantized_modules(model)
    return [*(left or []), *outside_linear(model)] if vision else left


def quantized_modules(model: "PreTrainedModel", *, vision: bool = False) -> frozenset[str]:
    """Names of the linear layers that transformers hands to bitsandbytes.

    Args:
        model: the base model's modules on the meta device.
        vision: whether it is a vision-language model.
    """
    from transformers.pytorch_utils import Conv1D

    left = left_unquantized(model, vision=vision)
    if left is None:
        head = model.get_output_embeddings()
        left = [name for name, module in model.named_modules() if module is head]
    kinds = (nn.Linear, Conv1D)
    return frozenset(
        name for name, module in model.named_modules() if type(module) in kinds and name not in left
    )


def weights_by_tensor(base: LiveBase) -> BaseWeights | None:
    """The base model's weights, to be read one by one; None where they have to be loaded as a model.

    That is so where transformers renames or joins the files' tensors (the experts of a mixture), where this project
    quantizes parameters by itself (experts, Falcon), where the files hold transposed weights (GPT-2's Conv1D), and
    where the files are no safetensors.

    Raises:
        InputError: the files are missing or damaged.
    """
    folder = local_folder(base.name, base.revision)
    files = sorted(file for file in folder.glob("*.safetensors") if file.name != "adapter_model.safetensors")
    config = hub.load_config(base.name, base.revision)
    model = skeleton(config, base.name, base.auto_class)
    own = bool(experts(model)) or any(is_falcon(part) or is_conv1d(part) for part in model.modules())
    if not files or own:
        return None
    quantized = layout = None
    stored = stored_config(config)
    if stored is not None and base.quantization in INT4:
        layout = int4_layout(stored, base.name)
    elif base.quantization != "none" and stored is None:
        quantized = Quantized(
            base.quantization,
            base.double_quantization,
            base.dtype,
            quantized_modules(model, vision=base.vision),
        )
    weights = BaseWeights(files, quantized, layout, loaded_name if base.vision else None)
    # a tied head stands in the files once
    tied = bool(getattr(config.get_text_config(), "tie_word_embeddings", False))
    names = set(model.state_dict())
    head = {name for name in names if tied and name.startswith("lm_head")}
    weights.leave_out(set(weights.shapes) - names)
    return weights if names - head <= set(weights.shapes) <= names else None


def local_folder(base: str, revision: str | None = None) -> Path:
    """The folder with the base model's files; of a Hub name its snapshot, downloaded where needed.

    Raises:
        InputError: there is no such folder, or the Hub can't be reached.
    """
    if hub.is_local(base):
        hub.check_files(base)
        return Path(hub.resolve(base))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                base,
                revision=revision,
                allow_patterns=["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", *_TEXTS],
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"--base: '{base}' can't be had from the Hub ({reason}): check the name and the connection, or pass its "
            "folder"
        ) from error
