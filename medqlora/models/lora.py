"""Which low-rank weights are trained, and how they are put into a model."""

import math
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from torch import nn

from medqlora.errors import InputError

#: what Llama, Mistral, Qwen and Gemma call the linear layers of a decoder block
SEVEN_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LoRA:
    """Low-rank adaptation: W x becomes W x + (alpha / r) B A x, and only A and B are trained.

    Hu et al., 2021, https://arxiv.org/abs/2106.09685.

    Args:
        r: rank of the update.
        alpha: scale of the update, divided by r (by sqrt(r) with rsLoRA).
        dropout: probability of dropping an input of A in training.
        target_modules: names of the linear layers that get one. Null finds them: the seven projections
            of a Llama-like block, or every linear layer of a block whose names differ.
        use_rslora: scale by alpha / sqrt(r): Kalajdzievski, 2023, https://arxiv.org/abs/2312.03732.
        use_dora: also train each row's magnitude: Liu et al., 2024, https://arxiv.org/abs/2402.09353.
        init: how A begins: "default" is Kaiming-uniform, "gaussian" normal; B is 0, so the model's output is
            unchanged at first. Initialisations that rewrite the base (PiSSA, OLoRA) are left out: without its
            adapter it would no longer be the base that `test` compares with.
    """

    r: int = 16
    alpha: float = 32
    dropout: float = 0.0
    target_modules: list[str] | None = None
    use_rslora: bool = False
    use_dora: bool = False
    init: Literal["default", "gaussian"] = "default"

    def check(self) -> None:
        """Raises InputError for values that no model takes."""
        if self.r < 1:
            raise InputError(f"--model.lora.r is {self.r}: the rank has to be at least 1 (8 to 64 are usual)")
        if not 0 < self.alpha < math.inf:  # nor NaN
            raise InputError(f"--model.lora.alpha is {self.alpha}: it has to be above 0 (r or 2 r are usual)")
        if not 0 <= self.dropout < 1:
            raise InputError(f"--model.lora.dropout is {self.dropout}: it has to be in [0, 1)")
        if self.target_modules is not None and not self.target_modules:
            raise InputError("--model.lora.target_modules is empty: name a layer, or leave the option out")

    def resolve(self, model: nn.Module) -> list[str]:
        """The names of `model`'s layers that get an adapter.

        Raises:
            InputError: a name that no linear layer of the model bears (names the nearest), or a model
                without linear layers in its blocks.
        """
        names = linear_names(model)
        if not names:
            raise InputError(
                f"--model.backend.base: {type(model).__name__} has no linear layers that an adapter could go on: "
                "use a Llama-like base"
            )
        if self.target_modules is None:
            # all or nothing: Phi-3 shares o_proj and down_proj with Llama, and fuses the other five
            return list(SEVEN_PROJECTIONS) if names.issuperset(SEVEN_PROJECTIONS) else sorted(names)
        for name in self.target_modules:
            if name not in names:
                near = get_close_matches(name, names, 1)
                hint = f"; did you mean '{near[0]}'?" if near else "."
                raise InputError(
                    f"--model.lora.target_modules: the model has no linear layer '{name}'{hint} "
                    f"It has {', '.join(sorted(names))}"
                )
        return list(self.target_modules)

    def peft_config(self, target_modules: list[str]) -> Any:
        """The same as PEFT's own LoraConfig."""
        from peft import LoraConfig

        return LoraConfig(
            task_type="CAUSAL_LM",
            r=self.r,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # PEFT divides; a float is right
            lora_dropout=self.dropout,
            target_modules=target_modules,
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
            init_lora_weights=True if self.init == "default" else self.init,
            bias="none",
        )


def linear_names(model: nn.Module) -> set[str]:
    """The last parts of the names of the linear layers inside the decoder's blocks.

    The head and anything that stands once (outside the repeated blocks) is left out: an adapter there
    would multiply the vocabulary.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return {name.rsplit(".", 1)[-1] for name in linear if any(part.isdigit() for part in name.split("."))}
