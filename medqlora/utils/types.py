"""Types that several rooms share: JSON values, and what this project needs of a tokenizer."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

#: a value as `json.loads` gives it
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
#: an object of JSON whose values are looked at one by one
JsonObject: TypeAlias = Mapping[str, object]


class FastTokenizer(Protocol):
    """The part of `tokenizers.Tokenizer` that this project uses, behind a transformers tokenizer."""

    def decode_batch(self, sequences: list[list[int]], skip_special_tokens: bool = True) -> list[str]: ...

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]: ...


class Tokenizer(Protocol):
    """The part of transformers' `PreTrainedTokenizerBase` that this project uses.

    https://huggingface.co/docs/transformers/main_classes/tokenizer
    """

    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    eos_token: str | None
    all_special_tokens: list[str]
    chat_template: str | dict[str, str] | None
    name_or_path: str

    @property
    def backend_tokenizer(self) -> FastTokenizer: ...

    def __len__(self) -> int: ...

    def __call__(self, text: str, *, return_special_tokens_mask: bool = False) -> Mapping[str, list[int]]: ...

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str: ...

    def apply_chat_template(
        self,
        conversation: list[dict[str, str]],
        *,
        chat_template: str | None = None,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
    ) -> object: ...

    def convert_ids_to_tokens(self, ids: int) -> str: ...

    def save_pretrained(self, save_directory: str) -> object: ...
