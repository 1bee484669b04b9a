"""Label log-likelihoods from an adapter folder by transformers and PEFT alone: what any server of PEFT adapters adds.

Nothing of this project's loading, scoring or quantization is used, so that its faults would be seen. Only the files of
a GPTQ or AWQ base are read by `models.int4`.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from medqlora.config.stored_quantization import stored_method
from medqlora.errors import InputError
from medqlora.models import hub
from medqlora.models.quantization import INT4, settle, stored_config
from medqlora.records import Encoded, Prediction, Record


class PlainPEFT:
    """An adapter on a base model as its files hold it, in float32.

    Args:
        base: the base model's folder or its name on the Hub. Files that bitsandbytes quantized stay quantized.
        adapter: folder in PEFT's format.
        device: where the model computes.

    Raises:
        InputError: the adapter does not fit the base model.
    """

    def __init__(self, base: str, adapter: Path, device: torch.device) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        packed: dict[str, object] = {}
        stored = stored_config(hub.load_config(base))
        if stored is not None and stored_method(stored) in INT4:
            from medqlora.models.int4.reading import packed_config

            packed["config"] = packed_config(hub.load_config(base), stored, base)
        bare = AutoModelForCausalLM.from_pretrained(
            base, dtype=torch.float32, device_map={"": device}, **packed
        )
        settle(bare, device, torch.float32)  # else 4-bit layers round their products, and repack on a CPU
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that transformers has renamed
            try:
                self._model = PeftModel.from_pretrained(bare, str(adapter)).eval()
            except (RuntimeError, ValueError, KeyError) as error:
                raise _misfit(base) from error
        self._base, self._rows = base, len(bare.get_input_embeddings().get_parameter("weight"))
        self._device = device

    @torch.no_grad()
    def _log_probability(self, prompt: Sequence[int], label: Sequence[int]) -> float:
        ids = torch.tensor([[*prompt, *label]], device=self._device)
        logits = self._model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
        chosen = logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])
        return float(chosen.sum())

    def predict(
        self,
        examples: Sequence[Encoded],
        records: Sequence[Record],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Prediction]:
        """Predictions with label log-likelihoods, in the order of `examples`.

        Raises:
            InputError: the base model has another vocabulary.
        """
        ids = [*(example.prompt for example in examples), *(ids for one in examples for ids in one.labels)]
        if max(map(max, ids)) >= self._rows:
            raise _misfit(self._base)
        by_id = {record.id: record for record in records}
        found = []
        for done, example in enumerate(examples, 1):
            record = by_id[example.id]
            scores = tuple(self._log_probability(example.prompt, label) for label in example.labels)
            found.append(
                Prediction(example.id, record.answer, record.labels, scores, tuple(map(len, example.labels)))
            )
            progress(done, len(examples))
        return found


def _misfit(base: str) -> InputError:
    return InputError(
        f"--base {base}: the adapter does not fit it: name the base model that it was trained on"
    )
