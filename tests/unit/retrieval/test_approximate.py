"""The approximate index of the vectors, against the exact dot product of all of them."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from harness import refused
from numpy.typing import NDArray

pytest.importorskip("faiss")

from literature import article, article_set, built

from medqlora.cli import main
from medqlora.errors import InputError
from medqlora.retrieval import search, vectors
from medqlora.retrieval.approximate import RECALL, ApproximateRows, build_approximation, exact_rows
from medqlora.retrieval.opening import open_for_search
from medqlora.retrieval.search import Filters
from medqlora.retrieval.vectors import faiss_file, vector_files

COUNT, SIZE = 6000, 32


@pytest.fixture(scope="module")
def table() -> NDArray[np.float16]:
    """Vectors of length 1 around 60 topics, as embeddings lie."""
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(60, SIZE))
    made = topics[rng.integers(60, size=COUNT)] + 0.6 * rng.normal(size=(COUNT, SIZE))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)


def questions(table: NDArray[np.float16]) -> NDArray[np.float32]:
    """Vectors near those of the table, other ones than those that the build measures on."""
    rng = np.random.default_rng(1)
    some = table[rng.integers(len(table), size=300)].astype(np.float32)
    return (some + 0.05 * rng.normal(size=some.shape)).astype(np.float32)


def test_it_finds_what_the_exact_search_finds_with_the_same_scores(
    table: NDArray[np.float16], tmp_path: Path
) -> None:
    file = tmp_path / "one.faiss"
    made = build_approximation(table, file)
    assert made.recall >= RECALL
    assert made.looked_through < made.lists
    rows = ApproximateRows(file, table, made.looked_through)
    found = total = 0
    for question in questions(table):
        every = table.astype(np.float32) @ question
        best, scores = rows.nearest(question, 10)
        assert scores == pytest.approx(every[best], abs=1e-6)
        assert list(scores) == sorted(scores, reverse=True)
        found += len({*best.tolist()} & {*np.argsort(-every)[:10].tolist()})
        total += 10
    assert found / total >= 0.99
    # a large request, as of a filter that leaves little, is exact
    question = questions(table)[0]
    most, _ = rows.nearest(question, COUNT)
    assert most.tolist() == exact_rows(table, question, COUNT)[0].tolist()
    assert sorted(most.tolist()) == list(range(COUNT))


def test_the_same_vectors_give_the_same_bytes_with_any_number_of_threads(
    table: NDArray[np.float16], tmp_path: Path
) -> None:
    import faiss

    before = faiss.omp_get_max_threads()
    try:
        for threads in (1, 2):
            faiss.omp_set_num_threads(threads)
            build_approximation(table, tmp_path / f"{threads}.faiss")
    finally:
        faiss.omp_set_num_threads(before)
    assert (tmp_path / "1.faiss").read_bytes() == (tmp_path / "2.faiss").read_bytes()


def test_equal_vectors_come_in_the_order_of_the_table(tmp_path: Path) -> None:
    table = np.tile(np.eye(4, dtype=np.float16), (50, 1))
    made = build_approximation(table, tmp_path / "equal.faiss")
    rows = ApproximateRows(tmp_path / "equal.faiss", table, made.lists)
    best, scores = rows.nearest(np.eye(4, dtype=np.float32)[2], 5)
    assert set(scores.tolist()) == {1.0}
    assert best.tolist() == sorted(best.tolist())


def test_a_file_of_other_vectors_or_a_damaged_one_is_refused(
    table: NDArray[np.float16], tmp_path: Path
) -> None:
    file = tmp_path / "small.faiss"
    build_approximation(table[:200], file)
    with pytest.raises(InputError, match="of other vectors"):
        ApproximateRows(file, table, 1)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="is damaged"):
        ApproximateRows(file, table[:200], 1)


def test_a_narrow_filter_leaves_the_nearest_of_what_it_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_vectors import WORDS, save_bert

    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 6)) for _ in range(60)]
    index, bert = tmp_path / "i.mqi", save_bert(tmp_path / "bert")
    articles = (
        article(n, "", f"<AbstractText>{text}</AbstractText>", mesh=("Rare",) if n % 12 == 0 else ())
        for n, text in enumerate(texts)
    )
    built(index, article_set(tmp_path / "a.xml", *articles))
    for how in ("exact", "faiss"):
        vectors.build_vectors(index, bert, None, "cpu", lambda *_: None, how)  # type: ignore[arg-type]
        opened = open_for_search(index, "INDEX", "vectors")
        every = [hit.passage.ident for hit in opened.search("zalo fever", 60, Filters())]
        rare = [ident for ident in every if int(ident) % 12 == 0]
        monkeypatch.setattr(search, "CANDIDATES", 1)
        for few in (100_000, 2):  # compared one by one, or by looking at more
            monkeypatch.setattr(search, "_FEW", few)
            found = opened.search("zalo fever", 3, Filters(mesh=("rare",)))
            assert [hit.passage.ident for hit in found] == rare[:3]
        monkeypatch.undo()
        opened.close()


def test_an_index_is_searched_by_faiss_on_request_and_above_a_number_of_passages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_vectors import save_bert

    bert, index = save_bert(tmp_path / "bert"), tmp_path / "i.mqi"
    texts = ["Pain was relieved", "A study of fever", "Zalo failed in rats", "Aspirin and placebo"]
    built(
        index,
        article_set(
            tmp_path / "a.xml",
            *(article(n, f"{n}", f"<AbstractText>{text}</AbstractText>") for n, text in enumerate(texts)),
        ),
    )
    embed = ["index", "embed", str(index), "--embedding", str(bert), "--device", "cpu"]
    assert main([*embed, "--vectors", "exact"]) == 0
    assert "Search:" not in capsys.readouterr().out
    opened = open_for_search(index, "INDEX", "vectors")
    exact = opened.search("zalo fever", 4)
    opened.close()
    assert main([*embed, "--vectors", "faiss"]) == 0
    assert "Search:  faiss, 1 of 1 lists a question; it finds 100.0%" in capsys.readouterr().out
    opened = open_for_search(index, "INDEX", "vectors")  # torch and faiss in one process
    assert opened.search("zalo fever", 4) == exact
    opened.close()
    # additions keep the choice; so does "auto", which takes faiss from a number on
    more = article_set(tmp_path / "b.xml", article(9, "A new study of pain."))
    assert main(["index", "add", str(index), str(more), "--device", "cpu"]) == 0
    assert "Search:  faiss" in capsys.readouterr().out
    assert main([*embed, "--vectors", "auto"]) == 0
    assert "Search:" not in capsys.readouterr().out
    assert not faiss_file(index).exists()
    monkeypatch.setattr(vectors, "MOST_EXACT", 4)
    assert main([*embed, "--vectors", "auto"]) == 0
    assert "Search:  faiss" in capsys.readouterr().out
    assert json.loads(vector_files(index)[1].read_text())["faiss"]["lists"] == 1

    # killed while it clusters: the vectors are there, and are searched exactly
    def killed(table: NDArray[np.float16], file: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vectors, "build_approximation", killed)
        with pytest.raises(KeyboardInterrupt):
            vectors.build_vectors(index, bert, None, "cpu", lambda *_: None, "faiss")
    assert json.loads(vector_files(index)[1].read_text())["faiss"] is None
    opened = open_for_search(index, "INDEX", "vectors")
    assert {hit.passage.ident for hit in opened.search("zalo fever", 5)} >= {
        hit.passage.ident for hit in exact
    }
    opened.close()
    assert main([*embed, "--vectors", "faiss"]) == 0
    assert "5 as before" in capsys.readouterr().out
    # no room
    with monkeypatch.context() as patch:
        patch.setattr(vectors, "faiss_file", lambda index: tmp_path / "nowhere" / "x")
        assert "can't be written" in refused(capsys, *embed, "--vectors", "faiss")
    assert main([*embed, "--vectors", "faiss"]) == 0
    # without the package
    kept = Path(shutil.copy(faiss_file(index), tmp_path / "kept"))
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert "pip install 'medqlora[faiss]'" in refused(capsys, "index", "search", str(index), "pain")
    assert "--vectors faiss: faiss is missing" in refused(capsys, *embed, "--vectors", "faiss")
    assert faiss_file(index).read_bytes() == kept.read_bytes()
    assert main([*embed, "--vectors", "auto"]) == 0
    assert "are searched exactly" in capsys.readouterr().out
    assert main(["index", "search", str(index), "pain"]) == 0
