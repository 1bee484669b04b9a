"""An index on an OpenSearch server, by its real client: recorded replies, an index file as the oracle, and refusals.

The replies in `opensearch_exchanges.json` were recorded from a server that speaks OpenSearch's API (osmem 0.1.6).
`MEDQLORA_OPENSEARCH=URL` runs the tests against another one; with `MEDQLORA_RECORD=1` its replies are written down.
"""

import os
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from harness import refused
from literature import article, article_set, built
from recorded_http import Recording, Reply, Request, served

from medqlora.cli import main
from medqlora.records import Record
from medqlora.retrieval.documents import Document, Section
from medqlora.retrieval.embedding import CrossEncoder, Encoder, digest
from medqlora.retrieval.opening import open_for_search
from medqlora.retrieval.retriever import Retriever
from medqlora.retrieval.search import Filters, Hit
from medqlora.retrieval.searchable import Searchable
from medqlora.retrieval.servers import opensearch_shapes as shapes
from medqlora.retrieval.servers.opensearch import OpenSearchIndex

pytest.importorskip("opensearchpy")
EXCHANGES = Path(__file__).with_name("opensearch_exchanges.json")
NAME = "medqlora-test"
QUESTIONS = ["Does zalo relieve fevers of children?", "aspirin pains in rats or Belgrosis", "the of"]
FILTERS = [
    Filters(),
    Filters(mesh=("pain", "Fever")),
    Filters(year_from=2005),
    Filters(year_to=1999),
    Filters(retracted=True),
    Filters(animal=False),
]


def describe(folder: Path, url: str, **more: object) -> Path:
    lines = "".join(f"  {name}: {value}\n" for name, value in {"url": url, "name": NAME, **more}.items())
    path = folder / "server.yaml"
    path.write_text(f"class_path: medqlora.retrieval.OpenSearchIndex\ninit_args:\n{lines}", "utf-8")
    return path


def first_files(folder: Path) -> list[Path]:
    sentences = [f"Study number {n} tells that aspirin relieved pain in {n + 3} rats." for n in range(9)]
    many = f'<AbstractText Label="RESULTS">{" ".join(sentences)}</AbstractText>'
    fever = "<AbstractText>A study of fever and zalo in children.</AbstractText>"
    failed = "<AbstractText>The study of zalo failed.</AbstractText>"
    return [
        article_set(
            folder / "a.xml",
            article(1, "Aspirin", many, mesh=("Animals", "Pain"), year="<Year>1999</Year>"),
            article(2, "Zalo in fever", fever, mesh=("Humans", "Fever"), year="<Year>2010</Year>", version=2),
            article(3, "Zalo, a study", failed, types=("Retracted Publication",)),
            article(4, "Belgrosis"),
        )
    ]


def update(folder: Path) -> Path:
    """One article is shorter now, one is new, one older than the index's, one deleted."""
    shorter = "<AbstractText>This study of aspirin was short.</AbstractText>"
    return article_set(
        folder / "b.xml",
        article(1, "Aspirin", shorter, version=2),
        article(2, "Zalo, an older study", version=1),
        article(5, "A new study of zalo"),
        "<DeleteCitation><PMID>4</PMID></DeleteCitation>",
    )


class Indexes:
    """The same literature on the server and in a file.

    Args:
        folder: with both.
        url: the server's.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.file, self.server = folder, folder / "i.mqi", describe(folder, url)

    def opened(self) -> tuple[Searchable, Searchable]:
        return open_for_search(self.server, "INDEX"), open_for_search(self.file, "INDEX")


@pytest.fixture
def indexes(tmp_path: Path) -> Iterator[Indexes]:
    """Each test that uses it replays the whole recording up to its own requests."""
    live = os.environ.get("MEDQLORA_OPENSEARCH")
    if live:
        with suppress(OSError):  # not there
            urllib.request.urlopen(urllib.request.Request(f"{live}/{NAME}", method="DELETE"))
    recording = Recording(EXCHANGES, live)
    with served(recording.answer) as url:
        yield Indexes(tmp_path, url)
    assert recording.unknown == []
    if live and os.environ.get("MEDQLORA_RECORD"):
        recording.save()


def plain(hits: list[Hit]) -> set[tuple[object, ...]]:
    """The passages without their numbers, with coverage."""
    return {(*hit.passage._replace(id=0), round(hit.coverage, 6)) for hit in hits}


def same(indexes: Indexes, filters_of_all: Sequence[Filters] = FILTERS) -> None:
    """Both find the same passages, with the same provenance and coverage, the same first."""
    server, file = indexes.opened()
    for question in QUESTIONS:
        for filters in filters_of_all:
            found, expected = server.search(question, 50, filters), file.search(question, 50, filters)
            assert plain(found) == plain(expected)
            assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
            best = {hit.passage.ident for hit in expected if hit.score == expected[0].score}
            assert not found or found[0].passage.ident in best
    (first, *_) = server.search("study", 1, Filters())
    assert server.fetch([first.passage.id])[first.passage.id] == first.passage
    assert server.fetch([]) == {}
    server.close()
    file.close()


def test_the_server_finds_what_an_index_file_finds_also_after_updates_and_deletions(
    indexes: Indexes, capsys: pytest.CaptureFixture[str]
) -> None:
    files = first_files(indexes.folder)
    build = ["index", "build", "--out", str(indexes.server), *map(str, files), "--passage_words", "20"]
    assert main(build) == 0
    assert "Documents: 4 added, 0 replaced, 0 deleted; " in capsys.readouterr().out
    built(indexes.file, *files, words=20)
    same(indexes)
    assert "exists: `medqlora index add` extends it" in refused(capsys, *build)
    more = update(indexes.folder)
    assert main(["index", "add", str(indexes.server), str(more)]) == 0
    said = capsys.readouterr().out
    assert "1 added, 1 replaced, 1 deleted, 1 older versions ignored; 4 passages in all" in said
    built(indexes.file, more, add=True)
    same(indexes, FILTERS[3:5])
    # the same again changes nothing
    assert main(["index", "add", str(indexes.server), str(more)]) == 0
    assert "0 added, 2 replaced, 0 deleted" in capsys.readouterr().out
    same(indexes, FILTERS[:1])
    assert main(["index", "info", str(indexes.server)]) == 0
    assert "passage words     20" in capsys.readouterr().out
    assert main(["index", "search", str(indexes.server), "zalo fever", "--k", "1"]) == 0
    assert "PMID 2" in capsys.readouterr().out
    opened = open_for_search(indexes.server, "INDEX")
    retrieved = Retriever(opened, k=2, exclude_source=True).retrieve(Record("2", "Does zalo help in fever?"))
    assert retrieved.evidence.found
    assert "2" not in {hit.passage.pmid for hit in retrieved.hits}
    assert retrieved.record.contexts
    opened.close()


def test_a_build_that_was_killed_is_no_index_and_the_same_command_completes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state: dict[str, Any] = {"meta": shapes.meta_of(20, None), "bulk": []}

    def answer(request: Request) -> Reply:
        if request.path == f"/{NAME}/_mapping" and request.method == "PUT":
            state["meta"] = request.body["_meta"]
            return 200, {"acknowledged": True}
        if request.path.endswith("_bulk"):
            state["bulk"] += [line for line in request.body if "_source" not in line and "key" not in line]
        return documented(request, state["meta"])

    with served(answer) as url:
        path = describe(tmp_path, url)
        assert "is incomplete: run its `medqlora index build` again" in refused(
            capsys, "index", "search", str(path), "pain"
        )
        words = [
            "index",
            "build",
            "--out",
            str(path),
            *map(str, first_files(tmp_path)),
            "--passage_words",
            "20",
        ]
        assert main(words) == 0
        assert state["meta"]["complete"]
        # the first passage of a document says how many there are: it is written last
        ids = [line["index"]["_id"] for line in state["bulk"]]
        heads = {shapes.passage_id(f"pmid:{number}", 0) for number in (1, 2, 3, 4)}
        assert set(ids[-4:]) == heads
        assert main(["index", "search", str(path), "pain"]) == 0


def documented(request: Request, meta: dict[str, Any]) -> Reply:
    """Replies in the shapes that https://docs.opensearch.org/latest/api-reference/ shows, of an empty index."""
    kind = request.path.partition("?")[0].rpartition("/")[2]
    hits = {"total": {"value": 1, "relation": "eq"}, "max_score": None, "hits": []}
    replies: dict[str, Any] = {
        "_mapping": {NAME: {"mappings": {"_meta": meta, "properties": {}}}},
        "_refresh": {"_shards": {"total": 1, "successful": 1, "failed": 0}},
        "_count": {"count": 1, "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0}},
        "_analyze": {
            "tokens": [{"token": "pain", "start_offset": 0, "end_offset": 4, "type": "word", "position": 0}]
        },
        "_search": {
            "took": 1,
            "timed_out": False,
            "hits": hits,
            "aggregations": {"documents": {"value": 1}, "years": {"count": 0, "min": None, "max": None}},
        },
    }
    if kind == "_msearch":
        return 200, {"responses": [{"hits": hits, "status": 200} for _ in request.body[::2]]}
    if kind == "_mget":
        return 200, {"docs": [{"_index": NAME, "_id": one, "found": False} for one in request.body["ids"]]}
    if kind == "_bulk":
        items = [
            {name: {"_index": NAME, "_id": one["_id"], "result": "created", "status": 201}}
            for line in request.body
            for name, one in line.items()
            if name in ("index", "delete") and isinstance(one, dict)
        ]
        return 200, {"took": 1, "errors": False, "items": items}
    return 200, replies.get(kind, {})


def test_vectors_go_to_the_server_and_both_rankings_are_fused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from test_vectors import save_bert

    bert = save_bert(tmp_path / "bert")
    texts = {"1": "Aspirin relieved pain", "2": "A study of fever in rats"}
    made = [
        source
        for ident, text in texts.items()
        for _, source in shapes.sources_of(Document(ident, ident, "s", abstract=(Section("", text),)), 300)
    ]
    one, two = ({**source, "parts": "[]"} for source in made)
    asked: list[Request] = []

    def answer(request: Request) -> Reply:
        asked.append(request)
        body = request.body
        if not request.path.endswith("_search"):
            return documented(request, {**shapes.meta_of(300, digest(bert)), "complete": True})
        scored: list[tuple[dict[str, Any], float]] = [(one, 3.0), (two, 0.5)]
        if "knn" in body["query"]:
            scored = [(two, 1.9), (one, 1.2)]
        held = {"1": ["pain"], "2": []}
        return 200, {
            "hits": {
                "hits": [
                    {"_source": source, "_score": score, "matched_queries": held[str(source["ident"])]}
                    for source, score in scored
                ]
            }
        }

    def answer_unlike(request: Request) -> Reply:
        return documented(request, {**shapes.meta_of(300, "another"), "complete": True})

    with served(answer_unlike) as url:
        line = refused(capsys, "index", "search", str(describe(tmp_path, url, embedding=bert)), "pain")
        assert "has vectors of another model, or none" in line
        file = str(first_files(tmp_path)[0])
        assert "has vectors: add embedding" in refused(
            capsys, "index", "add", str(describe(tmp_path, url)), file
        )
    with served(answer) as url:
        path = describe(tmp_path, url, embedding=bert)
        server = open_for_search(path, "INDEX", device="cpu")
        assert isinstance(server, OpenSearchIndex)
        hits = server.search("pain", 2, Filters(year_from=2000))
        assert {hit.passage.ident: hit.coverage for hit in hits} == {"1": 1.0, "2": 0.0}
        assert [hit.score for hit in hits] == pytest.approx([1 / 61 + 1 / 62] * 2)
        (nearest,) = (
            one.body["query"]["knn"]["vector"]
            for one in asked
            if one.path.endswith("_search") and "knn" in one.body["query"]
        )
        assert nearest["vector"] == pytest.approx(
            Encoder(bert, device="cpu").query("pain").tolist(), abs=1e-6
        )
        assert nearest["filter"]["bool"]["filter"][0] == {"range": {"year": {"gte": 2000}}}
        server.write([(Document("9", "9", "s", abstract=(Section("", texts["1"]),)), "f")])
        (sent,) = (line for one in asked if one.path.endswith("_bulk") for line in one.body if "key" in line)
        assert sent["vector"] == pytest.approx(
            Encoder(bert, device="cpu").documents([texts["1"]])[0].tolist(), abs=1e-5
        )
        server.close()
        by_words = open_for_search(path, "INDEX", "words")
        assert [hit.passage.ident for hit in by_words.search("pain", 2)] == ["1", "2"]
        by_words.close()
        cross = save_bert(tmp_path / "cross", labels=1)
        ordered = open_for_search(path, "INDEX", "words", str(cross), "cpu")
        scores = CrossEncoder(cross, device="cpu").scores("pain", list(texts.values()))
        expected = dict(zip(texts, scores, strict=True))
        found = {hit.passage.ident: hit.score for hit in ordered.search("pain", 2)}
        assert found == pytest.approx(expected, abs=1e-5)
        assert list(found) == sorted(expected, key=lambda ident: -expected[ident])
        ordered.close()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            (404, {"error": {"type": "index_not_found_exception"}, "status": 404}),
            "there is no index medqlora-test",
        ),
        ((401, {}), "refuses user None: correct user, or the password in OPENSEARCH_PASSWORD"),
        (
            (500, {"error": {"type": "x", "reason": "full"}}),
            "medqlora-test: TransportError(500, 'x')",
        ),
        ((200, {NAME: {"mappings": {}}}), "is no index of this version of medqlora"),
        ((200, {}), "answers in another form"),
    ],
)
def test_a_server_that_refuses_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reply: Reply, message: str
) -> None:
    with served(lambda request: reply) as url:
        assert message in refused(capsys, "index", "search", str(describe(tmp_path, url)), "pain")


def test_what_no_server_makes_right_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(lambda request: (200, {})) as url:
        gone = describe(tmp_path, url)
    said = refused(capsys, "index", "info", str(gone))
    assert "doesn't answer (Failed to establish a new connection: Connection refused): start it" in said
    assert "on a server" in refused(capsys, "index", "add", str(gone), str(gone), "--vectors", "faiss")

    def line(text: str) -> str:
        path = tmp_path / "other.yaml"
        path.write_text(text, "utf-8")
        return refused(capsys, "verify", "Aspirin relieves the pain.", "--index", str(path))

    kind = "class_path: medqlora.retrieval.OpenSearchIndex\n"
    assert "class_path is missing" in line("init_args: {}")
    assert "is no class of an index" in line("class_path: pathlib.Path")
    assert "can't be imported" in line("class_path: medqlora.nowhere.Index")
    assert "init_args: url is missing" in line(kind)
    assert "has no option 'host'" in line(f"{kind}init_args:\n  host: a\n")
    assert "write it as https://localhost:9200" in line(f"{kind}init_args:\n  url: localhost\n  name: a\n")
    assert "choose another" in line(f"{kind}init_args:\n  url: http://a\n  name: Über Alles\n")
    local = f"{kind}init_args:\n  url: http://a\n  name: a\n"
    assert "embedding 5: write a text" in line(f"{local}  embedding: 5\n")
    assert "shards 0: write a number of at least 1" in line(f"{local}  shards: 0\n")
    assert "timeout_s 'soon': write a number" in line(f"{local}  timeout_s: soon\n")
    assert "there is no file ca.pem" in line(f"{local}  certificates: ca.pem\n")
    login = f"{kind}init_args:\n  url: http://127.0.0.1:1\n  name: a\n  user: me\n"
    monkeypatch.delenv("OPENSEARCH_PASSWORD", raising=False)
    assert "put the password into OPENSEARCH_PASSWORD" in line(login)
    vectors = refused(capsys, "index", "embed", str(gone), "--embedding", str(tmp_path))
    assert "write `embedding` into it" in vectors
    monkeypatch.setitem(sys.modules, "opensearchpy", None)
    assert "pip install 'medqlora[opensearch]'" in refused(capsys, "index", "info", str(gone))
