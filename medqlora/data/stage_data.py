"""The data of a run: records of a source, tokenized with a prompt, and the loaders over them. No Lightning."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from medqlora.config.data import SAMPLES, DataOptions, check_memory
from medqlora.data import Prompt, Source, encode_all, end_token_ids, read_questions
from medqlora.data.batching.budget import TokenBudget
from medqlora.data.batching.epochs import EpochPlan, Part
from medqlora.data.batching.loader import EvalLoader, StepLoader
from medqlora.data.batching.packing import StepBatch, step_batch
from medqlora.data.encoding.encode import encode
from medqlora.data.encoding.image_slots import ImageReader
from medqlora.data.prompts.rationale_first import SUFFIX
from medqlora.data.question_set import QuestionSet
from medqlora.data.retrieved import Retrieval
from medqlora.data.sample import Sample, check_size, draw_by_label, draw_sample
from medqlora.data.set_sizes import SetSizes
from medqlora.data.stages import read_stages
from medqlora.data.summary import content_free, describe, report_unread_images
from medqlora.data.tell_tale import reject_tell_tale
from medqlora.data.topics import select
from medqlora.data.training_stages import (
    TrainingStage,
    balanced_part,
    check_stages,
    read_training_stages,
)
from medqlora.data.wording import no_records
from medqlora.errors import InputError
from medqlora.records import YES_NO_MAYBE, Encoded, Record
from medqlora.utils.types import Tokenizer

#: micro-batches that evaluation fills from one group of questions
_GROUP = 4
Report = Callable[[str], None]


class StageData(SetSizes):
    """Questions from a source, tokenized with a prompt.

    Args:
        source: the records.
        benchmarks: more sources, whose test questions `test` evaluates too.
        options: see `DataOptions`.
        stages: of a training in stages; none trains on the source's training set.

    Attributes:
        records: id → record, all that were read.
        parts: the epochs of a fit; empty until its training set is read.
        stage_names: names of `parts` in a training in stages.
        train, dev, test: tokenized sets, empty until `read`.
        sets: question sets of `test`: the source's own, then the benchmarks.
        samples: "dev" or "test" → what the set is a sample of; without those that are whole.
        held_out: test records of the source; training on them is refused.
        prompt: template of the source; None until `read`.
        end_token_ids: tokens that end a generated answer.
        budget: tokens of a micro-batch; a process may lower its own while it trains.
    """

    def __init__(
        self,
        source: Source,
        benchmarks: list[Source] | None,
        options: DataOptions,
        stages: Sequence[TrainingStage] | None = None,
    ) -> None:
        self.source = source
        self.benchmarks = benchmarks or []
        self.options = options
        self.questions = options.questions
        self.prompt_name = options.prompt + (SUFFIX if options.rationale == "before" else "")
        self.max_prompt_tokens = options.max_prompt_tokens
        self.batch_size = options.batch_size
        self.packing = options.packing
        self.train_samples = options.train_samples
        self.validation_samples = options.validation_samples
        self.test_samples = options.test_samples
        self.eval_batch_size = options.eval_batch_size
        #: the same as a number, None where the memory decides
        self.eval_rows = None if options.eval_batch_size == "auto" else options.eval_batch_size
        #: bytes of GPU memory that an evaluation may fill, None for what is free
        self.eval_memory = options.eval_memory
        self.seed = options.seed
        self.allow_test_questions = options.allow_test_questions
        self.budget = TokenBudget(options.micro_batch_tokens)
        self.training_stages = tuple(stages or ())
        self.parts: list[Part] = []
        self.stage_names: list[str] = []
        self.records: dict[str, Record] = {}
        self.train: list[Encoded] = []
        self.dev: list[Encoded] = []
        self.test: list[Encoded] = []
        self.sets: list[QuestionSet] = []
        self.samples: dict[str, Sample] = {}
        self.held_out: list[Record] = []
        self.prompt: Prompt | None = None
        self.end_token_ids: tuple[int, ...] = ()
        self._tokenizer: Tokenizer | None = None
        self._loader: StepLoader | None = None
        #: replaces the questions' contexts by retrieved ones; None leaves them
        self.retrieval: Retrieval | None = None
        #: counts the tokens of the questions' images; None for a base that reads text alone
        self.images: ImageReader | None = None

    # ---- reading ---------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises InputError for a value that is wrong for every data set."""
        values = {
            "max_prompt_tokens": self.max_prompt_tokens,
            "batch_size": self.batch_size,
            "micro_batch_tokens": self.budget.option,
            "eval_batch_size": self.eval_batch_size,
            **{name: getattr(self, name) for name in SAMPLES},
        }
        for option, value in values.items():
            if isinstance(value, int) and value < 1:
                raise InputError(f"--data.{option} is {value}: it has to be at least 1")
        check_memory(self.options.eval_memory_gib)
        check_stages(self.training_stages)
        if not -(2**63) <= self.seed < 2**63:  # torch's range
            raise InputError(f"--data.seed is {self.seed}: it has to be below 2**63")

    def read(
        self,
        tokenizer: Tokenizer,
        stages: tuple[str, ...],
        report: Report = print,
        *,
        trained: Callable[[Sequence[Record]], Collection[str]] = lambda records: (),
        held_out: Collection[str] | None = None,
    ) -> None:
        """Reads and tokenizes the sets `stages` ("train", "dev", "test").

        Args:
            tokenizer: of the base model.
            stages: names of the sets.
            report: called with a line for each set.
            trained: gives the ids of the records that the evaluated adapter trained on, which are left out of the
                validation set.
            held_out: validation ids of the evaluated adapter, whatever fold the source has now; None, or ids that
                the source does not have, take the source's validation set.

        Raises:
            InputError: a record or an option is wrong, or a required set is empty.
        """
        self._begin(tokenizer)
        self.retrieval = self.make_retrieval(tokenizer)
        splits: dict[str, list[Record]] = read_stages(
            self.source, stages, report, allow_test_questions=self.allow_test_questions
        )._asdict()
        self.held_out, validation = splits["test"], splits["dev"]
        if self.options.selected_topics:
            splits, line = select(splits, self.options.selected_topics, stages)
            report(line)
        if self.retrieval is not None:
            # also what `topics` leaves out: the adapter may be tested on all questions
            self.retrieval.held_out = (
                set()
                if "test" in stages
                else {name for record in self.held_out for name in (record.id, *record.aliases)}
            )
        if "train" in stages:
            splits["train"] = draw_sample(splits["train"], self.train_samples, self.seed)
        elif held_out is not None:
            known = [record for record in (*splits["train"], *splits["dev"]) if record.id in held_out]
            splits["dev"] = known or splits["dev"]  # an adapter of another source has none
        learned = trained(splits["dev"])
        splits["dev"] = [record for record in splits["dev"] if record.id not in learned]
        self._sample(splits, stages)
        for name in stages:
            if name == "train" and self.training_stages:
                self._take_stages(splits, validation, report)
            elif splits[name]:
                self._take(name, splits[name], self.source.name, report)
            elif name != "dev":  # a run without validation is the user's choice
                raise no_records(self.source.name, name)
        sample = self.samples.get("test")
        self.sets = [self._question_set(self.source, self.records, self.test, self.dev, sample)]

    def read_benchmarks(self, report: Report = print) -> None:
        """Reads and tokenizes the test questions of `benchmarks`, after `read`.

        Raises:
            InputError: as `read`; or two sets have the same name.
        """
        for source in self.benchmarks:
            if any(source.name == other.source.name for other in self.sets):
                raise InputError(f"--data.benchmarks: {source.name} is evaluated twice: remove one")
            records = read_stages(source, ("test",), report).test
            if not records:
                raise InputError(f"--data.benchmarks: {source.name} has no test records: check its options")
            records, sample = draw_by_label("test", records, self.test_samples, self.seed)
            reject_tell_tale(records)
            records = self._retrieved(records, report)
            encoded = self._encoded(records, source.prompt(self.prompt_name))
            report_unread_images(source.name, "test", records, self.images, report)
            report(describe(source.name, "test", records, encoded, sample))
            by_id = {record.id: record for record in records}
            self.sets.append(self._question_set(source, by_id, encoded, [], sample))

    def read_questions(
        self, tokenizer: Tokenizer, labels: Sequence[str] = YES_NO_MAYBE, report: Report = print
    ) -> None:
        """Reads and tokenizes the file `questions` instead of the source's test set.

        Args:
            tokenizer: of the base model.
            labels: decisions of a question without options; empty for free answers.
            report: called with a line for each remark and set.

        Raises:
            InputError: the file or a question in it is wrong.
        """
        self._begin(tokenizer)
        self.samples = {}
        self.retrieval = self.make_retrieval(tokenizer)
        assert self.questions is not None
        remarks: list[str] = []
        records = read_questions(self.questions, "--data.questions", labels, remarks=remarks)
        for remark in remarks:
            report(remark)
        self._take("test", records, self.questions, report)

    def make_retrieval(self, tokenizer: Tokenizer) -> Retrieval | None:
        """What retrieves the contexts of this stage; a subclass that knows an index makes it."""
        return None

    def _sample(self, splits: dict[str, list[Record]], stages: Sequence[str]) -> None:
        """Draws the samples of the sets that are evaluated."""
        self.samples = {}
        for name, count in (("dev", self.validation_samples), ("test", self.test_samples)):
            if name not in stages or not splits[name]:
                continue
            if name == stages[-1] or "train" in stages:  # `test` takes the dev questions that there are
                check_size(name, count, len(splits[name]))
            splits[name], sample = draw_by_label(name, splits[name], count, self.seed)
            if sample is not None:
                self.samples[name] = sample

    @property
    def _read_with(self) -> Tokenizer:
        assert self._tokenizer is not None, "no set was read"
        return self._tokenizer

    def _begin(self, tokenizer: Tokenizer) -> None:
        self.check()
        self._tokenizer = tokenizer
        self.prompt = self.source.prompt(self.prompt_name)
        self.end_token_ids = end_token_ids(self.prompt, tokenizer)

    def _take(self, name: str, records: list[Record], source: str, report: Report) -> None:
        assert self.prompt is not None
        reject_tell_tale(records)
        records = self._retrieved(records, report)
        encoded = self._encoded(self.learned(records), self.prompt)
        report_unread_images(source, name, records, self.images, report)
        setattr(self, name, encoded)
        self.records.update((record.id, record) for record in records)
        report(describe(source, name, records, encoded, self.samples.get(name)))
        if name == "train":
            part = balanced_part(encoded, self.records, self.options, where="--data.balance", report=report)
            self.stage_names, self.parts, self.train = [], [part], list(part.examples)

    def learned(self, records: Sequence[Record]) -> Sequence[Record]:
        """The records as they are tokenized: without the rationale of a decision where none is to be learned."""
        if self.options.rationale != "none":
            return records
        return [replace(record, long_answer="") if record.labels else record for record in records]

    def _take_stages(
        self, splits: Mapping[str, list[Record]], validation: list[Record], report: Report
    ) -> None:
        """Reads the training sets of the stages; `train` then holds each of their examples once."""

        def encoded(source: Source, records: list[Record]) -> tuple[list[Record], list[Encoded]]:
            reject_tell_tale(records)
            records = self._retrieved(records, report)
            report_unread_images(source.name, "train", records, self.images, report)
            return records, self._encoded(self.learned(records), source.prompt(self.prompt_name))

        held_out = {"validation": validation, "test": self.held_out}  # whole: no sample, and every topic
        found = read_training_stages(
            self.training_stages, self.source, splits, self.options, encoded, report, held_out
        )
        self.records.update(found.records)
        self.parts, self.stage_names = found.parts, found.names
        self.train = list({example.id: example for part in found.parts for example in part.examples}.values())

    def _question_set(
        self,
        source: Source,
        records: Mapping[str, Record],
        test: list[Encoded],
        dev: list[Encoded],
        sample: Sample | None,
    ) -> QuestionSet:
        prompt = source.prompt(self.prompt_name)
        blank = content_free([records[example.id] for example in test])
        free = None if blank is None else encode(blank, prompt, self._read_with, self.max_prompt_tokens)
        retrieval = None
        if self.retrieval is not None:
            retrieval = self.retrieval.of_set(test, prompt, self._read_with, self.max_prompt_tokens)
        topics = self.options.selected_topics if source is self.source else ()
        return QuestionSet(source, prompt, records, test, dev, free, sample, retrieval, topics)

    def _encoded(self, records: Sequence[Record], prompt: Prompt) -> list[Encoded]:
        return encode_all(records, prompt, self._read_with, self.max_prompt_tokens, images=self.images)

    def _retrieved(self, records: list[Record], report: Report) -> list[Record]:
        return records if self.retrieval is None else self.retrieval.contexts(records, report)

    # ---- batches ---------------------------------------------------------------------------------

    def train_loader(
        self,
        *,
        packed: bool,
        rank: int = 0,
        world_size: int = 1,
        current_epoch: Callable[[], int] | None = None,
    ) -> StepLoader:
        """Makes the loader of optimizer steps; `step_of` and `alone` follow it.

        Args:
            packed: whether a row holds several examples.
            rank, world_size: share of this process.
            current_epoch: see `StepLoader`.

        Raises:
            InputError: no training set was read.
        """
        if not self.train or self._tokenizer is None:
            raise InputError(
                "PubMedQADataModule: no training set was read: call read(tokenizer, ('train', 'dev')), or "
                "trainer.fit(module, datamodule=…)"
            )
        self._loader = StepLoader(
            self.train,
            self.batch_size,
            self.budget,
            packed=packed,
            pad_token_id=self._tokenizer.pad_token_id or 0,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            current_epoch=current_epoch,
            plan=EpochPlan(self.parts, self.seed) if self.parts else None,
        )
        return self._loader

    def step_of(self, ids: Sequence[str]) -> StepBatch:
        """Makes the step over these training examples under the present budget."""
        assert self._loader is not None
        by_id = {example.id: example for example in self._loader.present()}
        return self._loader.collate([by_id[ident] for ident in ids])

    def alone(self, ids: Sequence[str]) -> StepBatch:
        """Makes the step over these training examples, all of it in this process."""
        assert self._loader is not None
        by_id = {example.id: example for example in self._loader.present()}
        return step_batch(
            [by_id[ident] for ident in ids],
            self.budget.value,
            packed=self._loader.packed,
            pad_token_id=self._loader.pad_token_id,
        )

    def evaluation_loader(
        self, examples: Sequence[Encoded], *, in_order: bool = False, rank: int = 0, world_size: int = 1
    ) -> EvalLoader:
        """Makes the loader of question groups; arguments as `EvalLoader`."""
        tokens = _GROUP * self.budget.common
        return EvalLoader(examples, tokens, in_order=in_order, rank=rank, world_size=world_size)

    @property
    def test_parts(self) -> list[tuple[int, Literal["test", "dev"]]]:
        """Contents of each test loader: index of its question set, and the part of the set."""
        parts: list[tuple[int, Literal["test", "dev"]]] = []
        for index, questions in enumerate(self.sets):
            parts += [(index, "test"), (index, "dev")] if questions.dev else [(index, "test")]
        return parts
