"""What a data source is to the rest of the project."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence

from medqlora.data.prompts import Prompt, lookup
from medqlora.data.prompts.rationale_first import SUFFIX, RationaleFirst
from medqlora.records import BadRecord, Splits
from medqlora.utils.registry import Registry


class Source(ABC):
    """Reads records from a data set. A new data set is a new file in this folder with one registered subclass.

    The constructor of a subclass takes plain values (it is the command-line help). A subclass opens no file before
    `read`, and reads the same splits whenever it has the same values.
    """

    #: the data set's name in reports
    name: str

    #: the data set's name on the Hub, for model cards; None where it has none
    hub: str | None = None

    #: what the records' topics are, in a report's headings
    topic_kind: str = "topic"

    #: prompts that replace `--data.prompt`'s of the same name for this data set: a benchmark's own prompt in
    #: lm-evaluation-harness is its "lm_eval"
    prompts: Mapping[str, Prompt] = {}

    #: whether the records are invented: an adapter trained on them knows nothing of medicine, and its answers say so
    invented: bool = False

    #: lines for the terminal on how the files were read and what `read` left out; () before `read`
    remarks: tuple[str, ...] = ()

    #: the unusable records that `read` left out (`on_bad_record: skip`); empty before `read`
    skipped: Sequence[BadRecord] = ()

    #: whether `read` rejects benchmarks' test questions in the training and validation sets; the datamodule sets it
    #: to False, and rejects them itself, for every source and with its option
    checks_test_questions: bool = True

    def prompt(self, name: str) -> Prompt:
        """The prompt that `--data.prompt` selects for this data set: its own of that name, or the general one.

        Raises:
            InputError: there is no such prompt; names the nearest.
        """
        if name.endswith(SUFFIX):
            return RationaleFirst(self.prompt(name.removesuffix(SUFFIX)))
        return self.prompts[name] if name in self.prompts else lookup(name)

    @abstractmethod
    def read(self) -> Splits:
        """The three sets; `dev` or `test` may be empty, and no id is in two of them.

        Raises:
            InputError: a file is missing or malformed, or a record is not usable: names the file and
                line (or record id), the value and the fix.
        """

    def read_for(self, needed: Collection[str], also: Collection[str] = ()) -> Splits:
        """Like `read`; a source with one file per split reads only the splits named here.

        Args:
            needed: required splits, of "train", "dev" and "test".
            also: splits to add where they exist; they may be empty or incomplete.

        Raises:
            InputError: as `read`.
        """
        return self.read()

    def same_data(self, recorded: Mapping[str, object]) -> bool:
        """Whether an adapter was trained on this data set, whatever the copy, the fold or the prompt.

        Args:
            recorded: the adapter's record of its data: `name`, and the `fingerprint` of its source.
        """
        return recorded.get("name") == self.name

    @abstractmethod
    def fingerprint(self) -> dict[str, object]:
        """What decides the records, as plain values, for caches and run records: the constructor's values and, for
        local files, their size and SHA-256."""


#: class name → class; a module in this folder, an entry point or a plugin adds one with `@SOURCES.register("Name")`
SOURCES: Registry[type[Source]] = Registry("source", "medqlora.sources", __package__)


def source_names() -> tuple[str, ...]:
    """The class path of each registered source, those of plugins included: "medqlora.data.PubMedQA"."""
    return tuple(
        f"medqlora.data.{name}"
        if kind.__module__.startswith(f"{__package__}.")
        else f"{kind.__module__}.{name}"
        for name, kind in SOURCES
    )
