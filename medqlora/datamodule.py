"""The LightningDataModule: records from a source, as tokens, as optimizer steps."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule

from medqlora.data import Prompt, Source, encode_all, end_token_ids, lookup
from medqlora.data.loader import EvalLoader, StepLoader
from medqlora.data.packing import StepBatch
from medqlora.errors import InputError
from medqlora.records import Encoded, Record


class PubMedQADataModule(LightningDataModule):
    """Questions from a source, tokenized with a prompt: PubMedQA, or any set that a source reads.

    Args:
        source: where the records come from: `medqlora.data.PubMedQA`, `medqlora.data.JSONLines` or
            `medqlora.data.SyntheticTrials`.
        prompt: medical, chat (the tokenizer's chat template), or lm_eval (lm-evaluation-harness's).
        max_prompt_tokens: longer prompts have their context shortened, never the question or the answer.
        batch_size: examples in one optimizer step, over all processes.
        micro_batch_tokens: tokens that go through the model at once: memory and speed depend on it, the
            result does not.
        packing: "packed" rows hold several examples that don't see each other, "padded" rows one; "auto"
            packs where a comparison on the model at start shows that it makes no difference.
        train_samples: train on this many examples, drawn by `seed`; null for all.
        eval_batch_size: questions that are asked at once in evaluation, at most; fewer where their prompts
            have more than `micro_batch_tokens` together.
        seed: of the sample, the order of the examples and the adapters' initialisation.
    """

    def __init__(
        self,
        source: Source,
        prompt: str = "medical",
        max_prompt_tokens: int = 1024,
        batch_size: int = 8,
        micro_batch_tokens: int = 2048,
        packing: Literal["auto", "packed", "padded"] = "auto",
        train_samples: int | None = None,
        eval_batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.source = source
        self.prompt_name = prompt
        self.max_prompt_tokens = max_prompt_tokens
        self.batch_size = batch_size
        self.micro_batch_tokens = micro_batch_tokens
        self.packing = packing
        self.train_samples = train_samples
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        #: every record that was read, by id
        self.records: dict[str, Record] = {}
        self.train: list[Encoded] = []
        self.dev: list[Encoded] = []
        self.test: list[Encoded] = []
        self.prompt: Prompt | None = None
        #: what ends a generated answer
        self.end_token_ids: tuple[int, ...] = ()
        self._tokenizer: Any = None

    def check(self) -> None:
        """Raises InputError for options that no data can make right."""
        for option in (
            "max_prompt_tokens",
            "batch_size",
            "micro_batch_tokens",
            "eval_batch_size",
            "train_samples",
        ):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise InputError(f"--data.{option} is {value}: it has to be at least 1")

    def read(self, tokenizer: Any, stages: tuple[str, ...], report: Callable[[str], None] = print) -> None:
        """Reads and tokenizes what `stages` ("train", "dev", "test") need; says what it found.

        Raises:
            InputError: a record or an option is wrong, or a set that is needed is empty.
        """
        self.check()
        self._tokenizer = tokenizer
        self.prompt = lookup(self.prompt_name)
        self.end_token_ids = end_token_ids(self.prompt, tokenizer)
        splits = self.source.read()._asdict()
        if "train" in stages:
            splits["train"] = self._sample(splits["train"])
        for name in stages:
            records: list[Record] = splits[name]
            if not records:
                if name == "dev":
                    continue  # a run without validation is the user's choice
                raise InputError(
                    f"--data.source: {self.source.name} has no {name} records: check its options"
                )
            encoded = encode_all(records, self.prompt, tokenizer, self.max_prompt_tokens)
            setattr(self, name, encoded)
            self.records.update((record.id, record) for record in records)
            report(_describe(self.source.name, name, records, encoded))

    def _sample(self, records: list[Record]) -> list[Record]:
        if self.train_samples is None or self.train_samples == len(records):
            return records
        if self.train_samples > len(records):
            raise InputError(
                f"--data.train_samples is {self.train_samples}, but the training set holds {len(records)}: "
                "lower it, or leave it out to train on all"
            )
        chosen = set(random.Random(f"{self.seed}/sample").sample(range(len(records)), self.train_samples))
        return [record for index, record in enumerate(records) if index in chosen]

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch; the last one may hold fewer examples."""
        return -(-len(self.train) // self.batch_size)

    def probe(self) -> list[Encoded]:
        """A few short examples of different lengths, for the comparison of packed with single rows."""
        by_length: dict[int, Encoded] = {}
        for example in [*self.train, *self.dev, *self.test]:
            by_length.setdefault(len(example.prompt) + len(example.completion), example)
        shortest = [by_length[length] for length in sorted(by_length)[:3]]
        return shortest * 2 if len(shortest) == 1 else shortest

    def train_dataloader(self) -> StepLoader:
        module: Any = self.trainer.lightning_module  # type: ignore[union-attr]
        trainer: Any = self.trainer
        return StepLoader(
            self.train,
            self.batch_size,
            self.micro_batch_tokens,
            packed=module.packed,
            pad_token_id=self._tokenizer.pad_token_id,
            seed=self.seed,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            current_epoch=lambda: trainer.current_epoch,
        )

    def val_dataloader(self) -> EvalLoader:
        return EvalLoader(self.dev, self.eval_batch_size, self.micro_batch_tokens)

    def test_dataloader(self) -> list[EvalLoader]:
        """The test questions, then the validation questions, on which confidence is calibrated."""
        return [
            EvalLoader(examples, self.eval_batch_size, self.micro_batch_tokens)
            for examples in (self.test, self.dev)
            if examples
        ]

    def predict_dataloader(self) -> EvalLoader:
        return EvalLoader(self.test, self.eval_batch_size, self.micro_batch_tokens)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if not isinstance(batch, StepBatch):
            return batch  # evaluation collates for itself
        return batch._replace(micro_batches=tuple(micro.to(device) for micro in batch.micro_batches))


def _describe(source: str, split: str, records: list[Record], encoded: list[Encoded]) -> str:
    """One line: how many, of which answers, how long, how many were shortened."""
    answers = Counter(record.answer for record in records if record.labels)
    labels = dict.fromkeys(label for record in records for label in record.labels)
    parts = [f"{answers[label]} {label}" for label in labels if answers[label]]
    lengths = [len(example.prompt) + len(example.completion) for example in encoded]
    shortened = sum(example.dropped > 0 for example in encoded)
    line = f"{source} {split}: {len(records)} questions"
    line += f" ({', '.join(parts[:6])})" if parts else ""
    line += f", {sum(lengths) / len(lengths):.0f} tokens each (at most {max(lengths)})"
    if shortened:
        line += (
            f"; the context of {shortened} was shortened, by {sum(e.dropped for e in encoded)} tokens in all"
        )
    return line
