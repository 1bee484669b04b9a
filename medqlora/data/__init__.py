"""Data: where records come from, how they are put to a model, and as what token ids.

A new source is a new file in this folder with one subclass of `Source`. Importing this costs nothing:
what needs torch (`packing`, `loader`) is imported from its own file.
"""

from medqlora.data.encode import encode_all, end_token_ids
from medqlora.data.jsonlines import JSONLines
from medqlora.data.prompts import Prompt, lookup
from medqlora.data.pubmedqa import PubMedQA, official_folds, official_test_ids, reject_test_pmids
from medqlora.data.source import Source
from medqlora.data.synthetic_trials import SyntheticTrials

__all__ = [
    "JSONLines",
    "Prompt",
    "PubMedQA",
    "Source",
    "SyntheticTrials",
    "encode_all",
    "end_token_ids",
    "lookup",
    "official_folds",
    "official_test_ids",
    "reject_test_pmids",
]
