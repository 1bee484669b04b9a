"""A vision-language model for the training step and the scorer."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from medqlora.data.batching.packing import MicroBatch
from medqlora.models.decoder import Decoder
from medqlora.models.layers import base_model
from medqlora.models.vision.processor import ImageProcessor
from medqlora.records import ImageSlot


class VisionDecoder(Decoder):
    """Runs rows with images through the whole model, and rows of text alone through its language model.

    The fused engine and packed rows are for text alone: positions and attention around an image are the model's own
    business, so its rows are padded and go through its own forward.

    Args:
        model: a vision-language model of transformers, or a PEFT model around one.
        images: the base's image processor.
    """

    reads_images = True
    #: a prompt with an image stands once for each label of several tokens
    takes_any_mask = False

    def __init__(self, model: nn.Module, images: ImageProcessor) -> None:
        super().__init__(model)
        self.images = images
        base = base_model(model)
        self.multimodal = cast(nn.Module, getattr(base, base.base_model_prefix))

    def hidden(self, batch: MicroBatch, rows: Tensor) -> Tensor:
        """As `Decoder.hidden`; the pixels of `batch.images` are read here."""
        if not batch.images:
            return super().hidden(batch, rows)
        mask = batch.attention_mask
        if mask is None or mask.ndim != 2:
            raise ValueError("rows with images have to be padded, one example each")
        output = self.multimodal(
            input_ids=batch.input_ids,
            attention_mask=mask.to(torch.long),
            use_cache=False,
            **self.image_inputs(batch.images, batch.input_ids),
        )
        return output.last_hidden_state.flatten(0, 1)[rows]

    def image_inputs(self, slots: Sequence[ImageSlot], input_ids: Tensor) -> dict[str, Tensor]:
        """The model's further arguments for rows with images; none for text alone."""
        return self.images.inputs(slots, input_ids) if slots else {}
