"""Whether a loaded model is what training and scoring take it for: shown on the model itself, before the first step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from medqlora.data.batching.packing import micro_batch
from medqlora.errors import InputError
from medqlora.models import Decoder
from medqlora.models.layers import base_model
from medqlora.records import Encoded
from medqlora.utils.console import say

#: tokens that go through the model: their logits exist all at once
_PROBED = 32
#: largest difference, over the norm, that rounding explains; what is looked for is of the order of 1
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1.5e-1, torch.float16: 3e-2}
#: what a forward ends with that can't be run as the model was put together
_FAILS = (RuntimeError, TypeError, KeyError, ValueError, IndexError)
#: RuntimeErrors that say nothing of the model
_OF_THE_DEVICE = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))


@torch.no_grad()
def check_model(model: Any, decoder: Decoder, examples: Sequence[Encoded], device: torch.device) -> None:
    """Refuses a model that sees the tokens that it is to predict, or whose logits are not its head's product.

    Args:
        model: loaded; put into eval mode meanwhile.
        decoder: of the same model.
        examples: the beginning of the first is used; nothing is checked without any.
        device: where the model is.

    Raises:
        InputError: names the base's architecture and what is wrong with it.
    """
    if not examples:
        return
    tokens = [*examples[0].prompt, *examples[0].completion][:_PROBED]
    ids = torch.tensor([tokens], device=device)
    half = len(tokens) // 2
    training = model.training
    model.eval()
    base = base_model(model)
    kind, name = base.config.get_text_config().model_type, type(base).__name__
    try:
        hidden = _hidden(decoder, tokens, device)
        # the second half from its end: other tokens at most places, and all of them the tokenizer's
        changed = _hidden(decoder, [*tokens[:half], *reversed(tokens[half:])], device)
        shown = model(input_ids=ids, use_cache=False).logits[0].float()
        ours = decoder.logits(hidden)
    except _FAILS as error:
        if isinstance(error, _OF_THE_DEVICE):
            raise
        reason = " ".join(str(error).split())[:200].rstrip(":. ")
        raise InputError(
            f"--model.backend.base: the forward of {name} ({kind}) fails with its adapters in place "
            f"({type(error).__name__}: {reason}): this architecture is not supported"
        ) from error
    finally:
        model.train(training)
    tolerance = _TOLERANCE.get(decoder.head.weight.dtype, 1e-1)
    if half and _difference(hidden[:half], changed[:half]) > tolerance:
        raise InputError(
            f"--model.backend.base: {name} ({kind}) is not causal: a token's hidden state depends on the tokens after "
            "it, so it would be shown the answers: use a causal language model"
        )
    if _difference(ours, shown) > tolerance:
        raise InputError(
            f"--model.backend.base: the logits of {name} ({kind}) are not the product of its last hidden states and "
            "its head: this architecture is not supported"
        )


def why_padded(decoder: Decoder) -> str | None:
    """Why rows can't be packed whatever a comparison says; None where the architecture has nothing against it."""
    if decoder.packed_lengths:  # Unsloth's own attention is told the lengths
        return None
    if decoder.state is None and not decoder.takes_positions:
        return "it takes no positions, which would have to restart with every example"
    return decoder.state


def say_untrained(model: Any, decoder: Decoder, examples: Sequence[Encoded], device: torch.device) -> None:
    """Says which adapters get no gradient: layers that a text doesn't go through, or that are read past their adapter.

    Args:
        model: its adapters in place, in training mode.
        decoder: of the same model.
        examples: a few, short ones for speed.
        device: where the model is.
    """
    trained = [
        (name, one) for name, one in model.named_parameters() if one.requires_grad and "lora_B" in name
    ]
    if (
        not trained
        or not examples
        or (torch.is_autocast_enabled(device.type) and _autocast(device) == torch.float16)
    ):
        return  # without a scale float16's smallest gradients are 0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        batch = micro_batch(examples, packed=False, pad_token_id=0).to(device)
        hidden = decoder.hidden(batch, batch.rows[:_PROBED])
        loss = functional.cross_entropy(decoder.logits(hidden), batch.targets[:_PROBED])
        gradients = torch.autograd.grad(loss, [one for _, one in trained], allow_unused=True)
    still = [
        name
        for (name, _), found in zip(trained, gradients, strict=True)
        if found is None or not found.count_nonzero()
    ]
    if still:
        names = sorted({name.split(".lora_B")[0].rpartition(".")[2] for name in still})
        say(
            f"Warning: {len(still)} of {len(trained)} adapters get no gradient from a text ({', '.join(names)}): they "
            "stay without effect"
        )


def _autocast(device: torch.device) -> torch.dtype:
    return torch.get_autocast_dtype(device.type)


def _hidden(decoder: Decoder, tokens: Sequence[int], device: torch.device) -> Tensor:
    example = Encoded(id="", prompt=tokens[:-1], completion=tokens[-1:])
    batch = micro_batch([example], packed=False, pad_token_id=0).to(device)
    return decoder.hidden(batch, torch.arange(len(tokens), device=device)).float()


def _difference(one: Tensor, other: Tensor) -> float:
    """The median row's, over its norm; infinite where that is no number.

    Not the largest: a router's near tie may send a single token to another expert when anything is rounded otherwise.
    """
    found = (
        ((one - other).norm(dim=-1) / other.norm(dim=-1).clamp_min(1e-12)).nan_to_num(nan=torch.inf).median()
    )
    return float(found.nan_to_num(nan=torch.inf))
