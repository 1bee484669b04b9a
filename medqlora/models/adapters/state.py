"""The trained weights of a model, and their files in PEFT's format."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn


def trainable_state(model: "nn.Module") -> dict[str, "Tensor"]:
    """The trained weights by parameter name; a checkpoint keeps nothing else of the model."""
    return {
        name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def save_adapter(model: "PeftModel", folder: Path, state: dict[str, "Tensor"]) -> None:
    """Writes the trained weights in PEFT's format: `adapter_config.json`, `adapter_model.safetensors`.

    Args:
        model: the PEFT model.
        folder: an existing folder.
        state: from `trainable_state` of this model, or from a checkpoint of it.
    """
    # save_embedding_layers=False: PEFT would otherwise ask the Hub whether the vocabulary was changed
    model.save_pretrained(str(folder), state_dict=state, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty form; the run writes its own card
