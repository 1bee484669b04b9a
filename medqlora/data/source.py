"""What a data source is to the rest of the project."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from medqlora.data.prompts import Prompt, lookup
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

    @abstractmethod
    def fingerprint(self) -> dict[str, object]:
        """What decides the records read, as plain values, for caches and run records: the constructor's
        values and, for local files, their size and SHA-256."""
