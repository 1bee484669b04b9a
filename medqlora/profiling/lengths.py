"""Examples as long as PubMedQA's, of random tokens: what a step costs depends on lengths alone.

The quantiles are of the 450 training questions of fold 0 (https://pubmedqa.github.io, the official split)
in the experiment's prompt, in tokens of the Llama-3 tokenizer: 324 of the prompt and 54 of the completion
on average, 841 together at most.
"""

import random

from medqlora.records import Encoded

#: the 0%, 2.5%, 5%, …, 100% quantiles of prompt and completion
PROMPT_TOKENS = (
    79, 167, 189, 206, 218, 226, 231, 243, 251, 257, 261, 269, 273, 279, 286, 291, 299, 305, 310, 314, 319,
    323, 327, 332, 338, 344, 350, 357, 365, 369, 376, 382, 387, 397, 404, 419, 431, 451, 485, 527, 739,
)  # fmt: skip
COMPLETION_TOKENS = (
    16, 20, 24, 27, 29, 32, 32, 34, 36, 37, 38, 40, 41, 43, 43, 44, 46, 47, 49, 51, 52,
    53, 54, 56, 57, 58, 59, 60, 62, 64, 66, 68, 70, 73, 75, 78, 80, 84, 89, 103, 146,
)  # fmt: skip
#: questions that the quantiles are of
QUESTIONS = 450


def draw(quantiles: tuple[int, ...], count: int) -> list[int]:
    """`count` values at even steps of the distribution, ascending; between two quantiles it is a line."""
    values = []
    for number in range(count):
        place = (number + 0.5) / count * (len(quantiles) - 1)
        low = int(place)
        step = quantiles[low + 1] - quantiles[low]
        values.append(round(quantiles[low] + (place - low) * step))
    return values


def random_examples(count: int = QUESTIONS, *, vocab_size: int, longest: int, seed: int = 0) -> list[Encoded]:
    """Examples of PubMedQA's lengths in a random order; prompt and completion are drawn apart.

    In the data the two are nearly independent (their correlation is 0.13).

    Args:
        count: how many.
        vocab_size: tokens are drawn from it, alike.
        longest: where a prompt is cut, so that prompt and completion together have at most so many tokens.
        seed: of order and tokens: the same seed gives the same examples everywhere.
    """
    generator = random.Random(seed)
    prompts, completions = draw(PROMPT_TOKENS, count), draw(COMPLETION_TOKENS, count)
    generator.shuffle(prompts)
    generator.shuffle(completions)
    examples = []
    for number, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        prompt = min(prompt, longest - completion)
        tokens = [generator.randrange(vocab_size) for _ in range(prompt + completion)]
        examples.append(Encoded(str(number), tokens[:prompt], tokens[prompt:]))
    return examples
