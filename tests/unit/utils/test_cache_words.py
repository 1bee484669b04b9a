"""A base model's name in a sentence."""

from medqlora.utils.cache import quoted_base


def test_the_embedded_base_is_named_in_words_and_another_as_it_is() -> None:
    assert quoted_base("/home/u/.cache/medqlora/tiny_llama/d1e21b865df8849e") == "the demo's base model"
    assert quoted_base("unsloth/llama-3-8b-bnb-4bit") == "the base 'unsloth/llama-3-8b-bnb-4bit'"
