"""Every command in the documentation is one that the real parsers take, and every page is linked."""

import re
from pathlib import Path

import nbformat
import pytest
import yaml
from doc_commands import ROOT, Line, check, command_lines

from medqlora.commands.registry import commands
from medqlora.errors import InputError

DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]


def fault_of(line: Line, patch: pytest.MonkeyPatch) -> str:
    """What the parser says against a command; "" for nothing."""
    try:
        check(line, patch)
    except (InputError, AssertionError) as error:
        return f"{line.where}: medqlora {' '.join(line.words)}: {error}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_are_taken_by_the_real_parsers(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in command_lines(
        page
    ):  # files that a reader has: an option may want them before anything is read
        for word in line.words[1:]:
            if re.fullmatch(r"[\w-]+\.[a-z]\w+", word):
                Path(word).touch()
    assert [fault for line in command_lines(page) if (fault := fault_of(line, monkeypatch))] == []


def test_the_commands_of_the_notebook_are_taken_too(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(ROOT / "examples" / "medqlora_colab.ipynb", as_version=4)
    lines = [
        line[1:]
        for cell in notebook.cells
        for line in cell.source.splitlines()
        if line.startswith("!medqlora")
    ]
    for line in lines:
        words = line.replace("$CONFIG", "--config demo").replace("$SHORT", "").replace("$ASKED", "")
        check(
            Line("notebook", tuple(words.replace("$RUN", "lightning_logs/version_0").split()[1:])),
            monkeypatch,
        )
    assert len(lines) == 7


def test_a_wrong_command_option_or_value_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = (
        "fitt --config demo",
        "fit --config demo --data.batch_sise 4",
        "fit --config mine.yaml --data.source.trian x.csv",
        "merge --out merged --dtype float8",
        "runs --hm",
        "plan --config demo --gpu t4 --model.lora.rank 4",
        "data file.csv --data.batch_size many",
        "push folder",
    )
    for words in wrong:
        with pytest.raises((InputError, AssertionError)):
            check(Line("x", tuple(words.split())), monkeypatch)
    for words in (
        "fit --config mine.yaml --data.source.train x.csv",
        "data x.csv --config demo",
        "--version",
    ):
        check(Line("x", tuple(words.split())), monkeypatch)


def test_every_page_is_in_the_navigation_and_every_command_has_a_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    named = set(re.findall(r"[\w-]+\.md", str(yaml.safe_load(text)["nav"])))
    assert named == {page.name for page in DOCS.glob("*.md")}
    written = "\n".join(page.read_text("utf-8") for page in DOCS.glob("*.md"))
    missing = [name for name in commands() if not re.search(rf"medqlora {name}\b", written)]
    assert missing == []
