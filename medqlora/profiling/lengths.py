"""Examples of random tokens with PubMedQA's lengths: the cost of a step depends on the lengths only.

The quantiles are of the 450 training questions of fold 0 (https://pubmedqa.github.io, the official split)
in the experiment's prompt, in tokens of the Llama-3 tokenizer. A prompt has 324 tokens on average, a completion
54, both together at most 841.
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
#: number of questions behind the quantiles
QUESTIONS = 450


def draw(quantiles: tuple[int, ...], count: int) -> list[int]:
    """`count` ascending values at even steps of the distribution, interpolated linearly between quantiles."""
    values = []
    for index in range(count):
        position = (index + 0.5) / count * (len(quantiles) - 1)
        low = int(position)
        step = quantiles[low + 1] - quantiles[low]
        values.append(round(quantiles[low] + (position - low) * step))
    return values


def random_examples(count: int = QUESTIONS, *, vocab_size: int, longest: int, seed: int = 0) -> list[Encoded]:
    """Examples with PubMedQA's lengths in a random order; prompt and completion lengths are independent.

    In the data their correlation is 0.13.

    Args:
        count: number of examples.
        vocab_size: tokens are drawn from it uniformly.
        longest: the maximum length of an example in tokens; prompts are truncated to it.
        seed: of order and tokens; the same seed gives the same examples on every machine.
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
