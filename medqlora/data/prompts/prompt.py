"""The three prompts, by name: what a model is asked, and how its answer is written.

A prompt is given the question, the contexts, the options, the names of the labels and the subject, and
nothing else of a record, so what gives the answer away (`long_answer`, `answer`, `annotations`) can't reach it.
"""

import difflib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from medqlora.data.prompts.chat_template import chat_frame, template_of
from medqlora.errors import InputError

OPTION = "--data.prompt"


class Frame(NamedTuple):
    """What stands around a prompt's body; the only places where control tokens are read as such.

    Attributes:
        before: text before the body (of `chat`: the header of the user's message).
        after: text between the body and the answer (of `chat`: the header of the assistant's message).
        delimiter: what separates the prompt from the answer; belongs to the completion, since most
            tokenizers have " yes" as one token.
        end: what ends the answer; "" for the tokenizer's end-of-sequence token.
        whole: whether the text is all that there is; else the tokenizer's own prefix (BOS) comes first.
    """

    before: str = ""
    after: str = ""
    delimiter: str = " "
    end: str = ""
    whole: bool = False


class Prompt(ABC):
    """How a question is put and how an answer is written.

    The text that the model sees is `frame.before + body + frame.after`, the text that it learns
    `frame.delimiter + completion + frame.end`.
    """

    #: what `--data.prompt` calls it
    name: str

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
    def template(self, tokenizer: Any) -> dict[str, str]:
        """The literal pieces that the prompt is built of, for `describe` and `sha256`."""

    def frame(self, tokenizer: Any) -> Frame:
        """What stands around the body.

        Raises:
            InputError: the prompt can't be had with this tokenizer.
        """
        return Frame()

    def label(self, label: str) -> str:
        """How a decision is written at the start of the completion."""
        return label

    def completion(self, answer: str, long_answer: str, labels: Sequence[str]) -> str:
        """The answer as it is to be written: the decision and its rationale, or the free answer.

        The stop after a decision is always there, so that where a decision ends is learned too.
        """
        answer, long_answer = answer.strip(), long_answer.strip()
        if labels:
            return f"{self.label(answer)}. {long_answer}".rstrip()
        if not long_answer:
            return answer
        stop = "" if answer.endswith((".", "!", "?")) else "."
        return f"{answer}{stop} {long_answer}"

    def describe(self, tokenizer: Any = None) -> dict[str, object]:
        """The prompt as plain values, to be saved beside an adapter: `name`, `template`, `sha256`.

        Raises:
            InputError: the prompt can't be had with this tokenizer.
        """
        template = self.template(tokenizer)
        plain = json.dumps([self.name, template], sort_keys=True, ensure_ascii=False)
        return {
            "name": self.name,
            "template": template,
            "sha256": hashlib.sha256(plain.encode()).hexdigest(),
        }

    def sha256(self, tokenizer: Any = None) -> str:
        """The identity of the template's text, in hex; of `chat` with the tokenizer's chat template."""
        return str(self.describe(tokenizer)["sha256"])


def _option_lines(options: Mapping[str, str]) -> str:
    return "".join(f"\n{label}. {text}" for label, text in options.items())


class Medical(Prompt):
    """`MEDICAL QUESTION: … CONTEXT: … ANSWER: yes. <rationale>`, a line each."""

    name = "medical"

    def body(
        self,
        question: str,
        contexts: Sequence[str],
        options: Mapping[str, str],
        labels: Sequence[str],
        subject: str = "",
    ) -> str:
        context = " ".join(part.strip() for part in contexts).strip()
        line = f"\nCONTEXT: {context}" if context else ""
        return f"MEDICAL QUESTION: {question.strip()}{_option_lines(options)}{line}\nANSWER:"

    def template(self, tokenizer: Any = None) -> dict[str, str]:
        return {
            "prompt": "MEDICAL QUESTION: {question}{options}{context}\nANSWER:",
            "option": "\n{label}. {text}",
            "context": "\nCONTEXT: {contexts}",
            "context_joiner": " ",
            "completion": " {answer}. {long_answer}",
        }


class LMEval(Prompt):
    """The prompt of lm-evaluation-harness's `pubmedqa`, byte for byte where a record has contexts, so
    that accuracies can be compared with reported ones. The answer is the label alone.

    https://github.com/EleutherAI/lm-evaluation-harness/tree/main/lm_eval/tasks/pubmedqa
    """

    name = "lm_eval"

    def body(
        self,
        question: str,
        contexts: Sequence[str],
        options: Mapping[str, str],
        labels: Sequence[str],
        subject: str = "",
    ) -> str:
        # nothing is stripped: the harness doesn't either
        context = "\n".join(contexts)
        line = f"Abstract: {context}\n" if context.strip() else ""
        return f"{line}Question: {question}{_option_lines(options)}\nAnswer:"

    def completion(self, answer: str, long_answer: str, labels: Sequence[str]) -> str:
        return answer.strip()

    def template(self, tokenizer: Any = None) -> dict[str, str]:
        return {
            "prompt": "{context}Question: {question}{options}\nAnswer:",
            "option": "\n{label}. {text}",
            "context": "Abstract: {contexts}\n",
            "context_joiner": "\n",
            "completion": " {answer}",
        }


class Chat(Prompt):
    """One user message in the tokenizer's own chat template, answered by `Yes. <rationale>`."""

    name = "chat"

    _CONTEXT = "Context: {contexts}\n\n"
    _DECIDE = "Answer with one of: {labels}. Then explain why."
    _FREE = "Answer the question."

    def body(
        self,
        question: str,
        contexts: Sequence[str],
        options: Mapping[str, str],
        labels: Sequence[str],
        subject: str = "",
    ) -> str:
        context = "\n".join(part.strip() for part in contexts).strip()
        line = self._CONTEXT.replace("{contexts}", context) if context else ""
        names = ", ".join(self.label(label) for label in labels)
        ask = self._DECIDE.replace("{labels}", names) if labels else self._FREE
        return f"{line}Question: {question.strip()}{_option_lines(options)}\n\n{ask}"

    def frame(self, tokenizer: Any) -> Frame:
        # a chat template writes BOS where its model was trained with it
        return Frame(*chat_frame(tokenizer), whole=True)

    def label(self, label: str) -> str:
        return label[:1].upper() + label[1:]

    def template(self, tokenizer: Any = None) -> dict[str, str]:
        return {
            "prompt": "{context}Question: {question}{options}\n\n{instruction}",
            "option": "\n{label}. {text}",
            "context": self._CONTEXT,
            "context_joiner": "\n",
            "instruction": self._DECIDE,
            "instruction_without_labels": self._FREE,
            "completion": "{Answer}. {long_answer}",
            "chat_template": template_of(tokenizer),
        }


_PROMPTS: dict[str, Prompt] = {prompt.name: prompt for prompt in (Medical(), Chat(), LMEval())}


def names() -> tuple[str, ...]:
    """The prompts there are."""
    return tuple(_PROMPTS)


def lookup(name: str) -> Prompt:
    """The prompt of this name.

    Raises:
        InputError: there is none; names the nearest.
    """
    if isinstance(name, str) and name in _PROMPTS:
        return _PROMPTS[name]
    near = difflib.get_close_matches(str(name).lower(), _PROMPTS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"{OPTION}: no prompt is called {name!r}: {hint}choose one of {', '.join(_PROMPTS)}")
