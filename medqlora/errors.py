"""The one exception for what the user can put right."""


class InputError(Exception):
    """The user's input is wrong; the command line prints the message as one line and exits with 2.

    The message names where (the option, or file and line), the value that was found, and the fix:
    `InputError("data.jsonl:17: the answer 'perhaps' is none of yes, no, maybe: correct it or pass "
    "--data.source.labels")`.
    """
