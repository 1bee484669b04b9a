"""Whether a model takes packed rows: shown on the model itself, before the first step."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medqlora.data.packing import micro_batch
from medqlora.evaluation.scoring import Decodes
from medqlora.records import Encoded

#: largest difference of hidden states, over their norm, that rounding explains: 32 layers of the
#: Llama-3-8B shape come to 6e-2 in bfloat16 on an H200, and float16 rounds 8 times finer
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1.5e-1, torch.float16: 2e-2}


@torch.no_grad()
def packing_works(
    model: nn.Module, decoder: Decodes, plain: Decodes, examples: Sequence[Encoded], device: torch.device
) -> str | None:
    """None when packed rows give what single rows give; else how far they are apart.

    Compares the last hidden states of every token of a pack with those of each example alone: a pack whose
    attention or positions crossed examples would differ in every example but the first.

    Args:
        model: put into eval mode meanwhile.
        decoder: runs the pack.
        plain: runs each example alone.
        examples: at least two, short ones for speed; of different lengths.
    """
    training = model.training
    model.eval()
    try:
        together = _hidden(decoder, examples, device)
        alone = torch.cat([_hidden(plain, [example], device) for example in examples])
    finally:
        model.train(training)
    error = ((together - alone).norm(dim=-1) / alone.norm(dim=-1)).max().item()
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    tolerance = _TOLERANCE.get(dtype, 5e-2)
    return (
        None
        if error <= tolerance
        else f"relative difference {error:.1e}, at most {tolerance:.0e} is rounding"
    )


def _hidden(decoder: Decodes, examples: Sequence[Encoded], device: torch.device) -> Tensor:
    batch = micro_batch(examples, packed=True, pad_token_id=0).to(device)
    return decoder.hidden(batch, torch.arange(batch.input_ids.numel(), device=device)).float()
