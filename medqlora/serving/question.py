"""What a client asks, and the request that it asks by."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from medqlora.records import ImageFile
from medqlora.safety import SafeReply, screen
from medqlora.serving.tokens import Holder


@dataclass
class Call:
    """One request, as it is counted and recorded.

    Attributes:
        request_id: in the reply's header and the audit log.
        holder: whose request it is.
        endpoint: its path.
        started: of the monotonic clock, in seconds.
    """

    request_id: str
    holder: Holder
    endpoint: str
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


@dataclass
class _Screening:
    """The fixed reply that the last screened texts call for: a question is asked for it several times."""

    texts: tuple[str, ...] | None = None
    reply: SafeReply | None = None


@dataclass(frozen=True)
class Question:
    """What a client asks.

    Attributes:
        text, contexts, options: the question.
        labels: the decisions, where they are not the model's own.
        model: name of the served model.
        screened: further texts that may call for a fixed reply.
        verify: whether the text's claims are checked against its sources.
        images: its images, in memory.
    """

    text: str
    contexts: tuple[str, ...]
    options: Mapping[str, str]
    model: str
    labels: tuple[str, ...] = ()
    screened: tuple[str, ...] = ()
    verify: bool = False
    images: tuple[ImageFile, ...] = ()
    #: `dataclasses.replace` hands it on
    screening: _Screening = field(default_factory=_Screening, repr=False, compare=False)

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text, *self.contexts, *self.options, *self.options.values())

    def reply(self) -> SafeReply | None:
        """The fixed reply that it calls for; None where a model may answer it."""
        texts = (self.text, *self.screened)
        if self.screening.texts != texts:
            replies = (screen(text) for text in texts)
            self.screening.reply = next((reply for reply in replies if reply is not None), None)
            self.screening.texts = texts
        return self.screening.reply
