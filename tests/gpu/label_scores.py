"""Log-likelihoods of labels on a GPU: the packed pass of the decode engine beside transformers, a question at a time.

    python tests/gpu/label_scores.py PUBMEDQA_FILE TOKENIZER_FOLDER [QUESTIONS]

Random NF4 weights of a small Llama with adapters on all projections, in float32 and in bfloat16. Prints a JSON line a
type: the largest differences, also of bfloat16 from transformers in float32. In float32 they stay below 1e-5 of a
log-likelihood.
"""

import sys
from typing import Any

import torch
from evaluation import DEVICE, Run, say

#: heads and groups as in Llama-3-8B
SMALL: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 128256, "hidden_size": 1024, "intermediate_size": 3584,
    "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 128,
    "max_position_embeddings": 8192, "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip
LIMIT = 1e-5


def differences(one: list[Any], other: list[Any]) -> list[float]:
    """Of each label of each question, relative where a log-likelihood is beyond -1."""
    return [
        abs(a - b) / max(1.0, abs(b))
        for mine, theirs in zip(one, other, strict=True)
        for a, b in zip(mine.logprobs, theirs.logprobs, strict=True)
    ]


def predicted(run: Run, engine: Any) -> list[Any]:
    """The predictions of the engine in packed passes, or without one of transformers, a question at a time."""
    packed = engine is not None
    predictor = run.predictor(engine, 64, 8192 if packed else 1, generate=packed, packed=packed)
    return list(predictor.predict(run.records, run.examples))


def main(file: str, tokenizer: str, count: str = "100") -> int:
    expected: list[Any] = []
    right = True
    types = [torch.float32, torch.bfloat16] if DEVICE.type == "cuda" else [torch.float32]
    for dtype in types:
        run = Run(file, tokenizer, SMALL, int(count), dtype)
        theirs = predicted(run, None)
        expected = expected or theirs
        for name, cached in (("nf4", False), ("cached", True)):
            engine = run.engine(cached)
            ours = predicted(run, engine)
            engine.release()
            gaps, from_float32 = differences(ours, theirs), differences(ours, expected)
            decisions = sum(a.decision == b.decision for a, b in zip(ours, theirs, strict=True))
            right &= dtype != torch.float32 or max(gaps) <= LIMIT
            say(
                label_scores=str(dtype), weights=name, questions=len(ours), labels=len(gaps), most=max(gaps),
                mean=sum(gaps) / len(gaps), equal_decisions=decisions, most_from_float32=max(from_float32),
                transformers_from_float32=max(differences(theirs, expected)),
            )  # fmt: skip
    say(right=right)
    return int(not right)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
