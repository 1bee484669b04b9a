"""What other libraries may write on the user's screen: warnings of trouble, and no news of their own future."""

import logging
import os
import warnings

from medqlora.utils.screen import SCREEN

#: the variables by which libraries of Hugging Face choose what they log, read when they are imported
_VERBOSITY = ("TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY", "DATASETS_VERBOSITY")


def quiet_libraries() -> None:
    """Hides what libraries say of their own future and progress; a user's own variables stay.

    Called once in a process that is the command, before anything large is imported.
    """
    show = warnings.showwarning

    def above_the_line(*arguments: object, **options: object) -> None:
        with SCREEN.hidden():
            show(*arguments, **options)  # type: ignore[arg-type]  # as they came

    warnings.showwarning = above_the_line
    for category in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
        warnings.simplefilter("ignore", category)
    # it tells of every kernel that it could use and doesn't
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for name in _VERBOSITY:
        os.environ.setdefault(name, "error")
