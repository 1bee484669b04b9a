"""Sentence embeddings and cross-encoders from a model's folder, by transformers.

A folder of sentence-transformers says itself how its tokens become one vector: `modules.json` names the steps,
`1_Pooling/config.json` the pooling. Without these files it is the mean over the tokens. MedCPT's models, known by their
folder's name, are as their cards say: the first token, not normalised, title and abstract as a pair, and questions of
64 tokens (https://huggingface.co/ncbi/MedCPT-Article-Encoder, https://huggingface.co/ncbi/MedCPT-Query-Encoder).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from medqlora.errors import InputError
from medqlora.retrieval.documents import with_title
from medqlora.utils.types import Json

if TYPE_CHECKING:
    from torch import Tensor

Pooling = Literal["mean", "cls"]
Embeddings = NDArray[np.float32]
#: texts that go through the model at once
BATCH = 32
_LONGEST = 512


@dataclass(frozen=True)
class EmbeddingRecipe:
    """How a folder's model makes a vector of a text.

    Args:
        pooling: "mean" over the tokens, or "cls", the first token.
        normalized: whether a vector is divided by its length.
        max_tokens: longer texts are cut.
        query_prefix, document_prefix: text before a query and a document.
        pairs: whether a passage's title and text are the two parts of an input, instead of one text.
    """

    pooling: Pooling = "mean"
    normalized: bool = True
    max_tokens: int = _LONGEST
    query_prefix: str = ""
    document_prefix: str = ""
    pairs: bool = False

    @classmethod
    def read(cls, folder: Path, option: str) -> "EmbeddingRecipe":
        """The recipe that the folder's files state.

        Raises:
            InputError: a file is damaged, or asks for a pooling that is not known here.
        """
        name = folder.resolve().name.casefold()
        if "medcpt" in name and not (folder / "modules.json").is_file():
            longest_text = 64 if "query" in name else _LONGEST
            return cls("cls", normalized=False, max_tokens=longest_text, pairs="article" in name)
        pooling_file = folder / "1_Pooling" / "config.json"
        modules = _json_list(folder / "modules.json", option)
        kinds = [str(one.get("type", "")).rpartition(".")[2] for one in modules if isinstance(one, dict)]
        unknown = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
        if unknown:
            raise InputError(
                f"{option} {folder}: its step {unknown[0]} is not supported: Pooling and Normalize are"
            )
        sizes = _json(folder / "sentence_bert_config.json", option)
        prompts = _json(folder / "config_sentence_transformers.json", option).get("prompts")
        prompts = prompts if isinstance(prompts, dict) else {}
        longest = sizes.get("max_seq_length")
        return cls(
            pooling=_pooling(_json(pooling_file, option), folder, option),
            normalized="Normalize" in kinds or not kinds,
            max_tokens=min(_LONGEST, longest) if isinstance(longest, int) else _LONGEST,
            query_prefix=str(prompts.get("query", "")),
            document_prefix=str(prompts.get("document", prompts.get("passage", ""))),
        )


@dataclass
class Encoder:
    """A loaded embedding model.

    Args:
        folder: the model's.
        option: what named it, for messages.
        device: of torch; "auto" is CUDA where there is a GPU.
    """

    folder: Path
    option: str = "--embedding"
    device: str = "auto"
    recipe: EmbeddingRecipe = field(init=False)

    def __post_init__(self) -> None:
        """Raises InputError for a folder without a model that transformers loads."""
        check_folder(self.folder, self.option)
        self.recipe = EmbeddingRecipe.read(self.folder, self.option)
        from transformers import AutoModel, AutoTokenizer

        from medqlora.models.loading import no_bars

        self.device = _device(self.device)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            with no_bars():
                loaded = AutoModel.from_pretrained(self.folder, local_files_only=True)
            self._model = loaded.eval().to(self.device)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{self.option} {self.folder}: no model that transformers loads ({_line(error)})"
            ) from error

    @property
    def size(self) -> int:
        """Numbers of a vector."""
        return int(self._model.config.hidden_size)

    def documents(self, texts: Sequence[str]) -> Embeddings:
        """[len(texts), size] vectors of passages."""
        return self._encode([self.recipe.document_prefix + text for text in texts])

    def passages(self, passages: Sequence[tuple[str, str]]) -> Embeddings:
        """[len(passages), size] vectors of passages, each with title and text."""
        if not self.recipe.pairs:
            return self.documents([with_title(title, text) for title, text in passages])
        return self._encode([title for title, _ in passages], [text for _, text in passages])

    def query(self, text: str) -> Embeddings:
        """[size] the vector of a question."""
        return np.asarray(self._encode([self.recipe.query_prefix + text])[0])

    def _encode(self, texts: Sequence[str], seconds: Sequence[str] | None = None) -> Embeddings:
        """[len(texts), size]; with `seconds`, each input is a pair."""
        import torch

        vectors = np.empty((len(texts), self.size), dtype=np.float32)
        lengths = [len(text) + len(seconds[number] if seconds else "") for number, text in enumerate(texts)]
        order = sorted(range(len(texts)), key=lengths.__getitem__)
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            batch = self._tokenizer(
                [texts[number] for number in some],
                [seconds[number] for number in some] if seconds else None,
                padding=True,
                truncation=True,
                max_length=self.recipe.max_tokens,
                return_tensors="pt",
            ).to(self.device)
            with torch.inference_mode():
                hidden = self._model(**batch).last_hidden_state.float()
            vectors[some] = _pooled(hidden, batch["attention_mask"], self.recipe).cpu().numpy()
        return vectors


@dataclass
class CrossEncoder:
    """A model that reads question and passage together, and scores the pair.

    Args:
        folder: the model's; with one label its logit is the score, with several the last one's.
        option: what named it, for messages.
        device: as of `Encoder`.
    """

    folder: Path
    option: str = "--reranker"
    device: str = "auto"

    def __post_init__(self) -> None:
        """Raises InputError for a folder without a model that transformers loads."""
        check_folder(self.folder, self.option)
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from medqlora.models.loading import no_bars

        self.device = _device(self.device)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            with no_bars():
                loaded = AutoModelForSequenceClassification.from_pretrained(
                    self.folder, local_files_only=True
                )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{self.option} {self.folder}: no model that transformers loads ({_line(error)})"
            ) from error
        self._model = loaded.eval().to(self.device)

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """One for each text, higher is better."""
        import torch

        scores: list[float] = []
        for start in range(0, len(texts), BATCH):
            some = list(texts[start : start + BATCH])
            batch = self._tokenizer(
                [query] * len(some),
                some,
                padding=True,
                truncation="only_second",
                max_length=_LONGEST,
                return_tensors="pt",
            ).to(self.device)
            with torch.inference_mode():
                scores += self._model(**batch).logits[:, -1].float().tolist()
        return scores


def check_folder(folder: Path, option: str) -> None:
    """Raises InputError where `folder` holds no model."""
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{option} {folder}: no folder with a model (config.json): give a sentence-embedding folder"
        )


def digest(folder: Path) -> str:
    """SHA-256 over the configuration and the weights of a model's folder, in hex."""
    found = hashlib.sha256()
    names = (
        "config.json",
        "1_Pooling/config.json",
        "model.safetensors",
        "pytorch_model.bin",
        "tokenizer.json",
    )
    for name in names:
        path = folder / name
        if path.is_file():
            found.update(name.encode())
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    found.update(block)
    return found.hexdigest()


def _device(name: str) -> str:
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _pooled(hidden: "Tensor", mask: "Tensor", recipe: EmbeddingRecipe) -> "Tensor":
    """[rows, size] one vector for each row of [rows, tokens, size]."""
    if recipe.pooling == "cls":
        vectors = hidden[:, 0]
    else:
        weights = mask.unsqueeze(-1).float()
        vectors = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
    if recipe.normalized:
        vectors = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return vectors


def _pooling(config: Mapping[str, Json], folder: Path, option: str) -> Pooling:
    wanted = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
    if isinstance(config.get("pooling_mode"), str):
        wanted.append(f"pooling_mode_{config['pooling_mode']}")
    known: dict[str, Pooling] = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_mean": "mean",
        "pooling_mode_cls": "cls",
    }
    if not wanted:
        return "mean"
    if len(wanted) > 1 or wanted[0] not in known:
        raise InputError(
            f"{option} {folder}: its pooling {', '.join(wanted)} is not supported: mean and cls are"
        )
    return known[wanted[0]]


def _json(path: Path, option: str) -> Mapping[str, Json]:
    value = _read(path, option)
    return value if isinstance(value, dict) else {}


def _json_list(path: Path, option: str) -> list[Json]:
    value = _read(path, option)
    return value if isinstance(value, list) else []


def _read(path: Path, option: str) -> Json:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{option}: {path} is damaged ({_line(error)}): download the folder again"
        ) from error


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
