"""The data of a run, with the digests that identify its examples."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medqlora.artifacts.checkpoint import ExampleDigests
from medqlora.config.data import DataOptions
from medqlora.config.retrieval import RetrievalOptions
from medqlora.data import Source
from medqlora.data.retrieved import Retrieval
from medqlora.data.stage_data import StageData
from medqlora.data.training_stages import TrainingStage
from medqlora.utils.types import Tokenizer

if TYPE_CHECKING:
    from medqlora.retrieval.contexts import IndexContexts


class RunData(StageData):
    """`StageData` with the digests of its training and validation examples."""

    _digests: ExampleDigests | None = None

    def __init__(
        self,
        source: Source,
        benchmarks: list[Source] | None,
        options: DataOptions,
        retrieval: RetrievalOptions = RetrievalOptions(),  # noqa: B008  # frozen
        stages: Sequence[TrainingStage] | None = None,
    ) -> None:
        super().__init__(source, benchmarks, options, stages)
        self.retrieval_options = retrieval

    @property
    def index_contexts(self) -> "IndexContexts | None":
        """What retrieved the contexts of this stage; None without an index."""
        if self.retrieval is None:
            return None
        from medqlora.retrieval.contexts import IndexContexts

        return self.retrieval if isinstance(self.retrieval, IndexContexts) else None

    def make_retrieval(self, tokenizer: Tokenizer) -> Retrieval | None:
        """Opens the index of `--data.retrieval`; None without one.

        Raises:
            InputError: it can't be opened.
        """
        self.retrieval_options.check()
        if self.retrieval_options.index is None:
            return None
        from medqlora.retrieval.contexts import IndexContexts

        return IndexContexts.open(self.retrieval_options, tokenizer)

    def example_digests(self) -> ExampleDigests:
        """Digests of the training and the validation examples; computed once for each reading of the training set."""
        if self._digests is None:
            self._digests = ExampleDigests.of(self.train, self.dev)
        return self._digests

    def forget_digests(self) -> None:
        """The training set is about to be read again."""
        self._digests = None
