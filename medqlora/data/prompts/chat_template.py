"""Where the user's text and the answer stand in a tokenizer's chat template.

The template is rendered once with placeholders and cut at them, so that user text never passes through
it: whatever stands in a record, the control tokens around it are the template's own.
"""

from typing import Any

from medqlora.errors import InputError

_USER = "@@MEDQLORA-USER-TEXT@@"
_ANSWER = "@@MEDQLORA-ANSWER-TEXT@@"

# Some templates (Llama 3.1's) write today's date into the system message. A prompt that changes
# overnight can't be trained, cached or compared, so the clock stands still at Llama 3.1's own default.
_STILL_CLOCK = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"


def template_of(tokenizer: Any) -> str:
    """The text of the tokenizer's chat template.

    Raises:
        InputError: it has none.
    """
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):  # several, by name
        template = template.get("default")
    if not template:
        name = getattr(tokenizer, "name_or_path", "") or "this model's tokenizer"
        raise InputError(
            f"--data.prompt: chat needs a chat template, and {name} has none (a base model?): "
            "use --data.prompt medical"
        )
    return str(template)


def _render(tokenizer: Any, template: str, generation: bool) -> str:
    messages = [{"role": "user", "content": _USER}]
    if not generation:
        messages.append({"role": "assistant", "content": _ANSWER})
    if "strftime_now" in template:
        template = _STILL_CLOCK + template
    try:
        text = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=generation
        )
    except Exception as error:  # jinja2's and whatever a template raises by itself
        raise InputError(
            f"--data.prompt: the tokenizer's chat template can't render a user message and its answer "
            f"({type(error).__name__}: {error}): use --data.prompt medical"
        ) from error
    return str(text)


def chat_frame(tokenizer: Any) -> tuple[str, str, str, str]:
    """Text before the user's text, between it and the answer, the answer's delimiter, and the text after it.

    The prompt ends where the template puts the answer of a finished conversation. That is the generation
    prompt, save for templates that open or skip a thinking block there (DeepSeek-R1, Qwen3): the answer
    then stands where thinking is left out. Trailing spaces belong to the answer, as in " Yes".

    Raises:
        InputError: there is no chat template, or it doesn't hold each text exactly once and in order.
    """
    template = template_of(tokenizer)
    whole = _render(tokenizer, template, generation=False)
    if whole.count(_USER) != 1 or whole.count(_ANSWER) != 1 or whole.index(_USER) > whole.index(_ANSWER):
        raise InputError(
            "--data.prompt: the tokenizer's chat template does not show the user's message and the answer "
            "once each: use --data.prompt medical"
        )
    before, rest = whole.split(_USER)
    between, end = rest.split(_ANSWER)
    opened = _render(tokenizer, template, generation=True).partition(_USER)[2]
    if opened.startswith(between) and not opened[len(between) :].strip():
        between = opened  # the generation prompt may end with a line break that the conversation trims
    after = between.rstrip(" ")
    return before, after, between[len(after) :], end
