"""Opens an index as it is searched: by words, by vectors, or both, with or without a cross-encoder."""

from pathlib import Path

from medqlora.errors import InputError
from medqlora.retrieval.search import Index
from medqlora.retrieval.searchable import Ranking, Searchable
from medqlora.retrieval.servers.description import described, is_description
from medqlora.retrieval.store import open_index


def open_for_search(
    path: str | Path,
    option: str,
    ranking: Ranking = "auto",
    reranker: str | None = None,
    device: str = "auto",
) -> Searchable:
    """The index at `path`.

    Args:
        path: its file, or the description of one on a server.
        option: what named it, for messages.
        ranking: see `Ranking`.
        reranker: folder of a cross-encoder.
        device: of torch, for the models.

    Raises:
        InputError: there is no such index, its vectors are missing or outdated, or a folder holds no model.
    """
    if is_description(path):
        server = described(path, option)
        server.open(option)
        server.select(ranking, reranker, device)
        return server
    index = Index.open(path, option)
    try:
        from medqlora.retrieval.vectors import MappedVectors, vector_files

        if ranking == "auto":
            ranking = "both" if all(file.is_file() for file in vector_files(index.path)) else "words"
        if ranking != "words":
            index.vectors = MappedVectors(index.path, index.connection, index.meta["content"], device)
            index.lexical = ranking == "both"
        if reranker is not None:
            from medqlora.retrieval.embedding import CrossEncoder

            index.reranker = CrossEncoder(Path(reranker).expanduser(), device=device)
    except InputError:
        index.close()
        raise
    return index


def check_index(path: str | Path, option: str) -> None:
    """Raises InputError where no index can be opened at `path`, or on the server that it describes."""
    if not is_description(path):
        open_index(path, option).close()
        return
    server = described(path, option)
    server.open(option)
    server.close()


def trained_with_numbers(adapter: str | None) -> bool:
    """Whether [1], [2], … stood before the passages that an adapter was trained with; False for a base model.

    Args:
        adapter: its folder, its run's folder or its name on the Hub; None for none.
    """
    from medqlora.models.adapters import find_adapter, read_adapter

    if adapter is None:
        return False
    try:
        data = read_adapter(find_adapter(adapter, "--adapter")[0], "--adapter").get("data")
    except InputError:  # a base model, or a merged one
        return False
    retrieval = data.get("retrieval") if isinstance(data, dict) else None
    return bool(retrieval.get("numbered")) if isinstance(retrieval, dict) else False
