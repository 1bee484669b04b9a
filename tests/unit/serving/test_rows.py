"""What is shown of a text while it grows is the beginning of what it is in the end."""

from collections.abc import Sequence

import pytest

from medqlora.serving.engines.rows import Row


class Bytes:
    """Each token is a byte of UTF-8."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        return bytes(token_ids).decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("stop", "wanted"),
    [
        (("the end",), "At first the enemy went, then"),
        (("never", "the ene"), "At first"),
        (("neé", "then the"), "At first the enemy went,"),
        (("é!",), "At first the enemy went, then the end caf"),
        (("nobody",), "At first the enemy went, then the end café!"),
    ],
)
def test_no_part_of_a_stop_text_is_shown(stop: tuple[str, ...], wanted: str) -> None:
    row, shown = Row([1], 100, stop=stop, watched=True), [""]
    for token in "At first the enemy went, then the end café!".encode():
        row.add(token, Bytes())
        row.write(Bytes())
        shown.append(row.text)
        if row.ended:
            break
    if not row.ended:
        row.finish = "stop"  # as by an end token
        row.write(Bytes())
    assert row.text == wanted
    assert [text for text in shown if not wanted.startswith(text.rstrip("\ufffd"))] == []
    assert len(set(shown)) > 5
