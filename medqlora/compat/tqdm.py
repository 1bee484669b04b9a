"""Private parts of tqdm, version 4.66 and later: which bars other libraries have on the screen."""

import sys


def bars_shown() -> bool:
    """Whether a bar of tqdm is on the screen, as huggingface_hub's of a download: two would draw over each other.

    tqdm keeps its open bars in `_instances` and has no public way to ask for them. It is looked up, not imported:
    where nothing has imported tqdm there is no bar.
    """
    tqdm = sys.modules.get("tqdm.std")
    instances = getattr(getattr(tqdm, "tqdm", None), "_instances", ())
    return any(not getattr(bar, "disable", True) for bar in list(instances))
