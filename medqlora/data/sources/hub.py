"""Rows of a dataset on the Hugging Face Hub."""

from medqlora.data.readers import Row
from medqlora.errors import InputError


def read_hub(
    repository: str,
    config: str | None,
    split: str,
    revision: str | None,
    option: str,
    fix: str,
    images: str | None = None,
) -> list[Row]:
    """All rows of one split.

    Args:
        repository: the dataset's name ("qiaojin/PubMedQA").
        config: its configuration; None for the only one.
        split: the split ("train").
        revision: the commit, branch or tag; the newest when None.
        option: the option that selected it, for messages.
        fix: how to pass a local copy instead, for messages.
        images: a column of images, whose files are given as bytes instead of being decoded.

    Raises:
        InputError: the split can't be read; one line that ends with `fix`.
    """
    import datasets

    names = [repository] if config is None else [repository, config]
    try:
        rows = datasets.load_dataset(*names, split=split, revision=revision)
        values = list(rows if images is None else rows.cast_column(images, datasets.Image(decode=False)))
    except Exception as error:  # the Hub, its cache and the network each raise their own errors
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"{option}: {repository} ({config or split}, revision {revision or 'main'}) can't be read from the Hub "
            f"({type(error).__name__}: {reason}): {fix}"
        ) from error
    origin = "/".join([*names, split])
    return [Row(f"{origin}:{number}", number, None, value, origin) for number, value in enumerate(values, 1)]
