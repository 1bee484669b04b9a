"""Text to token ids, such that a user's text can never become a control token.

A tokenizer reads `<|eot_id|>` in a question as the end of the turn, and `split_special_tokens=True` only
helps for those added tokens that are marked special: `<think>`, `<|im_start|>` or `<｜User｜>` often aren't.
So the text goes through a copy of the tokenizer that matches none of its control tokens, and that
knows each by a private name which only template text is given. Prompt and answer are still tokenised
in one piece, exactly as the tokenizer itself would, prefix spaces and merges across seams included.
"""

import hashlib
import json
import re
import weakref
from collections.abc import Sequence
from typing import Any

from medqlora.errors import InputError

# non-characters of Unicode, "never for interchange" (https://www.unicode.org/faq/private_use.html#nonchar1):
# they can frame a private name, since no honest text holds them
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_NON_CHARACTERS = {ord(_OPEN): "\ufffd", ord(_CLOSE): "\ufffd"}

# Markers by their looks: <|…|>, <｜…｜>, [INST], <think>, </tool_call>, <start_of_turn>
_MARKER = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]|<<[^\s<>]+>>|\{[^\s{}]+\}")
# … but Gemma has HTML's tags as ordinary tokens, and abstracts write p<sub>0</sub>
_HTML = re.compile(
    r"</?(table|caption|thead|tbody|tfoot|tr|th|td|h[1-6]|blockquote|strong|em|b|i|u|s|sub|sup|code|p|br|ul|ol|li)>"
)


def _is_control(token: dict[str, Any], template: str, named: set[str]) -> bool:
    content = token["content"]
    if token["special"] or content in named:
        return True
    if content.isspace() or _HTML.fullmatch(content):
        return False
    return bool(_MARKER.fullmatch(content)) or (
        len(content) > 2 and not content.isalnum() and content in template
    )


class TextTokenizer:
    """A tokenizer's copy that tells template text from user text.

    Attributes:
        prefix: ids that the tokenizer puts before any text (BOS), as a tuple; often empty.
        eos: id of its end-of-sequence token.
        digest: SHA-256, in hex, of everything that decides its ids.
    """

    def __init__(self, tokenizer: Any) -> None:
        """
        Args:
            tokenizer: a tokenizer of transformers with a `backend_tokenizer`.

        Raises:
            InputError: it has none ("slow" tokenizers), or no end-of-sequence token.
        """
        from tokenizers import AddedToken, Tokenizer

        backend = _backend(tokenizer)
        if tokenizer.eos_token_id is None:
            raise InputError(
                "the tokenizer has no end-of-sequence token: set eos_token in tokenizer_config.json"
            )
        self.eos = int(tokenizer.eos_token_id)
        self.prefix = _prefix(tokenizer)

        spec = json.loads(backend.to_str())
        spec["truncation"] = spec["padding"] = None  # a call elsewhere may have left them set
        template = str(getattr(tokenizer, "chat_template", None) or "")
        named = {str(value) for value in tokenizer.all_special_tokens}
        control = [token for token in spec["added_tokens"] if _is_control(token, template, named)]
        for token in control:
            token["special"] = True
        plain = json.dumps(spec, sort_keys=True, ensure_ascii=False)
        self.digest = hashlib.sha256(f"{self.eos} {self.prefix} {plain}".encode()).hexdigest()

        self._backend = Tokenizer.from_str(plain)
        self._backend.encode_special_tokens = True
        self._names = {token["content"]: f"{_OPEN}{token['id']}{_CLOSE}" for token in control}
        self._backend.add_tokens(
            [
                AddedToken(
                    self._names[token["content"]],
                    lstrip=token["lstrip"],
                    rstrip=token["rstrip"],
                    single_word=token["single_word"],
                    normalized=False,  # no normalizer shall touch the name
                    special=False,
                )
                for token in control
            ]
        )
        self._ids = {
            self._backend.token_to_id(self._names[token["content"]]): token["id"] for token in control
        }
        longest = sorted(self._names, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest)) or r"(?!)")
        unknown = spec["model"].get("unk_token")
        self._reachable = [
            token["content"]
            for token in control
            if token["content"] != unknown
            and any(token["id"] in self.ids(text) for text in (token["content"], f"a {token['content']} b"))
        ]
        self._broken = re.compile("|".join(map(re.escape, self._reachable)) or r"(?!)")

    def text(self, text: str) -> str:
        """User text, ready for `ids`: whatever stands in it is text.

        In the few tokenizers whose vocabulary reaches a control token without matching it (a word-level
        one with `</s>` as a word), such a token's spelling is broken by a space.
        """
        text = text.translate(_NON_CHARACTERS)
        return self._broken.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)

    def template(self, text: str) -> str:
        """Template text, ready for `ids`: its control tokens are control tokens."""
        return self._control.sub(lambda match: self._names[match[0]], text)

    def control_ids(self, text: str) -> list[int]:
        """The ids of the control tokens in a template's text, in order."""
        return [
            self._ids[self._backend.token_to_id(self._names[found])] for found in self._control.findall(text)
        ]

    def until_control(self, text: str) -> str | None:
        """A template's text up to its first control token, which is included; None where it has none."""
        match = self._control.search(text)
        return text[: match.end()] if match else None

    def ids(self, text: str) -> list[int]:
        """Token ids of text that went through `text` and `template`; no prefix is added."""
        return self.batch([text])[0]

    def batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`ids` of many, on all cores."""
        swap = self._ids
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [[swap.get(index, index) for index in encoding.ids] for encoding in encodings]

    def ends(self, text: str) -> list[int]:
        """Where each token of user text ends, in characters, were it to stand amid other text."""
        anchor = next(iter(self._names.values()), "")  # so that the text doesn't count as a beginning
        encoding = self._backend.encode(anchor + text, add_special_tokens=False)
        return [end - len(anchor) for _, end in encoding.offsets if end > len(anchor)]


def _backend(tokenizer: Any) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"the tokenizer {type(tokenizer).__name__} is not a fast one: choose a model with a tokenizer.json"
        )
    return backend


def _prefix(tokenizer: Any) -> tuple[int, ...]:
    """What the tokenizer puts before a text; what some put after it (EOS) is not the prefix's."""
    encoding = tokenizer("a", return_special_tokens_mask=True)
    ids, mask = encoding["input_ids"], encoding["special_tokens_mask"]
    first = next((index for index, special in enumerate(mask) if not special), 0)
    return tuple(ids[:first])


_made: "weakref.WeakKeyDictionary[Any, tuple[object, TextTokenizer]]" = weakref.WeakKeyDictionary()


def text_tokenizer(tokenizer: Any) -> TextTokenizer:
    """The tokenizer's `TextTokenizer`, made once: that takes about a second for a large vocabulary.

    Raises:
        InputError: see `TextTokenizer`.
    """
    _backend(tokenizer)
    template = str(getattr(tokenizer, "chat_template", None))
    state = (len(tokenizer), tokenizer.eos_token_id, template, _prefix(tokenizer))
    held = _made.get(tokenizer)
    if held is None or held[0] != state:
        held = state, TextTokenizer(tokenizer)
        _made[tokenizer] = held
    return held[1]
