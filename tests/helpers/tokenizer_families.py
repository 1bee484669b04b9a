"""Small tokenizers in the manner of each family, made here: their mechanics, not their vocabularies."""

import json
from functools import cache
from typing import Any

CORPUS = [
    "MEDICAL QUESTION: Do statins reduce the risk of atrial fibrillation after surgery?",
    "CONTEXT: We enrolled 120 patients with hypertension; mean age was 61.5 years (p < 0.05).",
    "RESULTS: The treatment group improved, and the control group did not. ANSWER: yes. Statins help.",
    "Abstract: A randomised trial of aspirin.\nQuestion: Is aspirin useful?\nAnswer: no",
    "Context: The outcome was mixed.\n\nQuestion: Does it work?\n\nAnswer with one of: Yes, No, Maybe.",
    "Then explain why. Maybe. It may be so, and maybe not. Yes. No. user assistant model INST think",
] * 4

LLAMA3_CHAT = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA_CHAT = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
INST_CHAT = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)

FAMILIES = ("llama3", "qwen2", "llama2", "mistral", "mistral_always", "gemma")


@cache
def family(name: str) -> Any:
    """A small tokenizer with the mechanics of a family's: normalizer, pre-tokenizer, prefix, added tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from tokenizers.processors import ByteLevel, TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    specials = {
        "llama3": [
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
        ],
        "qwen2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        "gemma": ["<pad>", "<eos>", "<bos>", "<unk>"],
    }.get(name, ["<unk>", "<s>", "</s>"])
    byte_level = name in ("llama3", "qwen2")
    tokenizer = Tokenizer(BPE() if byte_level else BPE(unk_token="<unk>", byte_fallback=True))
    pieces = (
        r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    if byte_level:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pieces), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\n+|[^\s\w]"), "isolated"), pre_tokenizers.Metaspace(split=True)]
        )
        alphabet = []
    # SentencePiece's control tokens are in the model's vocabulary, Llama-3's beside it
    inside = [] if byte_level else [*specials, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=len(inside) + 700, special_tokens=inside, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if inside:  # bytes are no added tokens
        spec = json.loads(tokenizer.to_str())
        spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] in specials]
        tokenizer = Tokenizer.from_str(json.dumps(spec))
    else:
        tokenizer.add_special_tokens(specials)

    if byte_level:
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = ByteLevel(trim_offsets=False)
    elif name == "llama2":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = None
    elif name == "gemma":
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        tokenizer.add_tokens(
            [
                AddedToken(text, normalized=False, special=False)
                for text in ("\n\n", "\n\n\n", "<sub>", "<start_of_turn>", "<end_of_turn>")
            ]
        )
    else:
        scheme = "first" if name == "mistral" else "always"
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    if not byte_level:
        strip = [] if name == "gemma" else [decoders.Strip(" ", 1, 0)]
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        )
    if name == "qwen2":
        tokenizer.add_tokens(
            [AddedToken(t, normalized=False, special=False) for t in ("<think>", "<tool_call>")]
        )

    bos = {"llama3": "<|begin_of_text|>", "qwen2": None, "gemma": "<bos>"}.get(name, "<s>")
    eos = {"llama3": "<|end_of_text|>", "qwen2": "<|endoftext|>", "gemma": "<eos>"}.get(name, "</s>")
    if bos is not None:
        tokenizer.post_processor = TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos)
    made.chat_template = {"llama3": LLAMA3_CHAT, "qwen2": CHATML, "gemma": GEMMA_CHAT}.get(name, INST_CHAT)
    return made
