"""The one exception for what the user can put right, and how what comes from elsewhere is shown."""


class InputError(Exception):
    """The user's input is wrong; the command line prints the message as one line and exits with 2.

    The message names where (the option, or file and line), the value that was found, and the fix:
    `InputError("data.jsonl:17: the answer 'perhaps' is none of yes, no, maybe: correct it or pass "
    "--data.source.labels")`.
    """


def printable(text: str) -> str:
    """Lines without what a terminal would act on: values in them may come from anybody's file."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode()
        for letter in text
    )
