"""Vectors beside an index: pooling as the model's folder says, an exact search, and what is refused."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import refused
from literature import article, article_set, built

from medqlora.cli import main
from medqlora.errors import InputError
from medqlora.retrieval.embedding import CrossEncoder, EmbeddingRecipe, Encoder
from medqlora.retrieval.opening import open_for_search
from medqlora.retrieval.search import Filters, Index, shown_text
from medqlora.retrieval.vectors import keys_file, vector_files

TEXT = "pain fever rats aspirin zalo belgrosis relieved failed placebo in the of a study title"
WORDS = TEXT.split()


def save_bert(folder: Path, labels: int = 0, seed: int = 0, size: int = 16) -> Path:
    """A tiny random BERT with a tokenizer of whole words."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    fast = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    fast.normalizer, fast.pre_tokenizer = Lowercase(), Whitespace()
    fast.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=fast, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=size,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        num_labels=labels or 2,
    )
    (BertForSequenceClassification(config) if labels else BertModel(config)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert") / "model")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    texts = [
        ("Aspirin in pain", "Pain was relieved"),
        ("Zalo in fever", "A study of fever"),
        ("Rats", "Zalo failed"),
    ]
    path = article_set(
        tmp_path / "a.xml",
        *(
            article(n, title, f"<AbstractText>{text}</AbstractText>", year=f"<Year>{2000 + n}</Year>")
            for n, (title, text) in enumerate(texts)
        ),
    )
    built(tmp_path / "i.mqi", path)
    return tmp_path / "i.mqi"


def pooling(folder: Path, **modes: bool) -> Path:
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes), "utf-8")
    return folder


def test_a_vector_is_pooled_as_the_folder_says_and_padding_changes_none(bert: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    model, tokenizer = AutoModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)
    with torch.no_grad():
        hidden = model(**tokenizer("pain relieved", return_tensors="pt")).last_hidden_state[0].numpy()
    texts = ["pain relieved", "a study of the fever in rats of aspirin"]
    mean = Encoder(pooling(folder, pooling_mode_mean_tokens=True)).documents(texts)
    wanted = hidden.mean(0)
    assert mean[0] == pytest.approx(wanted / np.linalg.norm(wanted), abs=1e-5)
    first = Encoder(pooling(folder, pooling_mode_cls_token=True)).documents(texts)
    assert first[0] == pytest.approx(hidden[0] / np.linalg.norm(hidden[0]), abs=1e-5)
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Transformer"}]', "utf-8")
    assert Encoder(folder).documents(texts)[0] == pytest.approx(hidden[0], abs=1e-5)
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "fever "}}', "utf-8")
    encoder = Encoder(folder)
    assert encoder.query("pain") == pytest.approx(encoder.documents(["fever pain"])[0], abs=1e-5)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "1_Pooling/config.json",
            '{"pooling_mode_max_tokens": true}',
            "pooling_mode_max_tokens is not supported",
        ),
        (
            "modules.json",
            '[{"type": "sentence_transformers.models.Dense"}]',
            "its step Dense is not supported",
        ),
        ("modules.json", "[", "is damaged"),
    ],
)
def test_a_folder_of_another_kind_is_refused(
    bert: Path, tmp_path: Path, name: str, text: str, message: str
) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text, "utf-8")
    with pytest.raises(InputError, match=message):
        EmbeddingRecipe.read(folder, "--embedding")


@pytest.fixture
def embedded(index: Path, bert: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["index", "embed", str(index), "--embedding", str(bert), "--device", "cpu"]) == 0
    assert "Vectors: 3 of 16 numbers" in capsys.readouterr().out
    return index


def test_vectors_rank_by_the_dot_product_and_both_rankings_fuse(embedded: Path, bert: Path) -> None:
    encoder = Encoder(bert)
    opened = open_for_search(embedded, "INDEX", "vectors")
    hits = opened.search("zalo fever", 3)
    expected = {
        hit.passage.ident: float(
            encoder.query("zalo fever") @ encoder.documents([shown_text(hit.passage)])[0]
        )
        for hit in hits
    }
    assert [hit.passage.ident for hit in hits] == sorted(expected, key=lambda ident: -expected[ident])
    assert len(opened.search("zalo", 3, Filters(year_from=2001))) == 2
    opened.close()
    both = open_for_search(embedded, "INDEX")
    assert both.lexical
    assert both.vectors is not None
    by_words = [hit.passage.ident for hit in Index.open(embedded).search("zalo fever", 3)]
    fused = {hit.passage.ident: hit.score for hit in both.search("zalo fever", 3)}
    for ident, score in fused.items():
        ranks = [
            ranking.index(ident) + 1
            for ranking in (by_words, [hit.passage.ident for hit in hits])
            if ident in ranking
        ]
        assert score == pytest.approx(sum(1 / (60 + rank) for rank in ranks))
    both.close()


def test_added_documents_alone_are_embedded(
    embedded: Path,
    bert: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    original = Encoder.documents

    def documents(self: Encoder, texts: Sequence[str]) -> Any:
        seen.extend(texts)
        return original(self, texts)

    monkeypatch.setattr(Encoder, "documents", documents)
    # one is new, one has another text, two stay
    fever = "<AbstractText>A study of aspirin in rats</AbstractText>"
    more = article_set(tmp_path / "more.xml", article(9, "Pain failed"), article(1, "Zalo", fever, version=2))
    assert main(["index", "add", str(embedded), str(more), "--device", "cpu"]) == 0
    assert "Vectors: 4 of 16 numbers, 2 as before" in capsys.readouterr().out
    assert len(seen) == 2
    table = np.load(vector_files(embedded)[0])
    opened = open_for_search(embedded, "INDEX", "vectors")
    passages = opened.connection.execute("SELECT id FROM passages ORDER BY id").fetchall()
    found = opened.fetch([row[0] for row in passages])
    for row, (number,) in zip(table, passages, strict=True):
        expected = original(Encoder(bert), [shown_text(found[number])])[0]
        assert row == pytest.approx(expected, abs=2e-3)
    opened.close()
    # another model, or files without keys: everything anew
    other = Path(shutil.copytree(bert, tmp_path / "other"))
    pooling(other, pooling_mode_cls_token=True)
    assert main(["index", "embed", str(embedded), "--embedding", str(other), "--device", "cpu"]) == 0
    assert "as before" not in capsys.readouterr().out
    assert main(["index", "embed", str(embedded), "--embedding", str(other), "--device", "cpu"]) == 0
    assert "4 as before" in capsys.readouterr().out
    keys_file(embedded).write_bytes(b"no keys")
    assert main(["index", "embed", str(embedded), "--embedding", str(other), "--device", "cpu"]) == 0
    assert "as before" not in capsys.readouterr().out


def test_articles_and_questions_have_a_model_each_as_medcpt_does(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    articles = save_bert(tmp_path / "MedCPT-Article-Encoder", seed=1)
    questions = save_bert(tmp_path / "MedCPT-Query-Encoder", seed=2)
    embed = ["index", "embed", str(index), "--device", "cpu", "--embedding", str(articles)]
    assert main([*embed, "--query_embedding", str(questions)]) == 0

    def first_token(folder: Path, *texts: str) -> Any:
        tokens = AutoTokenizer.from_pretrained(folder)(*texts, return_tensors="pt")
        with torch.no_grad():
            return AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0, 0].numpy()

    opened = open_for_search(index, "INDEX", "vectors")
    assert opened.vectors is not None  # type: ignore[attr-defined]
    near = dict(opened.vectors.nearest("zalo fever", 3))  # type: ignore[attr-defined]
    asked = first_token(questions, "zalo fever")
    for number, passage in opened.fetch(list(near)).items():
        wanted = asked @ first_token(articles, passage.title, passage.text)
        assert near[number] == pytest.approx(wanted, abs=0.05)
    assert len(set(near.values())) == 3
    opened.close()
    # additions are embedded with the articles' model, and the questions' stays
    more = article_set(
        index.parent / "more.xml", article(9, "Zalo", "<AbstractText>Fever in rats</AbstractText>")
    )
    assert main(["index", "add", str(index), str(more), "--device", "cpu"]) == 0
    assert "3 as before" in capsys.readouterr().out
    opened = open_for_search(index, "INDEX", "vectors")
    (added,) = (hit for hit in opened.search("zalo fever", 4) if hit.passage.ident == "9")
    assert added.score == pytest.approx(1 / 61, abs=2e-3)
    opened.close()
    # a pair of other sizes is refused when it is searched
    odd = save_bert(tmp_path / "other", size=8)
    assert main([*embed, "--query_embedding", str(odd)]) == 0
    capsys.readouterr()
    assert "the question's model gives 8 numbers" in refused(capsys, "index", "search", str(index), "pain")


def test_an_index_that_was_added_to_answers_as_one_that_is_built_anew(
    index: Path, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed = ["--embedding", str(bert), "--device", "cpu"]
    assert main(["index", "embed", str(index), *embed]) == 0
    fever = "<AbstractText>A study of aspirin in fever</AbstractText>"
    deletion = "<DeleteCitation><PMID>0</PMID></DeleteCitation>"
    changes = article(1, "Zalo", fever, version=2), article(9, "Pain failed in rats")
    more = article_set(tmp_path / "more.xml", *changes, deletion)
    assert main(["index", "add", str(index), str(more), "--device", "cpu"]) == 0
    assert "1 added, 1 replaced, 1 deleted" in capsys.readouterr().out
    rats = article(2, "Rats", "<AbstractText>Zalo failed</AbstractText>", year="<Year>2002</Year>")
    final, anew = article_set(tmp_path / "final.xml", rats, *changes), tmp_path / "anew.mqi"
    assert main(["index", "build", "--out", str(anew), str(final), *embed]) == 0
    for ranking in ("words", "vectors", "both"):
        old, new = (open_for_search(path, "INDEX", ranking) for path in (index, anew))  # type: ignore[arg-type]
        for question in ("zalo fever", "aspirin pain", "rats failed"):
            found, expected = old.search(question, 5), new.search(question, 5)
            assert [hit.passage.ident for hit in found] == [hit.passage.ident for hit in expected]
            assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected])
        old.close()
        new.close()
    tables = [np.load(vector_files(path)[0]) for path in (index, anew)]
    assert len(tables[0]) == len(tables[1]) == 3


def test_a_cross_encoder_orders_the_candidates(index: Path, tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "cross", labels=1)
    opened = open_for_search(index, "INDEX", "words", str(folder))
    hits = opened.search("zalo fever pain", 3)
    scores = CrossEncoder(folder).scores("zalo fever pain", [shown_text(hit.passage) for hit in hits])
    assert [hit.score for hit in hits] == pytest.approx(scores, abs=1e-5)
    assert scores == sorted(scores, reverse=True)
    opened.close()


def test_vectors_of_another_state_of_the_index_are_refused(
    index: Path, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embedded, model = index, Path(shutil.copytree(bert, tmp_path / "gone"))
    assert main(["index", "embed", str(embedded), "--embedding", str(model), "--device", "cpu"]) == 0
    shutil.rmtree(model)
    more = article_set(tmp_path / "more.xml", article(9, "A new study of pain."))
    assert main(["index", "add", str(embedded), str(more)]) == 0
    assert "the vectors are of the index before" in capsys.readouterr().out
    assert "of another state of the index" in refused(capsys, "index", "search", str(embedded), "pain")
    assert main(["index", "search", str(embedded), "pain", "--ranking", "words"]) == 0
    capsys.readouterr()
    assert main(["index", "info", str(embedded)]) == 0
    assert "(outdated)" in capsys.readouterr().out
    vectors, notes = vector_files(embedded)
    notes.write_text("{", "utf-8")
    assert "no vectors lie beside it" in refused(capsys, "index", "search", str(embedded), "pain")
    assert "is damaged" in refused(capsys, "index", "info", str(embedded))
    vectors.unlink()
    nowhere = str(tmp_path / "none")
    line = refused(capsys, "index", "embed", str(embedded), "--embedding", nowhere)
    assert "no folder with a model" in line
    line = refused(capsys, "index", "search", str(embedded), "pain", "--reranker", nowhere)
    assert "no folder with a model" in line
