"""Token ids of the same prompts in two runtimes: a doubled BOS or another pre-tokenizer is found here.

Scores can't find them: llama.cpp is given token ids. A user of the file gives it text.
"""

from collections.abc import Sequence

from medqlora.inference.llama_cpp import LlamaCpp
from medqlora.utils.types import Tokenizer

#: prompts that are compared
COMPARED = 8


def token_faults(runtime: LlamaCpp, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]]) -> list[str]:
    """Why the token ids differ, a line each; empty where they are equal.

    Args:
        runtime: llama.cpp with the exported file.
        tokenizer: the live model's.
        prompts: token ids as the live model reads them.
    """
    bos = tokenizer.bos_token_id
    added = runtime.tokens("")
    faults = []
    for prompt in prompts[:COMPARED]:
        prefix = [bos] if bos is not None and list(prompt[:1]) == [bos] else []
        body = tokenizer.decode(list(prompt[len(prefix) :]))
        expected = [*prefix, *tokenizer.encode(body, add_special_tokens=False)]
        # a runtime that adds BOS itself is given the text without it
        text = body if added or not prefix else tokenizer.decode([*prefix]) + body
        if fault := token_fault(expected, runtime.tokens(text), bos):
            faults.append(fault)
    return faults[:1]


def token_fault(expected: Sequence[int], actual: Sequence[int], bos: int | None) -> str | None:
    """How llama.cpp's token ids differ from the live model's; None where they are equal."""
    if list(expected) == list(actual):
        return None
    live, other = (_leading(ids, bos) for ids in (expected, actual))
    if live != other:
        return f"a prompt begins with {other} BOS tokens in llama.cpp, and with {live} in the live model"
    pairs = zip(expected, actual, strict=False)
    first = next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(expected), len(actual)))
    return (
        f"a prompt's token ids differ from token {first} on (live {list(expected[first : first + 3])}, llama.cpp "
        f"{list(actual[first : first + 3])}): try another --pre_tokenizer"
    )


def _leading(ids: Sequence[int], bos: int | None) -> int:
    """The number of BOS tokens that a sequence begins with."""
    return next((index for index, token in enumerate(ids) if token != bos), len(ids))
