"""The parts of a tokenizer's chat template around the user's text and the answer.

The template is rendered once with placeholders and cut at them, so user text never passes through it. Whatever a
record holds, the control tokens around it are the template's own.
"""

from medqlora.errors import InputError
from medqlora.utils.cache import base_words
from medqlora.utils.types import Tokenizer

_USER = "@@MEDQLORA-USER-TEXT@@"
_ANSWER = "@@MEDQLORA-ANSWER-TEXT@@"

# Some templates (Llama 3.1's) write today's date into the system message. A prompt that changes every day can't be
# trained, cached or compared, so the date is fixed to Llama 3.1's own default.
_FIXED_DATE = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"


def template_of(tokenizer: Tokenizer | None) -> str:
    """The text of the tokenizer's chat template.

    Raises:
        InputError: it has none.
    """
    template = None if tokenizer is None else tokenizer.chat_template
    if isinstance(template, dict):  # several templates, by name
        template = template.get("default")
    if not template:
        name = base_words(getattr(tokenizer, "name_or_path", "")) or "this model's tokenizer"
        raise InputError(
            f"--data.prompt: chat needs a chat template, and {name} has none (a base model?): "
            "use --data.prompt medical"
        )
    return str(template)


def _render(tokenizer: Tokenizer, template: str, generation: bool) -> str:
    messages = [{"role": "user", "content": _USER}]
    if not generation:
        messages.append({"role": "assistant", "content": _ANSWER})
    if "strftime_now" in template:
        template = _FIXED_DATE + template
    try:
        text = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=generation
        )
    except Exception as error:  # jinja2's errors, and those that a template raises itself
        raise InputError(
            f"--data.prompt: the tokenizer's chat template can't render a user message and its answer "
            f"({type(error).__name__}: {error}): use --data.prompt medical"
        ) from error
    return str(text)


def chat_frame(tokenizer: Tokenizer) -> tuple[str, str, str, str]:
    """The text before the user's text, the text between it and the answer, the answer's delimiter, the text after.

    The prompt ends where the template puts the answer of a finished conversation. For most templates that is the
    generation prompt. Templates that open or skip a thinking block there (DeepSeek-R1, Qwen3) are different: the
    answer then stands where thinking is left out. Trailing spaces belong to the answer, as in " Yes".

    Raises:
        InputError: there is no chat template, or it does not hold each text exactly once and in order.
    """
    template = template_of(tokenizer)
    conversation = _render(tokenizer, template, generation=False)
    counts = conversation.count(_USER), conversation.count(_ANSWER)
    if counts != (1, 1) or conversation.index(_USER) > conversation.index(_ANSWER):
        raise InputError(
            "--data.prompt: the tokenizer's chat template does not show the user's message and the answer "
            "once each: use --data.prompt medical"
        )
    before, rest = conversation.split(_USER)
    between, end = rest.split(_ANSWER)
    generation = _render(tokenizer, template, generation=True).partition(_USER)[2]
    if generation.startswith(between) and not generation[len(between) :].strip():
        between = generation  # the generation prompt may end with a line break that the conversation trims
    after = between.rstrip(" ")
    return before, after, between[len(after) :], end
