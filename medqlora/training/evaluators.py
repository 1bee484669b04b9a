"""The evaluator of the model in memory, under training or under test."""

from functools import partial

import torch
from torch import nn

from medqlora.config.model import EvaluationOptions
from medqlora.data.stage_data import StageData
from medqlora.inference import evaluator as inference
from medqlora.inference.evaluator import Evaluator
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
    evaluating = engine.evaluating
    return inference.build_evaluator(
        model,
        engine.decoder if evaluating is None else evaluating.decoder,
        backend.tokenizer(),
        options,
        end_token_ids=data.end_token_ids,
        micro_batch_tokens=data.token_budget,
        rows=data.eval_rows,
        packed=engine.packed,
        device=device,
        generating=partial(backend.generating, model),
        engine=evaluating,
        memory=data.eval_memory,
    )
