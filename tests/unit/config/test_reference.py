"""The option reference and the list of commands are those of the classes."""

import pytest

from medqlora.config import docstrings, reference
from medqlora.config.schema import BACKENDS, GROUPS, sources


@pytest.mark.parametrize("page", reference.pages(), ids=lambda path: path.name)
def test_a_page_is_what_the_classes_say(page: "reference.Path") -> None:
    message = "run python -m medqlora.config.reference"
    assert page.read_text(encoding="utf-8") == reference.pages()[page], message


def test_the_reference_has_every_source_and_backend() -> None:
    tables = reference.option_tables()
    for class_path in (*BACKENDS, *sources()):
        assert f"`{class_path}`" in tables


def test_a_missing_block_is_an_error() -> None:
    with pytest.raises(ValueError, match="no block 'options'"):
        reference.with_block("no block here", "options", "")


@pytest.mark.parametrize("kind", [*GROUPS.values(), *BACKENDS.values()], ids=lambda kind: kind.__name__)
def test_every_option_has_a_help(kind: type) -> None:
    import dataclasses

    help_of = docstrings.arguments(kind)
    assert all(help_of.get(field.name) for field in dataclasses.fields(kind))


def test_the_help_of_several_arguments_and_of_continued_lines() -> None:
    class Some:
        """Does something.

        Args:
            first, second: both of them,
                over two lines.
            third: one.

        Raises:
            ValueError: never.
        """

    assert docstrings.arguments(Some) == {
        "first": "both of them, over two lines.",
        "second": "both of them, over two lines.",
        "third": "one.",
    }
