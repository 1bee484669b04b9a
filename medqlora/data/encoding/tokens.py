"""Text to token ids, such that a user's text never becomes a control token.

A tokenizer reads `<|eot_id|>` in a question as the end of the turn. `split_special_tokens=True` helps only for added
tokens that are marked special; `<think>`, `<|im_start|>` and `<｜User｜>` often aren't. So text goes through a copy of
the tokenizer that matches none of its control tokens. The copy knows each by a private name that only template text
gets. Prompt and answer are still tokenized in one piece, exactly as the tokenizer itself does it, prefix spaces and
merges at the boundary included.
"""

import hashlib
import json
import re
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from medqlora.errors import InputError
from medqlora.utils.types import Tokenizer

if TYPE_CHECKING:
    import tokenizers

# non-characters of Unicode, "never for interchange" (https://www.unicode.org/faq/private_use.html#nonchar1): no honest
# text holds them, so they delimit private names
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_NON_CHARACTERS = {ord(_OPEN): "\ufffd", ord(_CLOSE): "\ufffd"}

# control tokens by their form: <|…|>, <｜…｜>, [INST], <think>, </tool_call>, <start_of_turn>
_MARKER = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]|<<[^\s<>]+>>|\{[^\s{}]+\}")
# but Gemma has HTML's tags as ordinary tokens, and abstracts write p<sub>0</sub>
_HTML = re.compile(
    r"</?(table|caption|thead|tbody|tfoot|tr|th|td|h[1-6]|blockquote|strong|em|b|i|u|s|sub|sup|code|p|br|ul|ol|li)>"
)


class _AddedToken(TypedDict):
    """An added token in a tokenizer.json (https://huggingface.co/docs/tokenizers/api/added-tokens)."""

    id: int
    content: str
    special: bool
    lstrip: bool
    rstrip: bool
    single_word: bool


def _is_control(token: _AddedToken, template: str, named: set[str]) -> bool:
    content = token["content"]
    if token["special"] or content in named:
        return True
    if content.isspace() or _HTML.fullmatch(content):
        return False
    return bool(_MARKER.fullmatch(content)) or (
        len(content) > 2 and not content.isalnum() and content in template
    )


class TextTokenizer:
    """A copy of a tokenizer that distinguishes template text from user text.

    Attributes:
        prefix: ids that the tokenizer puts before any text (BOS); often empty.
        eos: id of its end-of-sequence token.
        digest: SHA-256, in hex, of everything that decides its ids.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """
        Args:
            tokenizer: a fast tokenizer of transformers, which has a `backend_tokenizer`.

        Raises:
            InputError: it has none ("slow" tokenizers), or no end-of-sequence token.
        """
        backend = _backend(tokenizer)
        if tokenizer.eos_token_id is None:
            raise InputError(
                "the tokenizer has no end-of-sequence token: set eos_token in tokenizer_config.json"
            )
        self.eos = int(tokenizer.eos_token_id)
        self.prefix = _prefix(tokenizer)

        spec = json.loads(backend.to_str())
        spec["truncation"] = spec["padding"] = None  # a call elsewhere may have left them set
        named = {str(value) for value in tokenizer.all_special_tokens}
        added: list[_AddedToken] = spec["added_tokens"]
        control = [token for token in added if _is_control(token, str(tokenizer.chat_template or ""), named)]
        for token in control:
            token["special"] = True
        plain = json.dumps(spec, sort_keys=True, ensure_ascii=False)
        self.digest = hashlib.sha256(f"{self.eos} {self.prefix} {plain}".encode()).hexdigest()

        self._names = {token["content"]: f"{_OPEN}{token['id']}{_CLOSE}" for token in control}
        self._backend = self._renamed(plain, control)
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

    def _renamed(self, spec: str, control: Sequence[_AddedToken]) -> "tokenizers.Tokenizer":
        """The tokenizer of a tokenizer.json, which reads control tokens by their private names only."""
        from tokenizers import AddedToken, Tokenizer

        backend = Tokenizer.from_str(spec)
        backend.encode_special_tokens = True
        names = [
            AddedToken(
                self._names[token["content"]],
                lstrip=token["lstrip"],
                rstrip=token["rstrip"],
                single_word=token["single_word"],
                normalized=False,  # a normalizer would change the name
                special=False,
            )
            for token in control
        ]
        backend.add_tokens(names)
        return backend

    def text(self, text: str) -> str:
        """User text, ready for `ids`: all of it is read as text.

        In a few tokenizers the vocabulary reaches a control token without matching it (a word-level one with `</s>`
        as a word). A space then breaks the token's spelling.
        """
        text = text.translate(_NON_CHARACTERS)
        return self._broken.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)

    def template(self, text: str) -> str:
        """Template text, ready for `ids`: its control tokens are read as control tokens."""
        return self._control.sub(lambda match: self._names[match[0]], text)

    def control_ids(self, text: str) -> list[int]:
        """The ids of the control tokens in template text, in order."""
        names = [self._names[content] for content in self._control.findall(text)]
        return [self._ids[self._backend.token_to_id(name)] for name in names]

    def until_control(self, text: str) -> str | None:
        """Template text up to and including its first control token; None where it has none."""
        match = self._control.search(text)
        return text[: match.end()] if match else None

    def ids(self, text: str) -> list[int]:
        """Token ids of text that went through `text` and `template`; no prefix is added."""
        return self.batch([text])[0]

    def batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`ids` of many texts, on all cores."""
        swap = self._ids
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [[swap.get(index, index) for index in encoding.ids] for encoding in encodings]

    def ends(self, text: str) -> list[int]:
        """The end of each token of user text, in characters, as if the text followed other text."""
        anchor = next(iter(self._names.values()), "")  # without it the text would count as a beginning
        encoding = self._backend.encode(anchor + text, add_special_tokens=False)
        return [end - len(anchor) for _, end in encoding.offsets if end > len(anchor)]


def _backend(tokenizer: Tokenizer) -> "tokenizers.Tokenizer":
    backend: tokenizers.Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"the tokenizer {type(tokenizer).__name__} is not a fast one: choose a model with a tokenizer.json"
        )
    return backend


def _prefix(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids that the tokenizer puts before a text; ids that some put after it (EOS) don't count."""
    encoding = tokenizer("a", return_special_tokens_mask=True)
    ids, mask = encoding["input_ids"], encoding["special_tokens_mask"]
    first = next((index for index, special in enumerate(mask) if not special), 0)
    return tuple(ids[:first])


_made: "weakref.WeakKeyDictionary[Tokenizer, tuple[object, TextTokenizer]]" = weakref.WeakKeyDictionary()


def text_tokenizer(tokenizer: Tokenizer) -> TextTokenizer:
    """The tokenizer's `TextTokenizer`, cached: a large vocabulary takes about a second.

    Raises:
        InputError: see `TextTokenizer`.
    """
    _backend(tokenizer)
    state = (len(tokenizer), tokenizer.eos_token_id, str(tokenizer.chat_template), _prefix(tokenizer))
    cached = _made.get(tokenizer)
    if cached is None or cached[0] != state:
        cached = state, TextTokenizer(tokenizer)
        _made[tokenizer] = cached
    return cached[1]
