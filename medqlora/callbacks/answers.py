"""From the predictions of `predict` to a file."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from medqlora.callbacks.test_report import in_order
from medqlora.console import say
from medqlora.runs import write_text

DISCLAIMER = "Not medical advice; consult a healthcare professional."


class Answers(Callback):
    """Writes `predictions.jsonl`: a line a question, in the data's order, each with the disclaimer."""

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        lines = [
            {
                "id": one.id,
                "decision": one.decision,
                "confidence": one.confidence,
                "probabilities": dict(zip(one.labels, one.probabilities, strict=False)) or None,
                "text": one.text,
                "parsed": one.parsed,
                "note": DISCLAIMER,
            }
            for one in in_order(module.test_predictions, module.data.test)
        ]
        path = Path(str(trainer.log_dir)) / "predictions.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        say(f"{len(lines)} answers: {path}\n{DISCLAIMER}")
