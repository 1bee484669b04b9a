"""What a prompt is: how a question is put to the model, and how its answer is written.

A prompt gets the question, the contexts, the options, the names of the labels and the subject, and no other part of a
record. So the fields that give the answer away (`long_answer`, `answer`, `annotations`) can't reach it.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from medqlora.utils.registry import Registry
from medqlora.utils.types import Tokenizer

OPTION = "--data.prompt"


class Frame(NamedTuple):
    """The text around a prompt's body; the only text whose control tokens are read as such.

    Attributes:
        before: text before the body (`chat`: the header of the user's message).
        after: text between the body and the answer (`chat`: the header of the assistant's message).
        delimiter: text between the prompt and the answer. It belongs to the completion, since most tokenizers have
            " yes" as one token.
        end: text that ends the answer; "" for the tokenizer's end-of-sequence token.
        whole: whether nothing else is added; else the tokenizer's own prefix (BOS) comes first.
    """

    before: str = ""
    after: str = ""
    delimiter: str = " "
    end: str = ""
    whole: bool = False


class Prompt(ABC):
    """How a question is put and how an answer is written. A subclass is constructed without arguments.

    The model reads `frame.before + body + frame.after` and learns `frame.delimiter + completion + frame.end`.
    """

    #: the value of `--data.prompt` that selects it; `lookup` sets it to the registered name or the class path
    name: str

    #: text between a rationale that comes first and the decision; "" where the decision comes first
    lead: str = ""

    @abstractmethod
    def body(
        self,
        question: str,
        contexts: Sequence[str],
        options: Mapping[str, str],
        labels: Sequence[str],
        subject: str = "",
    ) -> str:
        """The part of the prompt that holds the user's text. Nothing in it is a control token."""

    @abstractmethod
    def template(self, tokenizer: Tokenizer | None) -> dict[str, str]:
        """The literal pieces of the prompt, for `describe` and `sha256`."""

    def frame(self, tokenizer: Tokenizer) -> Frame:
        """The text around the body.

        Raises:
            InputError: the prompt does not work with this tokenizer.
        """
        return Frame()

    def label(self, label: str) -> str:
        """How a decision is written at the start of the completion."""
        return label

    def completion(self, answer: str, long_answer: str, labels: Sequence[str]) -> str:
        """The answer as the model learns it: the decision and its rationale, or the free answer.

        A full stop always follows a decision, so that the model learns where a decision ends.
        """
        answer, long_answer = answer.strip(), long_answer.strip()
        if labels:
            return f"{self.label(answer)}. {long_answer}".rstrip()
        if not long_answer:
            return answer
        stop = "" if answer.endswith((".", "!", "?")) else "."
        return f"{answer}{stop} {long_answer}"

    def describe(self, tokenizer: Tokenizer | None = None) -> dict[str, object]:
        """The prompt as plain values, to be saved beside an adapter: `name`, `template`, `sha256`.

        Raises:
            InputError: the prompt does not work with this tokenizer.
        """
        template = self.template(tokenizer)
        plain = json.dumps([self.name, template], sort_keys=True, ensure_ascii=False)
        return {
            "name": self.name,
            "template": template,
            "sha256": hashlib.sha256(plain.encode()).hexdigest(),
        }

    def sha256(self, tokenizer: Tokenizer | None = None) -> str:
        """The SHA-256 of name and template, in hex; that of `chat` covers the tokenizer's chat template."""
        return str(self.describe(tokenizer)["sha256"])


#: name → class; a module in this folder, an entry point or a plugin adds one with `@PROMPTS.register("name")`
PROMPTS: Registry[type[Prompt]] = Registry("prompt", "medqlora.prompts", __package__)
