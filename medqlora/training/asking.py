"""The evaluator of the LightningModule's model."""

from functools import partial
from typing import Any

from medqlora.inference import evaluator as inference
from medqlora.inference.evaluator import Evaluator


def build_evaluator(module: Any, data: Any) -> Evaluator:
    """Scores labels and generates answers, as the options say.

    Args:
        module: the QLoRAModule, its engine chosen.
        data: its datamodule.
    """
    return inference.build_evaluator(
        module.model,
        module.chosen.decoder,
        module.backend.tokenizer(),
        module.options,
        end_token_ids=data.end_token_ids,
        micro_batch_tokens=data.token_budget,
        rows=data.eval_batch_size,
        packed=module.packed,
        device=module.device,
        generating=partial(module.backend.generating, module.model),
    )
