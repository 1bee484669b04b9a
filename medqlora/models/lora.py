"""Which low-rank weights are trained, and how they are put into a model."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from medqlora.errors import InputError
from medqlora.models.layers import experts, linear_layers
from medqlora.models.targets import SEVEN_PROJECTIONS, Targets, find_targets, split_names

__all__ = ["SEVEN_PROJECTIONS", "LoRA", "linear_names"]


@dataclass(frozen=True)
class LoRA:
    """Low-rank adaptation: W x becomes W x + (alpha / r) B A x, and only A and B are trained.

    Hu et al., 2021, https://arxiv.org/abs/2106.09685.

    Args:
        r: rank of the update.
        alpha: scale of the update, divided by r (by sqrt(r) with rsLoRA).
        dropout: probability of dropping an input of A in training.
        target_modules: names of the linear layers that get one, as q_proj,v_proj; or the end of a name
            (self_attn.q_proj); or a regular expression that matches full names; or all-linear. Null takes every
            linear layer of the decoder layers (of a Llama-like model the seven projections) and the experts of a
            mixture.
        use_rslora: scale by alpha / sqrt(r): Kalajdzievski, 2023, https://arxiv.org/abs/2312.03732.
        use_dora: also train each row's magnitude: Liu et al., 2024, https://arxiv.org/abs/2402.09353.
        init: how A begins: "default" is Kaiming-uniform, "gaussian" normal; B is 0, so the model's output is
            unchanged at first. Initialisations that rewrite the base (PiSSA, OLoRA) are left out: without its
            adapter it would no longer be the base that `test` compares with.
    """

    r: int = 16
    alpha: float = 32
    dropout: float = 0.0
    target_modules: list[str] | str | None = None
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
        if self.target_modules is not None and not split_names(self.target_modules):
            raise InputError("--model.lora.target_modules is empty: name a layer, or leave the option out")

    def targets(self, model: Any) -> Targets:
        """The layers of `model` that get an adapter.

        Raises:
            InputError: as `find_targets`; or the experts of a mixture would get none, though nobody asked for that.
        """
        targets = find_targets(model, self.target_modules)
        if self.target_modules is None and not targets.parameters and experts(model):
            raise InputError(
                f"--model.lora.target_modules: PEFT has no adapters for the experts of {type(model).__name__}, most of "
                f"its weights: to adapt the other layers alone, name them: {','.join(targets.modules[:8])}"
            )
        obstacle = "dropout" if self.dropout else "use_dora" if self.use_dora else None
        if targets.parameters and obstacle is not None:
            fix = "0" if obstacle == "dropout" else "false"
            raise InputError(
                f"--model.lora.{obstacle} {getattr(self, obstacle)}: PEFT has no {obstacle.replace('use_', '')} for "
                f"experts ({', '.join(targets.parameters)}): set it to {fix}, or name the other layers in "
                f"--model.lora.target_modules: {','.join(targets.modules[:8])}"
            )
        return targets

    def resolve(self, model: Any) -> list[str]:
        """The names of `model`'s linear layers that get an adapter.

        Raises:
            InputError: as `targets`.
        """
        return self.targets(model).modules

    def peft_config(
        self, target_modules: list[str], target_parameters: list[str] | None = None, *, conv1d: bool = False
    ) -> Any:
        """The same as PEFT's own LoraConfig.

        Args:
            target_modules, target_parameters: as `targets` gives them.
            conv1d: the layers hold their weights as [in, out], as GPT-2's `Conv1D`.
        """
        from peft import LoraConfig

        return LoraConfig(
            task_type="CAUSAL_LM",
            r=self.r,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # PEFT divides; a float is right
            lora_dropout=self.dropout,
            target_modules=target_modules,
            target_parameters=target_parameters or None,
            fan_in_fan_out=conv1d,
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
            init_lora_weights=True if self.init == "default" else self.init,
            bias="none",
        )


def linear_names(model: Any) -> set[str]:
    """The last parts of the names of the linear layers inside the decoder's blocks."""
    return {name.rpartition(".")[2] for name in linear_layers(model)}
