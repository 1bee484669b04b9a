"""The options of LoRA: which low-rank weights are trained."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medqlora.errors import InputError

#: PEFT's word for every linear layer
ALL_LINEAR = "all-linear"
_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class LoRAOptions:
    """Low-rank adaptation: W x becomes W x + (alpha / r) B A x, and only A and B are trained.

    Hu et al., 2021, https://arxiv.org/abs/2106.09685.

    Args:
        r: rank of the update.
        alpha: scale of the update, divided by r (by sqrt(r) with rsLoRA).
        dropout: probability of dropping an input of A in training.
        target_modules: names of the adapted linear layers, as q_proj,v_proj; or the end of a name (self_attn.q_proj);
            or a regular expression for full names; or all-linear. Null adapts every linear layer of the decoder layers
            (of a Llama-like model the seven projections) and the experts of a mixture.
        use_rslora: scale by alpha / sqrt(r): Kalajdzievski, 2023, https://arxiv.org/abs/2312.03732.
        use_dora: also train each row's magnitude: Liu et al., 2024, https://arxiv.org/abs/2402.09353.
        init: initial values of A: "default" is Kaiming-uniform, "gaussian" normal. "eva" takes the main directions of
            the layer's inputs on training questions (Paischer et al., 2024, https://arxiv.org/abs/2410.07170: the best
            average of the compared initialisations on language tasks, by a few tenths of a point). With these B starts
            at 0, so the first output is the base model's. "loftq" starts B A at the quantization error, so that the
            first output is nearer to the unquantized base's (Li et al., 2023, https://arxiv.org/abs/2310.08659: clear
            gains at 2 bits, small ones at 4); it needs a base in 16-bit files. Initialisations that rewrite the base
            (PiSSA, OLoRA) are left out: `test` could no longer compare with the base.
    """

    r: int = 16
    alpha: float = 32
    dropout: float = 0.0
    target_modules: list[str] | str | None = None
    use_rslora: bool = False
    use_dora: bool = False
    init: Literal["default", "gaussian", "eva", "loftq"] = "default"

    def check(self) -> None:
        """Raises InputError for values that no model takes."""
        if self.r < 1:
            raise InputError(f"--model.lora.r is {self.r}: the rank has to be at least 1 (8 to 64 are usual)")
        if not 0 < self.alpha < math.inf:  # nor NaN
            raise InputError(f"--model.lora.alpha is {self.alpha}: it has to be above 0 (r or 2 r are usual)")
        if not 0 <= self.dropout < 1:
            raise InputError(f"--model.lora.dropout is {self.dropout}: it has to be in [0, 1)")
        if self.use_dora and self.init in ("eva", "loftq"):
            raise InputError(f"--model.lora.init {self.init}: not with use_dora true: leave one out")
        if self.target_modules is not None and not split_names(self.target_modules):
            raise InputError("--model.lora.target_modules is empty: name a layer, or leave the option out")


def split_names(given: str | Sequence[str]) -> list[str] | str:
    """The value of `target_modules` as a list of names, or unchanged: a regular expression or "all-linear"."""
    if not isinstance(given, str):
        listed = [name.strip() for name in given]
        return ALL_LINEAR if [name.lower() for name in listed] == [ALL_LINEAR] else listed
    text = given.strip().strip("[]") if re.fullmatch(r"\[[\w\s.,'\"-]*\]", given.strip()) else given.strip()
    names = [name.strip("'\"") for name in re.split(r"[\s,]+", text) if name]
    if [name.lower() for name in names] == [ALL_LINEAR]:
        return ALL_LINEAR
    return names if all(_NAME.fullmatch(name) for name in names) else text
