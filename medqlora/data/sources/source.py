"""What a data source is to the rest of the project."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence

from medqlora.data.prompts.prompt import Prompt, lookup
from medqlora.records import BadRecord, Splits


class Source(ABC):
    """Reads records from somewhere. A new dataset is a new file in this folder with one subclass.

    Subclasses take plain values in their constructor (it is their command-line help), touch no file
    before `read`, and read the same splits every time they are given the same values.
    """

    #: what the reports call it
    name: str

    #: prompts that stand in for `--data.prompt`'s of the same name where this set is asked: a benchmark's
    #: own in lm-evaluation-harness as "lm_eval"
    prompts: Mapping[str, Prompt] = {}

    #: what `read` left out and why, a line each, for the person at the terminal; () before it
    remarks: tuple[str, ...] = ()

    #: the records that `read` left out because they can't be used (`on_bad_record: skip`); empty before it
    skipped: Sequence[BadRecord] = ()

    #: whether `read` refuses benchmarks' test questions among those to learn from; the datamodule turns it off, and
    #: does so itself, for every source and with its option
    checks_test_questions: bool = True

    def prompt(self, name: str) -> Prompt:
        """The prompt that `--data.prompt` means for this set: its own of that name, or everyone's.

        Raises:
            InputError: there is none; names the nearest.
        """
        return self.prompts[name] if name in self.prompts else lookup(name)

    @abstractmethod
    def read(self) -> Splits:
        """The three sets; `dev` or `test` may be empty, and no id is in two of them.

        Raises:
            InputError: a file is missing or malformed, or a record is not usable: names the file and
                line (or record id), the value and the fix.
        """

    def read_for(self, needed: Collection[str], also: Collection[str] = ()) -> Splits:
        """As `read`; a source whose splits are files of their own reads those alone that are named.

        Args:
            needed: the splits that are asked for, of "train", "dev" and "test".
            also: those that are taken where they are there, and may be empty or not whole.

        Raises:
            InputError: as `read`.
        """
        return self.read()

    def same_data(self, recorded: Mapping[str, object]) -> bool:
        """Whether an adapter's record of its data (`name` and the `fingerprint` of its source) is of this data set,
        whatever the copy, the fold or the prompt."""
        return recorded.get("name") == self.name

    @abstractmethod
    def fingerprint(self) -> dict[str, object]:
        """What decides the records read, as plain values, for caches and run records: the constructor's
        values and, for local files, their size and SHA-256."""
