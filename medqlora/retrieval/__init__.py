"""Retrieval: indexes of medical literature, contexts for questions, sources of answers, and claims.

The public names of this folder; each is imported from its file on first use, so that `index` needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medqlora.retrieval.build import BuildRequest as BuildRequest
    from medqlora.retrieval.build import build_index as build_index
    from medqlora.retrieval.citations import CitedAnswer as CitedAnswer
    from medqlora.retrieval.citations import answer_with_sources as answer_with_sources
    from medqlora.retrieval.claims import split_claims as split_claims
    from medqlora.retrieval.label_scores import LabelScorer as LabelScorer
    from medqlora.retrieval.opening import open_for_search as open_for_search
    from medqlora.retrieval.retriever import Retriever as Retriever
    from medqlora.retrieval.search import Filters as Filters
    from medqlora.retrieval.search import Index as Index
    from medqlora.retrieval.searchable import Searchable as Searchable
    from medqlora.retrieval.servers.opensearch import OpenSearchIndex as OpenSearchIndex
    from medqlora.retrieval.verification import ClaimVerdict as ClaimVerdict
    from medqlora.retrieval.verification import Verifier as Verifier

_HOMES = {
    "BuildRequest": "build",
    "build_index": "build",
    "CitedAnswer": "citations",
    "answer_with_sources": "citations",
    "split_claims": "claims",
    "LabelScorer": "label_scores",
    "open_for_search": "opening",
    "Retriever": "retriever",
    "Filters": "search",
    "Index": "search",
    "Searchable": "searchable",
    "OpenSearchIndex": "servers.opensearch",
    "ClaimVerdict": "verification",
    "Verifier": "verification",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
