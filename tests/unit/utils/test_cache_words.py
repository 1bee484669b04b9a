"""A base model's name in a sentence."""

from types import SimpleNamespace
from typing import Any

import pytest

from medqlora.data.prompts.chat_template import template_of
from medqlora.errors import InputError
from medqlora.utils.cache import quoted_base


def test_the_embedded_base_is_named_in_words_and_another_as_it_is() -> None:
    assert quoted_base("/home/u/.cache/medqlora/tiny_llama/d1e21b865df8849e") == "the demo's base model"
    assert quoted_base("unsloth/llama-3-8b-bnb-4bit") == "the base 'unsloth/llama-3-8b-bnb-4bit'"


def test_a_missing_chat_template_is_said_of_the_demo_in_words() -> None:
    tokenizer: Any = SimpleNamespace(chat_template=None, name_or_path="/cache/tiny_llama/0123456789abcdef")
    with pytest.raises(InputError, match="the demo's base model has none"):
        template_of(tokenizer)
