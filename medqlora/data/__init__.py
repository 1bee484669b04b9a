"""Data: where records come from, how they are put to a model, and as what token ids.

A new source is a new file in this folder with one subclass of `Source`. Importing this costs nothing:
what needs torch (`packing`, `loader`) is imported from its own file.
"""

from medqlora.data.bioasq import BioASQ
from medqlora.data.encode import encode_all, end_token_ids
from medqlora.data.jsonlines import JSONLines
from medqlora.data.medical_mmlu import MedicalMMLU
from medqlora.data.medmcqa import MedMCQA
from medqlora.data.medqa import MedQA
from medqlora.data.mirage import Mirage
from medqlora.data.prompts import Prompt, lookup
from medqlora.data.pubmedqa import PubMedQA, official_folds, official_test_ids, reject_test_pmids
from medqlora.data.questions import read_questions
from medqlora.data.source import Source
from medqlora.data.synthetic_trials import SyntheticTrials

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
