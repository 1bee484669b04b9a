"""What this project asks of tqdm's private parts."""

import io

from huggingface_hub.utils import tqdm

from medqlora.compat.tqdm import bars_shown


def test_a_bar_of_another_library_is_seen_while_it_is_open() -> None:
    assert not bars_shown()
    with tqdm(total=3, file=io.StringIO(), disable=False):
        assert bars_shown()
    assert not bars_shown()
    with tqdm(total=3, disable=True):
        assert not bars_shown()
