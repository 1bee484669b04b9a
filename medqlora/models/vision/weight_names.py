"""Names of a vision-language model's weights: those in files, and those of the loaded model."""

import re

#: in this order: what a file's name begins with -> how the loaded model's name begins. transformers 5 has one scheme
#: for the loaded models; files have it, or that of the version that wrote them.
_BEGINNINGS = (
    (re.compile(r"language_model\.lm_head\."), "lm_head."),
    (re.compile(r"(?:model\.)?language_model\.(?:model\.)?"), "model.language_model."),
    (re.compile(r"(?:model\.)?vision_tower\.(?:vision_model\.)?"), "model.vision_tower."),
    (re.compile(r"(?:model\.)?(visual|multi_modal_projector)\."), r"model.\1."),
    (re.compile(r"model\."), "model.language_model."),
)
#: how the names of the language model's weights begin
LANGUAGE = "model.language_model."


def loaded_name(name: str) -> str:
    """The loaded model's name of a weight, from its name in a file; any other name is returned as it is.

    Families of `medqlora.models.vision.families`: `language_model.model.layers.0…` (LLaVA, Gemma 3) and
    `model.layers.0…` beside `visual.…` (Qwen) are `model.language_model.layers.0…`.
    """
    for beginning, loaded in _BEGINNINGS:
        renamed, count = beginning.subn(loaded, name, count=1) if beginning.match(name) else (name, 0)
        if count:
            return renamed
    return name
