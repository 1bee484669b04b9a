"""The LightningDataModule: records from a source, as tokens, as optimizer steps."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningDataModule

from medqlora.artifacts import checkpoint as checkpoints
from medqlora.config.data import COUNTS, DataOptions
from medqlora.data import Prompt, Source, encode_all, end_token_ids, read_questions
from medqlora.data.batching.loader import EvalLoader, StepLoader
from medqlora.data.batching.packing import StepBatch, step_batch
from medqlora.data.encoding.encode import encode
from medqlora.data.question_set import QuestionSet
from medqlora.data.sample import draw_sample
from medqlora.data.stages import read_stages
from medqlora.data.summary import content_free, describe
from medqlora.data.tell_tale import reject_tell_tale
from medqlora.errors import InputError
from medqlora.records import YES_NO_MAYBE, Encoded, Record
from medqlora.training.fit_plan import DEFAULT_TOKENS
from medqlora.training.stage_start import Stage, start_stage

#: micro-batches that evaluation fills from one group of questions
_GROUP = 4


class PubMedQADataModule(LightningDataModule):
    """Questions from a source, tokenized with a prompt: PubMedQA, or any set that a source reads.

    Args:
        source: where the records come from: `medqlora.data.PubMedQA`, `medqlora.data.JSONLines` or
            `medqlora.data.SyntheticTrials`.
        benchmarks: more sources, whose test questions `test` asks too, on the same loaded model.
        options: those of `medqlora.config.DataOptions`.
    """

    def __init__(
        self,
        source: Source,
        benchmarks: list[Source] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.options = DataOptions(**options)
        self.source = source
        self.benchmarks = benchmarks or []
        self.questions = self.options.questions
        self.prompt_name = self.options.prompt
        self.max_prompt_tokens = self.options.max_prompt_tokens
        self.batch_size = self.options.batch_size
        self.micro_batch_tokens = self.options.micro_batch_tokens
        self.packing = self.options.packing
        self.train_samples = self.options.train_samples
        self.eval_batch_size = self.options.eval_batch_size
        self.seed = self.options.seed
        self.allow_test_questions = self.options.allow_test_questions
        #: every record that was read, by id
        self.records: dict[str, Record] = {}
        self.train: list[Encoded] = []
        self.dev: list[Encoded] = []
        self.test: list[Encoded] = []
        #: what `test` asks: the source's own set, then the benchmarks
        self.sets: list[QuestionSet] = []
        #: the source's test questions, whatever was asked for: none of them may be trained on
        self.held_out: list[Record] = []
        self.prompt: Prompt | None = None
        #: what ends a generated answer
        self.end_token_ids: tuple[int, ...] = ()
        #: called once a stage, when the options are checked and nothing is read: the command line chooses the weights
        self.before_reading: Callable[[], None] = lambda: None
        #: the stage and the Trainer that `start` was called for, until Lightning's `setup` comes to it
        self._started: tuple[str, Any] | None = None
        self._tokenizer: Any = None
        self._loader: StepLoader | None = None
        #: the budget before this process lowered its own: processes deal questions out by one that all have
        self._dealt_by: int | None = None

    def check(self) -> None:
        """Raises InputError for options that no data can make right."""
        now = {name: getattr(self, name) for name in (*COUNTS, "seed")}
        replace(self.options, **now).check()

    def prepare_data(self) -> None:
        """Lightning's hook for downloads: fetches the tokenizer and builds the demo's base, where that is needed.

        One process alone makes all checks here. Between this hook and `setup` Lightning makes the logger's folder,
        and a refusal must leave none.
        """
        trainer = self.trainer
        if trainer is None or (self._started is not None and self._started[1] is trainer):
            return
        if trainer.world_size == 1 and trainer.state.fn is not None:
            self.start(cast(Stage, str(trainer.state.fn.value)))
        else:
            self._module.backend.tokenizer()

    def setup(self, stage: str) -> None:
        """Lightning's hook: reads and tokenizes what `stage` ("fit", "validate", "test", "predict") needs.

        Checks first what can be known to be wrong: options, callbacks, weights, records; see
        `medqlora.training.stage_start`.

        Raises:
            InputError: something is wrong, or no Trainer and no QLoRAModule are attached.
        """
        if self._started != (stage, self.trainer):
            self.start(cast(Stage, stage))
        self._started = None

    def start(self, stage: Stage) -> None:
        """What `setup` does, for who needs it before the Trainer begins; `setup` then does not repeat it."""
        if self.trainer is None:
            raise InputError(
                f"PubMedQADataModule.setup({stage!r}): no Trainer is attached, and the tokenizer is that of the "
                "module's base: pass the datamodule to trainer.fit(module, datamodule=…), or read by yourself with "
                "read(tokenizer, ('train', 'dev'))"
            )
        if stage == "fit":
            self.train, self.records = [], {}
            checkpoints.forget(self)
        self.dev, self.test, self.sets = [], [], []
        start_stage(self.trainer, self._module, self, stage)
        self._started = (stage, self.trainer)

    @property
    def _module(self) -> Any:
        module: Any = self.trainer.lightning_module  # type: ignore[union-attr]
        if not hasattr(module, "backend"):
            raise InputError(
                f"PubMedQADataModule: {type(module).__name__} has no `backend`, whose tokenizer is needed: use "
                "medqlora.module.QLoRAModule, or a subclass"
            )
        return module

    def read(
        self,
        tokenizer: Any,
        stages: tuple[str, ...],
        report: Callable[[str], None] = print,
        *,
        trained: Collection[str] = (),
        held_out: Collection[str] | None = None,
    ) -> None:
        """Reads and tokenizes what `stages` ("train", "dev", "test") need; says what it found.

        Args:
            tokenizer: the base's.
            stages: the sets to read.
            report: where to say it.
            trained: ids that the adapter under test learned: none of them may calibrate it.
            held_out: ids that it was validated on, whatever fold the source is set to now; None, or ids that
                the source hasn't, take the source's dev set.

        Raises:
            InputError: a record or an option is wrong, or a set that is needed is empty.
        """
        self._begin(tokenizer)
        splits = read_stages(
            self.source, stages, report, allow_test_questions=self.allow_test_questions
        )._asdict()
        self.held_out = splits["test"]
        if "train" in stages:
            splits["train"] = draw_sample(splits["train"], self.train_samples, self.seed)
        elif held_out is not None:
            found = [one for one in (*splits["train"], *splits["dev"]) if one.id in held_out]
            splits["dev"] = found or splits["dev"]  # of another source's adapter there are none
        splits["dev"] = [one for one in splits["dev"] if one.id not in trained]
        for name in stages:
            records: list[Record] = splits[name]
            if not records:
                if name == "dev":
                    continue  # a run without validation is the user's choice
                raise InputError(
                    f"--data.source: {self.source.name} has no {name} records: check its options"
                )
            self._take(name, records, self.source.name, report)
        self.sets = [self._question_set(self.source, self.records, self.test, self.dev)]

    def read_benchmarks(self, report: Callable[[str], None] = print) -> None:
        """Reads and tokenizes the test questions of `benchmarks`, after `read`.

        Raises:
            InputError: as `read`; or two sets have the same name.
        """
        for source in self.benchmarks:
            if any(source.name == other.source.name for other in self.sets):
                raise InputError(f"--data.benchmarks: {source.name} is asked twice: remove one")
            records = read_stages(source, ("test",), report).test
            if not records:
                raise InputError(f"--data.benchmarks: {source.name} has no test records: check its options")
            reject_tell_tale(records)
            encoded = encode_all(
                records, source.prompt(self.prompt_name), self._tokenizer, self.max_prompt_tokens
            )
            report(describe(source.name, "test", records, encoded))
            self.sets.append(self._question_set(source, {one.id: one for one in records}, encoded, []))

    def read_questions(
        self,
        tokenizer: Any,
        labels: Sequence[str] = YES_NO_MAYBE,
        report: Callable[[str], None] = print,
    ) -> None:
        """Reads and tokenizes the file `questions` in place of the source's test set.

        Args:
            tokenizer: the base's.
            labels: the possible decisions of a question without options; none for free answers.
            report: where to say what was found.

        Raises:
            InputError: the file or a question in it is wrong.
        """
        self._begin(tokenizer)
        assert self.questions is not None
        remarks: list[str] = []
        records = read_questions(self.questions, "--data.questions", labels, remarks=remarks)
        for remark in remarks:
            report(remark)
        self._take("test", records, self.questions, report)

    def _begin(self, tokenizer: Any) -> None:
        self.check()
        self._tokenizer = tokenizer
        self.prompt = self.source.prompt(self.prompt_name)
        self.end_token_ids = end_token_ids(self.prompt, tokenizer)

    def _take(self, name: str, records: list[Record], source: str, report: Callable[[str], None]) -> None:
        assert self.prompt is not None
        reject_tell_tale(records)
        encoded = encode_all(records, self.prompt, self._tokenizer, self.max_prompt_tokens)
        setattr(self, name, encoded)
        self.records.update((record.id, record) for record in records)
        report(describe(source, name, records, encoded))

    def _question_set(
        self, source: Source, records: Mapping[str, Record], test: list[Encoded], dev: list[Encoded]
    ) -> QuestionSet:
        prompt = source.prompt(self.prompt_name)
        asked = [records[example.id] for example in test]
        blank = content_free(asked)
        free = None if blank is None else encode(blank, prompt, self._tokenizer, self.max_prompt_tokens)
        return QuestionSet(source, prompt, records, test, dev, free)

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

    @property
    def longest(self) -> int:
        """Tokens of the longest example of all that was read, with the longest of its possible ends; 0 without any."""
        return 0 if self.longest_example is None else _length(self.longest_example)

    @property
    def longest_example(self) -> Encoded | None:
        """None where `predict` has nothing left to ask."""
        asked = [example for one in self.sets for example in one.test]
        return max([*self.train, *self.dev, *self.test, *asked], key=_length, default=None)

    def train_dataloader(self) -> StepLoader:
        trainer: Any = self.trainer
        if not self.train:
            raise InputError(
                "PubMedQADataModule: no training set was read: call read(tokenizer, ('train', 'dev')), or "
                "trainer.fit(module, datamodule=…)"
            )
        # the module settles `micro_batch_tokens` too
        packed = self.packing != "padded" if trainer is None else trainer.lightning_module.packed
        self._loader = StepLoader(
            self.train,
            self.batch_size,
            self.token_budget,
            packed=packed,
            pad_token_id=self._tokenizer.pad_token_id,
            seed=self.seed,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
            current_epoch=None if trainer is None else lambda: trainer.current_epoch,
        )
        return self._loader

    @property
    def token_budget(self) -> int:
        """`micro_batch_tokens` as a number: the module settles "auto" before a loader is asked for."""
        return DEFAULT_TOKENS if isinstance(self.micro_batch_tokens, str) else self.micro_batch_tokens

    def lower_micro_batch_tokens(self) -> None:
        """Halves the budget of the steps that come, in this process alone."""
        self._dealt_by = self._dealt_by or self.token_budget
        self.micro_batch_tokens = max(1, self.token_budget // 2)
        if self._loader is not None:
            self._loader.micro_batch_tokens = self.token_budget

    def step_of(self, ids: Sequence[str]) -> StepBatch:
        """The step over these training examples under the present budget."""
        assert self._loader is not None
        by_id = {example.id: example for example in self.train}
        return self._loader.collate([by_id[ident] for ident in ids])

    def alone(self, ids: Sequence[str]) -> StepBatch:
        """The step over these training examples, all of it in this process."""
        by_id = {example.id: example for example in self.train}
        assert self._loader is not None
        return step_batch(
            [by_id[ident] for ident in ids],
            self.token_budget,
            packed=self._loader.packed,
            pad_token_id=self._loader.pad_token_id,
        )

    def _evaluation(self, examples: Sequence[Encoded], *, in_order: bool = False) -> EvalLoader:
        trainer: Any = self.trainer
        return EvalLoader(
            examples,
            _GROUP * (self._dealt_by or self.token_budget),
            in_order=in_order,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
        )

    def val_dataloader(self) -> EvalLoader:
        return self._evaluation(self.dev)

    @property
    def test_parts(self) -> list[tuple[int, Literal["test", "dev"]]]:
        """What each of the test loaders asks: the index of its set, and which part of that."""
        parts: list[tuple[int, Literal["test", "dev"]]] = []
        for index, one in enumerate(self.sets):
            parts += [(index, "test"), (index, "dev")] if one.dev else [(index, "test")]
        return parts

    def test_dataloader(self) -> list[EvalLoader]:
        """Of each set the test questions, then those on which confidence is calibrated."""
        return [
            self._evaluation(self.sets[index].test if part == "test" else self.sets[index].dev)
            for index, part in self.test_parts
        ]

    def predict_dataloader(self) -> EvalLoader:
        return self._evaluation(self.test, in_order=True)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if not isinstance(batch, StepBatch):
            return batch  # evaluation collates for itself
        return batch._replace(micro_batches=tuple(micro.to(device) for micro in batch.micro_batches))


def _length(example: Encoded) -> int:
    return len(example.prompt) + max(map(len, (example.completion, *example.labels)))
