"""One question at a time, without a Trainer: a base with an adapter, as its own record says it was trained."""

from contextlib import AbstractContextManager
from typing import Any

import torch

from medqlora import models
from medqlora.data import Prompt, end_token_ids, lookup
from medqlora.data.encoding.encode import encode
from medqlora.errors import InputError
from medqlora.inference import Answer, Calibration, answer_of
from medqlora.inference.evaluator import Evaluator
from medqlora.inference.generation import generate
from medqlora.models.adapters import RECORD_FILE, base_of, read_adapter
from medqlora.models.precision import DTYPES
from medqlora.models.token_ids import check_token_ids
from medqlora.records import YES_NO_MAYBE, Record

#: tokens of a prompt where the adapter's record doesn't say
_PROMPT_TOKENS = 1024


class Predictor:
    """Answers single questions.

    Args:
        adapter: its folder, in PEFT's format; with this project's record beside it, the base, the prompt,
            the labels and the calibration are those it was trained with.
        base: the base's name or folder, where it isn't what the record says.
        backend: the class of `medqlora.models` to load it with; None for the record's.
        device: where to.
        max_new_tokens: where a written answer is cut.

    Raises:
        InputError: the folder holds no adapter, or the base can't be had.
    """

    def __init__(
        self,
        adapter: str,
        *,
        base: str | None = None,
        backend: str | None = None,
        device: torch.device,
        max_new_tokens: int = 96,
    ) -> None:
        record: dict[str, Any] = read_adapter(adapter, "--adapter")
        options = dict(record.get("backend_options", {"base": base_of(adapter)}))
        if base is not None:
            options["base"] = base
        self.backend: models.Backend = _backend(backend or record.get("backend", "Transformers"), options)
        trained = record.get("training", {})
        self._dtype = DTYPES.get(trained.get("precision", ""), torch.float32)
        if device.type == "cpu":
            self._dtype = torch.float32
        self.prompt: Prompt = lookup(record.get("prompt", {}).get("name", "medical"))
        self.labels = tuple(record.get("labels", YES_NO_MAYBE))
        self._prompt_tokens = record.get("data", {}).get("max_prompt_tokens", _PROMPT_TOKENS)
        found = record.get("calibration")
        self.calibration = None if found is None else Calibration.from_json(found, f"{adapter}/{RECORD_FILE}")
        #: whether it learned to answer from a context
        self.wants_context: bool = record.get("data", {}).get("with_contexts", True)
        self._device = device
        self._max_new_tokens = max_new_tokens
        self.backend.check_files()
        self.backend.check_adapter(adapter, "--adapter")
        self._tokenizer: Any = self.backend.tokenizer()
        self._model: Any = self.backend.load(
            lora=None, adapter=adapter, device=device, dtype=self._dtype, seed=0
        )
        self._model.eval()
        self._evaluator = self._evaluates()

    def answer(self, record: Record, note: str) -> Answer:
        """The answer to one question.

        Args:
            record: the question, its contexts, and its options or labels.
            note: what the answer ends with.

        Raises:
            InputError: the question is too long.
        """
        example = encode(record, self.prompt, self._tokenizer, self._prompt_tokens)
        check_token_ids(self.backend, [example])
        with self._precision():
            prediction = self._evaluator.evaluate([example], {record.id: record}).predictions[0]
        return answer_of(prediction, record, self.calibration, note)

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32)

    def _evaluates(self) -> Evaluator:
        def write(prompts: Any) -> list[list[int]]:
            with self.backend.generating(self._model):
                return generate(
                    self._model,
                    prompts,
                    max_new_tokens=self._max_new_tokens,
                    end_token_ids=end_token_ids(self.prompt, self._tokenizer),
                    pad_token_id=self._tokenizer.pad_token_id,
                    device=self._device,
                )

        return Evaluator(
            self.backend.decoder(self._model),
            write,
            tokenizer=self._tokenizer,
            micro_batch_tokens=self._prompt_tokens,
            packed=False,  # a question is a row by itself
            pad_token_id=self._tokenizer.pad_token_id,
            device=self._device,
            rows=1,
        )


def _backend(name: str, options: dict[str, Any]) -> models.Backend:
    if name not in ("Unsloth", "Transformers", "TinyLlama"):
        raise InputError(f"{RECORD_FILE}: the backend {name!r} is not known: pass --backend Transformers")
    kind = getattr(models, name)
    known = kind.option_names()
    try:
        return kind(**{key: value for key, value in options.items() if key in known})
    except TypeError as error:  # an option that is needed and not recorded
        raise InputError(f"--backend {name}: {error}: pass --base") from error
