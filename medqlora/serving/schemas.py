"""The bodies of requests. The bounds here are about form; the service's own limits come on top."""

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

#: a label that answers are chosen from
Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40)]
OptionText = Annotated[str, StringConstraints(min_length=1)]
Stops = Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=200)]], Field(max_length=4)]
Contexts = Annotated[list[str], Field(max_length=64)]
Options = (
    Annotated[list[OptionText], Field(min_length=2, max_length=26)]
    | Annotated[dict[Label, OptionText], Field(min_length=2, max_length=26)]
)
Images = Annotated[list[Annotated[str, StringConstraints(min_length=1)]], Field(max_length=4)]
T = TypeVar("T")
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
QUESTION = "Does metformin lower the risk of colorectal adenoma?"
CONTEXT = (
    "In a randomized trial of 151 patients, polyps recurred in 38% with metformin and in 57% with placebo."
)


def echoed(value: T) -> T:
    """A value that a reply repeats.

    Raises:
        ValueError: JSON in UTF-8 can't hold it: NaN, half a character, or too deep.
    """
    nested: object = value
    for _ in range(32):  # a reply nests it deeper than the request did
        nested = [nested]
    try:
        json.dumps(nested, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:
        raise ValueError("a number is not finite, or a text is no valid Unicode") from None
    return value


class AnswerRequest(BaseModel):
    """One question."""

    model_config = ConfigDict(
        **_STRICT, json_schema_extra={"examples": [{"question": QUESTION, "contexts": [CONTEXT]}]}
    )

    question: str = Field(min_length=1, description="the question alone")
    contexts: str | Contexts = Field(default=[], description="the passages to answer it from")
    options: Options | None = Field(
        default=None, description="for multiple choice: the options' texts, labelled A, B, …; or label → text"
    )
    images: Images = Field(
        default=[], description="images of the question, as data:image/…;base64,… addresses or base64"
    )
    model: str | None = Field(default=None, description="a model of /v1/models; default: the first")
    rationale: bool = Field(default=True, description="also generate a rationale")
    verify: bool = Field(
        default=False,
        description="check the rationale's claims against the retrieved sources (serve --index)",
    )
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="length limit of the rationale, in tokens"
    )
    stream: bool = Field(default=False, description="send server-sent events: scores, text, answer")


class StreamOptions(BaseModel):
    include_usage: bool = False


class ImageURL(BaseModel):
    url: str


class ChatPart(BaseModel):
    """A part of a message's content: a text, or an image as a `data:` address."""

    type: str
    text: str | None = None
    image_url: ImageURL | None = None


class ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ChatPart] | None = None

    @property
    def text(self) -> str:
        """The texts of the content."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "\n".join(part.text or "" for part in self.content if part.type == "text")

    @property
    def readable(self) -> bool:
        """Whether all parts are texts or images."""
        parts = self.content if isinstance(self.content, list) else []
        return all(part.type == "text" or part.image_url is not None for part in parts)

    @property
    def images(self) -> list[str]:
        """The addresses of its images."""
        parts = self.content if isinstance(self.content, list) else []
        return [part.image_url.url for part in parts if part.image_url is not None]


class ChatExtra(BaseModel):
    """What OpenAI's API has no field for."""

    model_config = _STRICT

    contexts: str | Contexts = []
    options: Options | None = None
    rationale: bool = True
    verify: bool = False


class ChatRequest(BaseModel):
    """OpenAI's request; fields that are not listed are ignored."""

    model_config = ConfigDict(
        extra="ignore",
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [
                {"messages": [{"role": "user", "content": QUESTION}], "medqlora": {"contexts": [CONTEXT]}}
            ]
        },
    )

    model: str | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=256)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Annotated[str, StringConstraints(min_length=1, max_length=200)] | Stops | None = None
    n: Literal[1] | None = None
    medqlora: ChatExtra = ChatExtra()


class SystemOneRequest(BaseModel):
    """Typed questions about a state, as `transformers serve` takes them."""

    model_config = ConfigDict(
        **_STRICT,
        json_schema_extra={
            "examples": [
                {
                    "state": CONTEXT,
                    "questions": {
                        "lower": {"type": "noul", "instructions": QUESTION},
                        "design": {
                            "type": "choice",
                            "instructions": "What is the design?",
                            "criteria": {"trial": "patients were randomized", "cohort": None},
                        },
                    },
                }
            ]
        },
    )

    model: str | None = None
    state: Annotated[str | dict[str, Any] | list[Any], AfterValidator(echoed)]
    questions: Annotated[
        dict[str, dict[str, Any]], Field(min_length=1, max_length=64), AfterValidator(echoed)
    ]
    assets: Annotated[dict[str, Any], Field(max_length=0)] = {}


class AdapterRequest(BaseModel):
    """An adapter to load from the allowed folder, or to unload."""

    model_config = ConfigDict(
        **_STRICT, json_schema_extra={"examples": [{"name": "ward", "folder": "version_3"}, {"name": "ward"}]}
    )

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="as requests will name it")
    folder: str | None = Field(
        default=None, max_length=1000, description="below the allowed folder; left out to unload the adapter"
    )
