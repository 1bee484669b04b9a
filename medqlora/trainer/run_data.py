"""The data of a run, with the digests that identify its examples."""

from medqlora.artifacts.checkpoint import ExampleDigests
from medqlora.data.stage_data import StageData


class RunData(StageData):
    """`StageData` with the digests of its training and validation examples."""

    _digests: ExampleDigests | None = None

    def example_digests(self) -> ExampleDigests:
        """Digests of the training and the validation examples; computed once for each reading of the training set."""
        if self._digests is None:
            self._digests = ExampleDigests.of(self.train, self.dev)
        return self._digests

    def forget_digests(self) -> None:
        """The training set is about to be read again."""
        self._digests = None
