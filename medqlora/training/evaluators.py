"""The evaluator of the model in memory, under training or under test."""

from collections.abc import Sequence

import torch
from torch import nn

from medqlora.config.model import EvaluationOptions
from medqlora.data.stage_data import StageData
from medqlora.inference.evaluator import Evaluator
from medqlora.inference.generation import generate
from medqlora.models import Backend
from medqlora.training.engine_choice import EngineChoice


def build_evaluator(
    model: nn.Module,
    backend: Backend,
    engine: EngineChoice,
    options: EvaluationOptions,
    data: StageData,
    device: torch.device,
) -> Evaluator:
    """Makes the evaluator that scores labels and generates answers.

    Args:
        model, backend: the loaded model.
        engine: runs the scoring.
        options: whether answers are generated, and how long.
        data: end tokens, token budget and rows of a generation.
        device: where the model is.
    """
    tokenizer = backend.tokenizer()

    def write(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        with backend.generating(model):
            return generate(
                model,
                prompts,
                max_new_tokens=options.max_new_tokens,
                end_token_ids=data.end_token_ids,
                pad_token_id=tokenizer.pad_token_id,
                device=device,
                left_padding=getattr(engine.decoder, "state", None) is None,
            )

    return Evaluator(
        engine.decoder,
        write if options.generate else None,
        tokenizer=tokenizer,
        micro_batch_tokens=data.token_budget,
        packed=engine.packed,
        pad_token_id=tokenizer.pad_token_id,
        device=device,
        rows=data.eval_batch_size,
    )
