"""What `medqlora export` writes: formats, GGUF types, and the difference that each type is granted."""

#: values of --to
FORMATS = ("peft", "gguf", "gguf-lora", "ollama", "vllm")
#: GGUF types that are written here, and the bits of a weight
BITS = {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8}
#: GGUF types that llama.cpp's own `llama-quantize` writes
K_QUANTS = ("q4_k_m", "q5_k_m", "q6_k")
#: values of --type
FILE_TYPES = (*BITS, *K_QUANTS)
#: values of --pre_tokenizer: llama.cpp's names for how a tokenizer splits text
PRE_TOKENIZERS = ("llama-bpe", "qwen2", "smollm", "gpt-2", "tekken", "default")
#: names of an export's report
REPORT_FILE, REPORT_PAGE = "export_report.json", "export_report.html"


def bits_of(kind: str) -> int:
    """Bits that decide a type's tolerance: K-quants of 4 to 6 bits count as 4."""
    return BITS.get(kind, 4)
