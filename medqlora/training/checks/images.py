"""Check of a loaded vision-language model before the first step: an image reaches the answer."""

from collections.abc import Sequence

import torch
from torch import nn

from medqlora.data.batching.packing import micro_batch
from medqlora.errors import InputError
from medqlora.models import Decoder
from medqlora.models.layers import base_model
from medqlora.records import Encoded
from medqlora.training.checks.model import refusing_forward

#: smallest relative change of the last hidden state that another image has to make, over rounding in 16 bits
_CHANGES = 1e-3


def without_images(example: Encoded) -> Encoded:
    """The example without its image tokens: what the checks of the language model alone run on."""
    prompt = list(example.prompt)
    for slot in reversed(example.images):
        del prompt[slot.begin : slot.end]
    return example._replace(prompt=prompt, images=())


@torch.no_grad()
def check_images(
    model: nn.Module, decoder: Decoder, examples: Sequence[Encoded], device: torch.device
) -> None:
    """Refuses a model whose forward fails with an image, or whose answer does not depend on it.

    Args:
        model: loaded; put into eval mode meanwhile.
        decoder: of the same model.
        examples: a few; the first with an image is used. Without any, nothing is checked.
        device: where the model is.

    Raises:
        InputError: names the base's architecture and the fault.
    """
    example = next((example for example in examples if example.images), None)
    if example is None:
        return
    base = base_model(model)
    kind, name = base.config.model_type, type(base).__name__
    batch = micro_batch([example._replace(completion=[example.prompt[-1]])], packed=False, pad_token_id=0)
    batch = batch.to(device)
    with refusing_forward(model, f"{name} ({kind}) fails on an image"):
        seen = decoder.hidden(batch, batch.rows).float()
        # the same tokens without pixels: the embeddings of the image token itself
        unseen = decoder.hidden(batch._replace(images=()), batch.rows).float()
    change = float((seen - unseen).norm() / unseen.norm().clamp_min(1e-12))
    if not change > _CHANGES:  # false for NaN
        raise InputError(
            f"--model.backend.base: an image does not change the answer of {name} ({kind}; relative change "
            f"{change:.1e}): this architecture is not supported"
        )
