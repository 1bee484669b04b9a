"""Token F1: the overlap of two texts as bags of words. It measures wording, not truth."""

import re
import string
from collections import Counter

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
#: kana and Han characters: these scripts put no spaces between words, so each character counts as a word, as in
#: MLQA's evaluation (https://github.com/facebookresearch/MLQA)
_UNSPACED = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")


def normalized_words(text: str) -> list[str]:
    """The words of a text after SQuAD's normalization: lower case, no ASCII punctuation, no articles.

    A text of articles alone keeps them: "A" may be a complete answer.
    """
    plain = _UNSPACED.sub(r" \1 ", text.lower().translate(_PUNCTUATION))
    return _ARTICLE.sub(" ", plain).split() or plain.split()


def token_f1(text: str, reference: str) -> float:
    """Harmonic mean of precision and recall of the shared words, 0 to 1; 0 where either text is empty.

    Rajpurkar et al., 2016, https://arxiv.org/abs/1606.05250, section 6.1, as SQuAD's `evaluate-v1.1.py`.
    """
    words, expected = normalized_words(text), normalized_words(reference)
    common = sum((Counter(words) & Counter(expected)).values())
    return 2 * common / (len(words) + len(expected)) if common else 0.0
