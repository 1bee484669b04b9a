"""The names by which PyTorch, bitsandbytes, transformers and their users call an optimizer."""

import difflib
import inspect
import re

import torch
from torch.optim import Optimizer

from medqlora.models.quantization import import_bitsandbytes

#: what this project runs on one buffer of all weights (`training.flat`)
FLAT_OPTIMIZERS = ("adamw_8bit", "paged_adamw_8bit", "adamw")
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
#: those of bitsandbytes 0.50 whose step works with their default settings, on a CPU too
_BITSANDBYTES = (
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
        name: in any case, and any of the forms that `known_names` has.

    Raises:
        ValueError: no optimizer is called so.
    """

    __slots__ = ()

    def __new__(cls, name: str) -> "NamedOptimizer":
        plain = _plain(name)
        known = _canonical()
        found = known.get(plain) or known.get(_BNB.sub("", plain))
        if found is None or "." in name:  # a name with its module is a class_path
            raise ValueError(f"there is no optimizer '{name}'")
        return super().__new__(cls, found)


def optimizer_class(name: NamedOptimizer) -> type[Optimizer]:
    """The class of a name that is none of `FLAT_OPTIMIZERS`."""
    home = import_bitsandbytes().optim if name in _BITSANDBYTES else torch.optim
    found: type[Optimizer] = getattr(home, name)
    return found


def class_path(name: NamedOptimizer) -> str:
    """The class of any name, with its module."""
    flat = {
        "adamw": "torch.optim.AdamW",
        "adamw_8bit": "bitsandbytes.optim.AdamW8bit",
        "paged_adamw_8bit": "bitsandbytes.optim.PagedAdamW8bit",
    }
    return flat.get(name) or f"{'bitsandbytes' if name in _BITSANDBYTES else 'torch'}.optim.{name}"


def nearest_name(name: str) -> str | None:
    """The optimizer whose name is nearly this one."""
    known = _canonical()
    near = difflib.get_close_matches(_plain(name.rpartition(".")[2]), known, 1, 0.9)
    return known[near[0]] if near else None


def spelled_out(words: list[str]) -> list[str]:
    """`words` with `--model.optimizer NAME` as the name's class, where options of the class follow."""
    option = "--model.optimizer"
    if not any(word.startswith((f"{option}.", f"{option}+")) for word in words):
        return words
    changed = list(words)
    for place, word in enumerate(words):
        lead, given = ("", word) if place and words[place - 1] == option else (f"{option}=", "")
        if word.startswith(lead) and lead:
            given = word[len(lead) :]
        try:
            changed[place] = f"{lead}{class_path(NamedOptimizer(given))}" if given else word
        except ValueError:
            continue
    return changed


def _canonical() -> dict[str, str]:
    """Plain name → canonical name."""
    found = {_plain(name): name for name in _BITSANDBYTES}
    for name, kind in vars(torch.optim).items():
        # SparseAdam takes sparse gradients alone, which no layer here has
        if inspect.isclass(kind) and issubclass(kind, Optimizer) and name not in ("Optimizer", "SparseAdam"):
            found[_plain(name)] = name
    return {**found, **_SYNONYMS}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()
