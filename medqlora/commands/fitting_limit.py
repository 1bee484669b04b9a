"""Reads the data of a drafted configuration under the prompt limit that suits its lengths."""

from dataclasses import replace
from typing import TYPE_CHECKING

from medqlora.commands.first_config import LIMITS, Draft
from medqlora.commands.read_sets import ReadSets, config_file, read_sets
from medqlora.config.check import check_options
from medqlora.config.words import CommandLine

if TYPE_CHECKING:
    from medqlora.evaluation.data_look import DataLook


def read_fitting(draft: Draft) -> tuple[Draft, ReadSets]:
    """The draft with a prompt limit for its data and its longest answer, and the data under that limit.

    The limit is the smallest that is offered under which no context is shortened. The user's own limit stays.

    Raises:
        InputError: an option is wrong, or the data can't be read.
    """
    read = _read(draft)
    answers = [len(example.completion) for part in read.look.encoded.values() for example in part]
    draft = replace(draft, completion_tokens=max(answers, default=draft.completion_tokens))
    limit = _limit(read.look)
    if (
        CommandLine.parse(draft.more).text("data.max_prompt_tokens") is not None
        or limit == draft.max_prompt_tokens
    ):
        return draft, read
    # no prompt is longer than the limit, so the examples are the same under it
    return replace(draft, max_prompt_tokens=limit), read._replace(
        look=replace(read.look, max_prompt_tokens=limit)
    )


def _read(draft: Draft) -> ReadSets:
    with config_file(replace(draft, more=()).text()) as path:
        words = ["--config", path, *draft.more]  # a message then names the option, not the file
        check_options("fit", words)
        return read_sets(words)


def _limit(look: "DataLook") -> int:
    longest = max((len(example.prompt) for part in look.encoded.values() for example in part), default=0)
    return next((limit for limit in LIMITS if limit >= longest), LIMITS[-1])
