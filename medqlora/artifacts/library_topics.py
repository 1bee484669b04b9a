"""The questions from which a library's topic classifier is trained: those that its adapters were developed on."""

from collections.abc import Sequence

from medqlora.artifacts.library import ROUTER, Entry, Library
from medqlora.artifacts.merge.questions import development_questions, file_questions
from medqlora.errors import InputError
from medqlora.inference.topic_training import train_router
from medqlora.models.adapters import read_adapter
from medqlora.records import Record


def renew_router(library: Library, questions: str | None = None) -> list[str]:
    """Trains the topic classifier anew, or removes it where there are no two topics; lines that say what came of it.

    Args:
        library: with its adapters.
        questions: a file of questions with topics; None for those that the adapters were developed on.

    Raises:
        InputError: the file can't be read, or scikit-learn is not installed.
        OSError: the classifier can't be written.
    """
    file = library.path / ROUTER
    if not library.specialised:
        file.unlink(missing_ok=True)
        return []
    records, lines = _records(library, questions)
    if not records:
        file.unlink(missing_ok=True)
        return [
            *lines,
            f"Routing: every question goes to {library.general}: no questions to learn topics from",
        ]
    names = _names(library, records)
    trained = train_router(records, names, library.general)
    if trained.router is None:
        file.unlink(missing_ok=True)
    else:
        trained.router.save(file)
        found = trained.router.calibration
        risk = (
            f"{found.wrong} of {found.answered} assignments wrong from a confidence of {found.threshold:.0%} on"
            if found.answered
            else f"no confidence is enough, and every question goes to {library.general}"
        )
        lines.append(f"Routing: trained on {len(records)} questions; out of fold {risk}")
    return [*lines, *(f"Note: {remark}" for remark in trained.remarks)]


def _records(library: Library, questions: str | None) -> tuple[list[Record], list[str]]:
    """The questions, each id once, and notes on data that can't be read any more."""
    if questions is not None:
        return file_questions(questions), []
    found: dict[str, Record] = {}
    lines = []
    for name in library.names:
        folder = library.folder(name)
        try:
            for record in development_questions(read_adapter(folder), folder):
                found.setdefault(record.id, record)
        except InputError as error:
            lines.append(f"Note: the questions of {name} can't be read again ({error})")
    return list(found.values()), lines


def _names(library: Library, records: Sequence[Record]) -> list[str]:
    """The adapter of each question: the first with one of its topics, or that learned from its topics alone."""
    own: dict[str, frozenset[str]] = {}
    for entry in library.specialised:
        record = read_adapter(library.folder(entry.name)) if entry.own_topics else {}
        ids = [one for key in ("train_ids", "dev_ids") for one in _listed(record.get(key))]
        own[entry.name] = frozenset(ids)
    return [
        next((entry.name for entry in library.specialised if _belongs(entry, record, own)), library.general)
        for record in records
    ]


def _belongs(entry: Entry, record: Record, own: "dict[str, frozenset[str]]") -> bool:
    return entry.has_topic(record) or record.id in own[entry.name]


def _listed(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else []
