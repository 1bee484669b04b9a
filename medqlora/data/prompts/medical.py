"""The default prompt: question, options and context under headings, one line each."""

from collections.abc import Mapping

from medqlora.data.prompts.prompt import PROMPTS
from medqlora.data.prompts.template import TemplatePrompt


@PROMPTS.register("medical")
class Medical(TemplatePrompt):
    """`MEDICAL QUESTION: … CONTEXT: … ANSWER: yes. <rationale>`, a line each."""

    name = "medical"
    pieces: Mapping[str, str] = {
        "prompt": "MEDICAL QUESTION: {question}{options}{context}\nANSWER:",
        "option": "\n{label}. {text}",
        "context": "\nCONTEXT: {contexts}",
        "context_joiner": " ",
        "completion": " {answer}. {long_answer}",
    }
