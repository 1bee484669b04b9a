"""What asks the model under training, or under test, its questions."""

from collections.abc import Sequence
from typing import Any

from medqlora.inference.evaluator import Evaluator
from medqlora.inference.generation import generate


def build_evaluator(module: Any, data: Any) -> Evaluator:
    """Scores answers and lets the model write them, as the options say.

    Args:
        module: the QLoRAModule, its engine chosen.
        data: its datamodule.
    """
    tokenizer = module.backend.tokenizer()

    def write(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        with module.backend.generating(module.model):
            return generate(
                module.model,
                prompts,
                max_new_tokens=module.max_new_tokens,
                end_token_ids=data.end_token_ids,
                pad_token_id=tokenizer.pad_token_id,
                device=module.device,
                left_padding=getattr(module.chosen.decoder, "state", None) is None,
            )

    return Evaluator(
        module.chosen.decoder,
        write if module.generate else None,
        tokenizer=tokenizer,
        micro_batch_tokens=data.token_budget,
        packed=module.packed,
        pad_token_id=tokenizer.pad_token_id,
        device=module.device,
        rows=data.eval_batch_size,
    )
