"""Checks of the loaded model before the first step: causal attention, the head's logits, gradients of all adapters."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from medqlora.data.batching.packing import micro_batch
from medqlora.errors import InputError
from medqlora.models import Backend, Decoder
from medqlora.models.layers import base_model
from medqlora.records import Encoded
from medqlora.utils.console import say

#: tokens of the test input; their logits exist all at once
_PROBED = 32
#: largest relative difference that rounding explains; the faults in question are of the order of 1
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1.5e-1, torch.float16: 3e-2}
#: errors of a forward that does not fit the model
_FAILS = (RuntimeError, TypeError, KeyError, ValueError, IndexError)
#: RuntimeErrors of the device
_OF_THE_DEVICE = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))


@contextmanager
def refusing_forward(model: nn.Module, what: str) -> Iterator[None]:
    """Puts the model into eval mode for a test forward; an error of its architecture becomes an InputError.

    Errors of the device, such as memory that ran out, stay what they are.

    Args:
        model: gets its mode back at the end.
        what: fails, in words: "LlamaModel (llama) fails with its adapters in place".
    """
    training = model.training
    model.eval()
    try:
        yield
    except _FAILS as error:
        if isinstance(error, _OF_THE_DEVICE):
            raise
        reason = " ".join(str(error).split())[:200].rstrip(":. ")
        raise InputError(
            f"--model.backend.base: the forward of {what} ({type(error).__name__}: {reason}): this architecture is not "
            "supported"
        ) from error
    finally:
        model.train(training)


@torch.no_grad()
def check_model(
    model: nn.Module, decoder: Decoder, examples: Sequence[Encoded], device: torch.device
) -> None:
    """Refuses a model that attends to later tokens, or whose logits are not the product of its head.

    Args:
        model: loaded; put into eval mode meanwhile.
        decoder: of the same model.
        examples: the start of the first one is used; without any, nothing is checked.
        device: where the model is.

    Raises:
        InputError: names the base's architecture and the fault.
    """
    if not examples:
        return
    tokens = [*examples[0].prompt, *examples[0].completion][:_PROBED]
    ids = torch.tensor([tokens], device=device)
    half = len(tokens) // 2
    base = base_model(model)
    kind, name = base.config.get_text_config().model_type, type(base).__name__
    with refusing_forward(model, f"{name} ({kind}) fails with its adapters in place"):
        hidden = _hidden(decoder, tokens, device)
        # the second half reversed: other tokens, all of them known to the tokenizer
        changed = _hidden(decoder, [*tokens[:half], *reversed(tokens[half:])], device)
        shown = model(input_ids=ids, use_cache=False).logits[0].float()
        ours = decoder.logits(hidden)
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


def check_gradient_checkpointing(model: nn.Module, backend: Backend) -> None:
    """Raises RuntimeError where gradient checkpointing is not in force as the backend's option says.

    Hugging Face models load in eval mode, in which it is off without a warning.
    """
    wanted = bool(getattr(backend, "gradient_checkpointing", False))
    layers = [module for module in model.modules() if hasattr(module, "gradient_checkpointing")]
    in_force = any(module.gradient_checkpointing and module.training for module in layers)
    if in_force != wanted:  # no assert, which python -O leaves out
        raise RuntimeError(f"gradient checkpointing is {in_force}, asked for {wanted}")


def why_padded(decoder: Decoder) -> str | None:
    """Returns why this architecture can't pack rows, whatever a comparison says; None where it may."""
    if decoder.packed_lengths:  # for Unsloth's own attention
        return None
    if decoder.reads_images:
        return "rows may hold images"
    if decoder.state is None and not decoder.takes_positions:
        return "it takes no positions, which would have to restart with every example"
    return decoder.state


def say_untrained(
    model: nn.Module, decoder: Decoder, examples: Sequence[Encoded], device: torch.device
) -> None:
    """Warns of adapters without a gradient: unused layers, or weights that are read without their adapter.

    Args:
        model: its adapters in place, in training mode.
        decoder: of the same model.
        examples: a few short ones.
        device: where the model is.
    """
    trained = [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and "lora_B" in name
    ]
    if (
        not trained
        or not examples
        or (torch.is_autocast_enabled(device.type) and _autocast(device) == torch.float16)
    ):
        return  # float16's smallest gradients are 0 without a loss scale
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        batch = micro_batch(examples, packed=False, pad_token_id=0).to(device)
        hidden = decoder.hidden(batch, batch.rows[:_PROBED])
        loss = functional.cross_entropy(decoder.logits(hidden), batch.targets[:_PROBED])
        gradients = torch.autograd.grad(loss, [parameter for _, parameter in trained], allow_unused=True)
    untrained = [
        name
        for (name, _), gradient in zip(trained, gradients, strict=True)
        if gradient is None or not gradient.count_nonzero()
    ]
    if untrained:
        what = "a question" if any(example.images for example in examples) else "a text"
        names = sorted({name.split(".lora_B")[0].rpartition(".")[2] for name in untrained})
        say(
            f"Warning: {len(untrained)} of {len(trained)} adapters get no gradient from {what} "
            f"({', '.join(names)}): they stay without effect"
        )


def _autocast(device: torch.device) -> torch.dtype:
    return torch.get_autocast_dtype(device.type)


def _hidden(decoder: Decoder, tokens: Sequence[int], device: torch.device) -> Tensor:
    example = Encoded(id="", prompt=tokens[:-1], completion=tokens[-1:])
    batch = micro_batch([example], packed=False, pad_token_id=0).to(device)
    return decoder.hidden(batch, torch.arange(len(tokens), device=device)).float()


def _difference(hidden: Tensor, other: Tensor) -> float:
    """Relative difference of the median row; infinite where it is not finite.

    Not the largest: rounding may send a single token to another expert of a router.
    """
    rows = (hidden - other).norm(dim=-1) / other.norm(dim=-1).clamp_min(1e-12)
    return float(rows.nan_to_num(nan=torch.inf).median().nan_to_num(nan=torch.inf))
