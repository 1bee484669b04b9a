"""An index: the same answers after a kill, after updates and in any copy; filters; and a query as plain words."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import refused
from literature import article, article_set, built, trial_rows, trials

from medqlora.cli import main
from medqlora.errors import InputError
from medqlora.retrieval.search import Filters, Index

#: builds words[0] of words[1:], and kills itself with SIGKILL at a write, a commit or the packing
KILLED = """
import os, signal, sys
from medqlora.retrieval import build, writer
from literature import built
from pathlib import Path
where, number, out, *paths = sys.argv[1:]
build.BATCH = 40
kinds = {"write": (writer.Writer, "write"), "commit": (build._Build, "_commit"), "pack": (build._Build, "_pack")}
holder, name = kinds[where]
real, calls = getattr(holder, name), []
def counted(self, *words):
    result = None if where == "pack" else real(self, *words)
    calls.append(1)
    if len(calls) == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, *words) if where == "pack" else result
setattr(holder, name, counted)
built(Path(out), *map(Path, paths))
"""


KILLS = [
    ("write", 1),
    ("write", 2),
    *[("commit", 1)] * 3,
    *[("write", 2)] * 2,
    ("commit", 1),
    *[("pack", 1)] * 2,
]
#: questions that are no words, or look like SQL or FTS5's own language
ODD = [
    '"',
    "pain AND",
    "NOT pain*",
    "title:pain)",
    "NEAR(a b)",
    "péin’s – ½ 疼痛",
    "",
    "?!",
    "'; DROP TABLE x; --",
]


def found(index: Path, query: str, count: int = 3, filters: Filters = Filters()) -> list[str]:  # noqa: B008
    opened = Index.open(index)
    idents = [hit.passage.ident for hit in opened.search(query, count, filters)]
    opened.close()
    return idents


@pytest.fixture
def corpus(tmp_path: Path) -> list[Path]:
    """Two files: 150 trials, and a PubMed file with an update and a deletion in it."""
    rows = trial_rows(tmp_path / "trials.jsonl", trials(150))
    articles = [article(number, f"Title {number} of zalo{number}.") for number in range(1, 90)]
    articles += [
        article(5, "A newer title of zalo5 and morvik."),
        "<DeleteCitation><PMID>6</PMID></DeleteCitation>",
    ]
    return [rows, article_set(tmp_path / "p.xml", *articles)]


def test_a_build_that_is_killed_ten_times_gives_the_bytes_of_an_unbroken_one(
    tmp_path: Path, corpus: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medqlora.retrieval.build.BATCH", 40)
    whole, killed = tmp_path / "whole.mqi", tmp_path / "killed.mqi"
    built(whole, *corpus)
    path = os.pathsep.join([str(Path(__file__).parents[2] / "helpers"), *sys.path])
    for where, number in [
        ("write", 1),
        ("write", 2),
        *[("commit", 1)] * 3,
        *[("write", 2)] * 2,
        ("commit", 1),
        *[("pack", 1)] * 2,
    ]:
        done = subprocess.run(
            [sys.executable, "-c", KILLED, where, str(number), str(killed), *map(str, corpus)],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not killed.exists()
    built(killed, *corpus)
    assert killed.read_bytes() == whole.read_bytes()
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_updates_and_deletions_are_carried_out_and_older_versions_ignored(
    tmp_path: Path, corpus: list[Path]
) -> None:
    index = tmp_path / "i.mqi"
    first = built(index, corpus[1])
    assert (first.documents, first.replaced, first.deleted) == (88, 1, 0)  # 6 never was in the index
    assert found(index, "morvik") == ["5"]
    assert found(index, "zalo6") == []
    update = article_set(
        tmp_path / "update.xml",
        article(7, "Another name, bretalin.", version=2),
        article(8, "An article of today."),
        article(8, "An old version, drumalik.", version=0),
        article(200, "Quite new, hastofin."),
        "<DeleteCitation><PMID>9</PMID></DeleteCitation>",
    )
    second = built(index, update, add=True)
    assert second[:6] == (88, 88, 1, 2, 1, 1)
    assert found(index, "bretalin") == ["7"]
    assert [found(index, name) for name in ("zalo7", "zalo9", "drumalik")] == [[], [], []]
    assert found(index, "hastofin") == ["200"]
    older = article_set(tmp_path / "older.xml", article(7, "The first version, quilobar."))
    assert built(index, older, add=True).ignored == 1
    assert found(index, "quilobar") == []


def test_an_index_needs_no_second_file_and_can_be_read_from_a_folder_that_cannot_be_written(
    tmp_path: Path, corpus: list[Path]
) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    built(folder / "i.mqi", *corpus)
    assert [one.name for one in folder.iterdir()] == ["i.mqi"]
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(folder / "i.mqi", copy / "j.mqi")
    copy.chmod(0o555)
    try:
        assert found(copy / "j.mqi", "morvik") == ["5"]
        assert [one.name for one in copy.iterdir()] == ["j.mqi"]
    finally:
        copy.chmod(0o755)


def test_filters_keep_years_and_headings_and_leave_retracted_and_animal_studies_out(tmp_path: Path) -> None:
    path = article_set(
        tmp_path / "a.xml",
        article(1, "Pain", year="<Year>1999</Year>", mesh=["Humans", "Asthma"]),
        article(2, "Pain", year="<Year>2005</Year>", mesh=["Animals"]),
        article(3, "Pain", types=["Retracted Publication"], year="<Year>2005</Year>"),
        article(4, "Pain", year=""),
    )
    index = tmp_path / "i.mqi"
    built(index, path)
    assert sorted(found(index, "pain", 9)) == ["1", "2", "4"]
    assert sorted(found(index, "pain", 9, Filters(retracted=True))) == ["1", "2", "3", "4"]
    assert sorted(found(index, "pain", 9, Filters(animal=False))) == ["1", "4"]
    assert found(index, "pain", 9, Filters(mesh=("asthma",))) == ["1"]
    assert found(index, "pain", 9, Filters(year_from=2000)) == ["2"]
    assert found(index, "pain", 9, Filters(year_to=2004)) == ["1"]


@pytest.mark.parametrize("query", [*ODD, "a" * 9000])
def test_any_question_is_read_as_words(tmp_path: Path, query: str) -> None:
    index = tmp_path / "i.mqi"
    built(index, article_set(tmp_path / "a.xml", article(1, "Relieving pain.")))
    assert found(index, query) == (["1"] if "pain" in query else [])


def test_words_are_found_by_their_stems_and_coverage_says_how_many(tmp_path: Path) -> None:
    index = tmp_path / "i.mqi"
    built(
        index,
        *[
            article_set(tmp_path / f"{n}.xml", article(n, title))
            for n, title in enumerate(["Relieving pains", "A fever", "Naïve rats"])
        ],
    )
    opened = Index.open(index)
    (hit,) = opened.search("Does aspirin relieve pain?", 3)
    assert hit.passage.ident == "0"
    assert 0.2 < hit.coverage < 0.9
    assert opened.search("naive RAT", 1)[0].coverage == pytest.approx(1)
    opened.close()


def test_common_words_are_not_searched_where_rare_ones_are_there(
    tmp_path: Path, corpus: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "i.mqi"
    built(index, *corpus)
    question = trials(150)[17]
    expected = found(index, question.question, 1)
    assert expected == [question.id]
    monkeypatch.setattr("medqlora.retrieval.search.POSTINGS", 10)
    assert found(index, question.question, 1) == expected


def test_bad_rows_are_left_out_on_request_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], corpus: list[Path]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "1", "text": "Good."}\n{no}\n{"id": "\\u001b[31m"}\n', "utf-8")
    out = tmp_path / "i.mqi"
    line = refused(capsys, "index", "build", "--out", str(out), str(bad))
    assert "bad.jsonl:2: not JSON" in line
    assert main(["index", "build", "--out", str(out), str(bad), "--on_bad_record", "skip"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("Left out: ") == 2
    assert "\x1b" not in shown
    assert "Documents: 1 (1 added" in shown


def test_the_command_builds_shows_and_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], corpus: list[Path]
) -> None:
    out = tmp_path / "i.mqi"
    nasty = article_set(
        tmp_path / "n.xml",
        article(3, "Esc &#x9b;31m of zzyx \u202e.", "<AbstractText>&lt;script&gt; zzyx</AbstractText>"),
    )
    assert main(["index", "build", "--out", str(out), *map(str, corpus), str(nasty)]) == 0
    capsys.readouterr()
    assert main(["index", "search", str(out), "zzyx", "--k", "1"]) == 0
    shown = capsys.readouterr().out
    assert "\\x9b" in shown
    assert "\\u202e" in shown
    assert shown.isprintable() or set(shown) - {"\n"} == {letter for letter in shown if letter.isprintable()}
    assert main(["index", "search", str(out), "zzyx", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["pmid"], row["link"]) == ("3", "https://pubmed.ncbi.nlm.nih.gov/3/")
    assert main(["index", "info", str(out), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["documents"] == 150 + 88
    assert info["sources"] == {"PubMed": 88, "trials.jsonl": 150}
    for words, message in {
        ("build", "--out", str(out), str(corpus[0])): "exists: `medqlora index add` extends it",
        # as a build leaves it that was killed while it embedded
        ("build", "--out", str(out), str(corpus[0]), "--embedding", "model"): (
            f"without its vectors, as a build leaves it that was killed: `medqlora index embed {out} --embedding model"
        ),
        ("build", "--out", str(tmp_path / "no" / "i.mqi"), str(corpus[0])): "there is no folder",
        ("build", "--out", str(tmp_path), str(corpus[0]), "--overwrite"): "is a folder: name a file in it",
        ("search", str(out), "x", "--k", "0"): "--k is 0: it has to be from 1 to 1000",
        ("build", "--out", str(tmp_path / "j.mqi"), "none.xml"): "none.xml: there is no such file",
        ("add", "none.mqi", str(corpus[0])): "there is no file none.mqi",
        ("build", "--out", str(tmp_path / "j.mqi"), str(corpus[0]), "--vectors", "faiss"): "give --embedding",
        ("add", str(out), str(corpus[0]), "--vectors", "exact"): "give --embedding",
        ("add", str(out), str(corpus[0]), "--query_embedding", "m"): "or leave --query_embedding out",
        ("search", str(corpus[0]), "x"): "is no index",
        ("search", str(out), "x", "--years", "20x"): "--years 20x: write 2010-2020",
        ("search", str(out), "x", "--ranking", "vectors"): "no vectors lie beside it",
        ("serch",): "there is no such action: did you mean 'search'?",
    }.items():
        assert message in refused(capsys, "index", *words), words
    assert not (tmp_path / "j.mqi").exists()


def test_a_damaged_index_and_a_question_that_is_no_text_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], corpus: list[Path]
) -> None:
    whole, cut = tmp_path / "i.mqi", tmp_path / "cut.mqi"
    built(whole, *corpus)
    cut.write_bytes(whole.read_bytes()[:-40960])
    for words in (["search", str(cut), "zalo17"], ["info", str(cut)]):
        assert str(cut) in refused(capsys, "index", *words)
    assert found(whole, "zalo17 \udcff") == ["17"]


def test_a_build_that_ends_on_a_bad_row_leaves_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "1", "text": "Good."}\n{no}\n', "utf-8")
    with pytest.raises(InputError, match="not JSON"):
        built(tmp_path / "i.mqi", bad)
    assert [one.name for one in tmp_path.iterdir()] == ["bad.jsonl"]


def test_two_builds_of_one_index_do_not_meet(tmp_path: Path, corpus: list[Path]) -> None:
    from medqlora.utils.locks import hold

    release = hold(tmp_path / "i.mqi")
    try:
        with pytest.raises(InputError, match="another process is building it"):
            built(tmp_path / "i.mqi", *corpus)
    finally:
        release()
