"""How a command asks several adapters of one base model: it loads them, and shows the progress of their answers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from medqlora.commands.on_one_base import device_of, option_of
from medqlora.utils.progress import Bar, phase

if TYPE_CHECKING:
    from medqlora.commands.lightning_cli import MedQLoRACLI
    from medqlora.config.model import Decoding
    from medqlora.data.question_set import QuestionSet
    from medqlora.inference.several import PassLimits, SeveralAdapters
    from medqlora.records import Encoded, Prediction, Record


def load_several(
    folders: Sequence[str], built: "MedQLoRACLI", words: Sequence[str], option: str = "--model.adapter"
) -> "SeveralAdapters":
    """Loads adapters on their base model, to be asked as a command's options say.

    Args:
        folders: adapter folders, at least one.
        built: of the command.
        words: of the command, which name the device.
        option: what named the adapters, for messages.

    Raises:
        InputError: as `SeveralAdapters.load`.
    """
    from medqlora.inference.several import SeveralAdapters

    return SeveralAdapters.load(
        folders,
        device=device_of(words),
        max_new_tokens=built.model.options.max_new_tokens,
        option=option,
        decoding=decoding_of(built),
        limits=limits_of(built),
    )


def decoding_of(built: "MedQLoRACLI") -> "Decoding":
    """What generates, and scores, where adapters are asked: the native engine has transformers for both."""
    options = built.model.options
    return "transformers" if options.engine == "native" else options.decoding


def limits_of(built: "MedQLoRACLI") -> "PassLimits":
    """What goes through the fused engine at once, by the options under `data`."""
    from medqlora.inference.several import PassLimits

    data = built.datamodule
    return PassLimits(data.token_budget, data.eval_rows, data.eval_memory)


class Asking:
    """Asks adapters questions, and shows the progress.

    Args:
        several: the loaded adapters.
        bar: counts the answers of all adapters.
    """

    def __init__(self, several: "SeveralAdapters", bar: Bar) -> None:
        self._several, self._bar = several, bar

    def __call__(
        self,
        folder: str | None,
        records: "Sequence[Record]",
        examples: "Mapping[str, Encoded] | None" = None,
    ) -> "list[Prediction]":
        """`SeveralAdapters.predict`."""
        before = self._bar.done

        def watch(count: float) -> None:  # texts end before the last question is scored
            self._bar.update(max(self._bar.done, before + count))

        found = self._several.predict(folder, records, examples, watch)
        self._bar.update(before + len(records))
        return found

    def sets(self, folder: str | None, sets: "Sequence[QuestionSet]") -> "list[list[Prediction]]":
        """The predictions of an adapter for the test questions of each set; None for the base model."""
        return [
            self(
                folder,
                [questions.records[example.id] for example in questions.test],
                {example.id: example for example in questions.test},
            )
            for questions in sets
        ]


@contextmanager
def asking(several: "SeveralAdapters", built: "MedQLoRACLI", name: str, total: int) -> Iterator[Asking]:
    """A block whose answers are counted in one line of progress.

    Args:
        several: the loaded adapters.
        built: of the command; `--progress.refresh_rate 0` hides the line.
        name: of the line.
        total: answers of all adapters.
    """
    shown = total > 0 and bool(option_of(built, "progress.refresh_rate"))
    with phase(name, total, "answers", shown=shown) as bar:
        yield Asking(several, bar)
