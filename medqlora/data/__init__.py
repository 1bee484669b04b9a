"""Data: where records come from, how they are put to a model, and as what token ids.

A new source is a new file in this folder with one subclass of `Source`. Importing this costs nothing:
what needs torch (`packing`, `loader`) is imported from its own file.
"""

from medqlora.data.encoding.encode import encode_all, end_token_ids
from medqlora.data.prompts.prompt import Prompt, lookup
from medqlora.data.questions import read_questions
from medqlora.data.sources.bioasq import BioASQ
from medqlora.data.sources.jsonlines import JSONLines
from medqlora.data.sources.medical_mmlu import MedicalMMLU
from medqlora.data.sources.medmcqa import MedMCQA
from medqlora.data.sources.medqa import MedQA
from medqlora.data.sources.mirage import Mirage
from medqlora.data.sources.pubmedqa import (
    PubMedQA,
    official_folds,
    official_test_ids,
    reject_test_pmids,
)
from medqlora.data.sources.source import Source
from medqlora.data.sources.synthetic_trials import SyntheticTrials

__all__ = [
    "BioASQ",
    "JSONLines",
    "MedMCQA",
    "MedQA",
    "MedicalMMLU",
    "Mirage",
    "Prompt",
    "PubMedQA",
    "Source",
    "SyntheticTrials",
    "encode_all",
    "end_token_ids",
    "lookup",
    "official_folds",
    "official_test_ids",
    "read_questions",
    "reject_test_pmids",
]
