"""The names by which PyTorch, bitsandbytes, transformers and their users call an optimizer."""

import difflib
import re
from collections.abc import Sequence
from functools import cache

#: run on one buffer of all weights (`training.flat`)
FLAT_OPTIMIZERS = ("adamw_8bit", "paged_adamw_8bit", "adamw")
#: what the learning rate does after its warm-up, by name
SCHEDULERS = ("cosine", "linear", "constant")
_OPTION = "--model.optimizer"
#: other names for these, without case, "_" and "-": of the classes, and of transformers' `--optim`
#: (https://huggingface.co/docs/transformers/main_classes/trainer#transformers.training_args.OptimizerNames)
_SYNONYMS = {
    "adamw": "adamw",
    "adamwtorch": "adamw",
    "adamwtorchfused": "adamw",
    "adamwhf": "adamw",
    "torchadamw": "adamw",
    "adamw8bit": "adamw_8bit",
    "adamwbnb8bit": "adamw_8bit",
    "bnbadamw8bit": "adamw_8bit",
    "8bitadamw": "adamw_8bit",
    "pagedadamw8bit": "paged_adamw_8bit",
}
#: those of torch 2.11 to 2.13, without SparseAdam: no layer here has the sparse gradients that it needs
TORCH_OPTIMIZERS = (
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "Muon", "NAdam"),
    *("RAdam", "RMSprop", "Rprop", "SGD"),
)
#: those of bitsandbytes 0.50 whose step works with their default settings, on a CPU too
BITSANDBYTES_OPTIMIZERS = (
    *("AdamW32bit", "PagedAdamW", "PagedAdamW32bit"),
    *("Adam8bit", "Adam32bit", "PagedAdam", "PagedAdam8bit", "PagedAdam32bit"),
    *("Lion", "Lion8bit", "Lion32bit", "PagedLion", "PagedLion8bit", "PagedLion32bit"),
    *("AdEMAMix", "AdEMAMix8bit", "PagedAdEMAMix", "PagedAdEMAMix8bit"),
    *("RMSprop8bit", "RMSprop32bit", "Adagrad8bit", "Adagrad32bit", "LAMB", "LAMB8bit", "LAMB32bit"),
)
#: transformers' names for them have "bnb" in their middle (rmsprop_bnb_8bit)
_BNB = re.compile(r"bnb")


class NamedOptimizer(str):
    """An optimizer's name in its canonical form: one of `FLAT_OPTIMIZERS`, or a class's name without its module.

    Args:
        name: in any case, and any of the forms that users know.

    Raises:
        ValueError: no optimizer has this name.
    """

    __slots__ = ()

    def __new__(cls, name: str) -> "NamedOptimizer":
        plain = _plain(name)
        canonical = _canonical().get(plain) or _canonical().get(_BNB.sub("", plain))
        if canonical is None or "." in name:  # a name with its module is a class_path
            raise ValueError(f"there is no optimizer '{name}'")
        return super().__new__(cls, canonical)


def is_optimizer_name(name: str) -> bool:
    """Whether an optimizer has this name."""
    try:
        NamedOptimizer(name)
    except ValueError:
        return False
    return True


def class_path(name: NamedOptimizer) -> str:
    """The class of a name, with its module."""
    flat = {
        "adamw": "torch.optim.AdamW",
        "adamw_8bit": "bitsandbytes.optim.AdamW8bit",
        "paged_adamw_8bit": "bitsandbytes.optim.PagedAdamW8bit",
    }
    home = "bitsandbytes" if name in BITSANDBYTES_OPTIMIZERS else "torch"
    return flat.get(name) or f"{home}.optim.{name}"


def nearest_name(name: str) -> str | None:
    """The optimizer with the most similar name; None where none is similar."""
    known = _canonical()
    near = difflib.get_close_matches(_plain(name.rpartition(".")[2]), known, 1, 0.9)
    return known[near[0]] if near else None


def spelled_out(words: Sequence[str]) -> list[str]:
    """`words` with the class in place of an optimizer's name, where options of the class follow."""
    path = f"{_OPTION}.class_path"
    leads = (path, _OPTION) if any(word.startswith((f"{_OPTION}.", f"{_OPTION}+")) for word in words) else ()
    changed = list(words)
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if equals and name in leads:
            changed[index] = f"{name}={full_class_path(value)}"
        elif index and words[index - 1] in leads:
            changed[index] = full_class_path(word)
    return changed


def full_class_path(name: str) -> str:
    """An optimizer's name with its module; any other text as it is."""
    return class_path(NamedOptimizer(name)) if is_optimizer_name(name) else name


@cache
def _canonical() -> dict[str, str]:
    """Plain name → canonical name."""
    names = (*BITSANDBYTES_OPTIMIZERS, *TORCH_OPTIMIZERS)
    return {**{_plain(name): name for name in names}, **_SYNONYMS}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()
