"""Data: the records of a data set, their prompts, and their token ids.

A new source is a new file in `sources/`, a new prompt one in `prompts/`, each with a registered class. This package
needs no torch: import `batching.packing` and `batching.loader`, which do, from their own files.
"""

from typing import TYPE_CHECKING

from medqlora.data.encoding.encode import encode_all, end_token_ids
from medqlora.data.prompts import PROMPTS, Prompt, TemplatePrompt, lookup, prompt_names
from medqlora.data.questions import read_questions
from medqlora.data.sources import SOURCES, Source, source_names
from medqlora.data.sources.pubmedqa import official_folds, official_test_ids, reject_test_pmids

if TYPE_CHECKING:  # the registered sources, for type checkers; at run time the registry gives them
    from medqlora.data.sources.bioasq import BioASQ as BioASQ
    from medqlora.data.sources.ecg_images import ECGImages as ECGImages
    from medqlora.data.sources.jsonlines import JSONLines as JSONLines
    from medqlora.data.sources.medical_mmlu import MedicalMMLU as MedicalMMLU
    from medqlora.data.sources.medmcqa import MedMCQA as MedMCQA
    from medqlora.data.sources.medqa import MedQA as MedQA
    from medqlora.data.sources.mirage import Mirage as Mirage
    from medqlora.data.sources.path_vqa import PathVQA as PathVQA
    from medqlora.data.sources.pubmedqa import PubMedQA as PubMedQA
    from medqlora.data.sources.pubmedqa_extra import PubMedQAExtra as PubMedQAExtra
    from medqlora.data.sources.slake import SLAKE as SLAKE
    from medqlora.data.sources.synthetic_radiographs import SyntheticRadiographs as SyntheticRadiographs
    from medqlora.data.sources.synthetic_trials import SyntheticTrials as SyntheticTrials
    from medqlora.data.sources.vqa_rad import VQARAD as VQARAD

globals().update(SOURCES.built_in())  # a class path that no option has to spell out: medqlora.data.PubMedQA

__all__ = [
    "PROMPTS",
    "SOURCES",
    "Prompt",
    "Source",
    "TemplatePrompt",
    "encode_all",
    "end_token_ids",
    "lookup",
    "official_folds",
    "official_test_ids",
    "prompt_names",
    "read_questions",
    "reject_test_pmids",
    "source_names",
]
__all__ += list(SOURCES.built_in())
