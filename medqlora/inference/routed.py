"""A library's adapters on one base model, of which a topic classifier chooses one for each question."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from medqlora.inference.answer import Answer
from medqlora.inference.predictor import Predictor, one_question
from medqlora.inference.several import SeveralAdapters
from medqlora.inference.streaming import AnswerPart
from medqlora.inference.topic_router import Route, TopicRouter
from medqlora.records import Prediction, Record
from medqlora.safety import NOTE


class RoutedPredictor:
    """Answers each question with the adapter that it is routed to.

    Args:
        several: the loaded adapters.
        folders: name → folder of each, the general one first.
        router: the classifier; None sends every question to the general adapter.

    Attributes:
        route: of the last question of `answer` or `answer_stream`.
        wants_context: whether the general adapter was trained with contexts.
    """

    def __init__(
        self, several: SeveralAdapters, folders: Mapping[str, str], router: TopicRouter | None
    ) -> None:
        self.several, self.folders, self.router = several, dict(folders), router
        self.general = next(iter(folders))
        self.route = Route(self.general, self.general, 1.0, abstained=False)
        self.wants_context = several.trained[self.folders[self.general]].with_contexts
        self.remarks = several.predictor.remarks

    def routed(self, record: Record) -> Route:
        """Where a question goes."""
        if self.router is None:
            return Route(self.general, self.general, 1.0, abstained=False)
        return self.router.route(record)

    def groups(self, records: Sequence[Record]) -> dict[str, list[Record]]:
        """Adapter → its questions, in their order."""
        found: dict[str, list[Record]] = {}
        for record in records:
            found.setdefault(self.routed(record).name, []).append(record)
        return found

    def answers(self, records: Sequence[Record], note: str = NOTE) -> list[tuple[Answer, str]]:
        """Answer and adapter of each question, in their order; see `Predictor.answers`."""
        found: dict[str, tuple[Answer, str]] = {}
        for name, group in self.groups(records).items():
            with self.several.asked(self.folders[name]) as predictor:
                answers = predictor.answers(group, note)
            found.update({record.id: (answer, name) for record, answer in zip(group, answers, strict=True)})
        return [found[record.id] for record in records]

    def predict(self, records: Sequence[Record]) -> list[Prediction]:
        """The predictions of each question's adapter, in the questions' order."""
        found: dict[str, Prediction] = {}
        for name, group in self.groups(records).items():
            found.update({one.id: one for one in self.several.predict(self.folders[name], group)})
        return [found[record.id] for record in records]

    def answer(
        self,
        question: str,
        context: str | Sequence[str] | None = None,
        options: Sequence[str] | Mapping[str, str] | None = None,
        note: str = NOTE,
        images: Sequence[str | Path] = (),
    ) -> Answer:
        """The answer to one question; see `Predictor.answer`."""
        with self._for(question, context, options) as predictor:
            return predictor.answer(question, context, options, note, images)

    def answer_stream(
        self,
        question: str,
        context: str | Sequence[str] | None = None,
        options: Sequence[str] | Mapping[str, str] | None = None,
        note: str = NOTE,
        images: Sequence[str | Path] = (),
    ) -> Generator[AnswerPart, None, None]:
        """The answer to one question in parts; see `Predictor.answer_stream`."""
        with self._for(question, context, options) as predictor:
            yield from predictor.answer_stream(question, context, options, note, images)

    def _for(
        self,
        question: str,
        context: str | Sequence[str] | None,
        options: Sequence[str] | Mapping[str, str] | None,
    ) -> AbstractContextManager[Predictor]:
        """The predictor of a question's adapter; sets `route`."""
        self.route = self.routed(one_question(question, context, options, ()))
        return self.several.asked(self.folders[self.route.name])

    def said(self) -> str:
        """Where the last question went, in a line."""
        route = self.route
        if self.router is None:
            return f"Answered by {route.name} (the library has no topic classifier)"
        if route.abstained:
            likeliest = f"{route.likeliest} is likeliest by topic ({route.confidence:.0%})"
            return f"Answered by {route.name}: {likeliest}, and not likely enough"
        return f"Answered by {route.name} (topic {route.confidence:.0%})"
