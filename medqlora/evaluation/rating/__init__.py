"""Human rating of two models' answers: a blinded page, and what the raters' files say.

The aspects are those by which the quality of medical answers is usually judged: each on a scale of 1 to 5.
"""

from medqlora.evaluation.rating.agreement import krippendorff_alpha
from medqlora.evaluation.rating.pages import RatingItem, RatingKey, build_page, read_key, score_section
from medqlora.evaluation.rating.scores import ASPECTS, RatingScores, read_ratings, score_ratings

__all__ = [
    "ASPECTS",
    "RatingItem",
    "RatingKey",
    "RatingScores",
    "build_page",
    "krippendorff_alpha",
    "read_key",
    "read_ratings",
    "score_ratings",
    "score_section",
]
