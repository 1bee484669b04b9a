"""Private parts of PEFT 0.21."""


def renamed_expert_layers(model_type: str | None) -> frozenset[str]:
    """Layer names that PEFT takes for the experts of transformers 4, in models of this type.

    PEFT 0.21 rewrites a LoRA configuration that targets them: linear layers of that name, as in a shared expert, get
    no adapter, and the experts get one of twice the rank. The tables that say which names are private. Where another
    version lacks them, no name is reported.
    """
    try:
        from peft.utils import transformers_weight_conversion as conversion
    except ImportError:
        return frozenset()
    kind = getattr(conversion, "_MODEL_TO_CONVERSION_PATTERN", {}).get(model_type)
    if kind not in getattr(conversion, "_MOE_FUSED_TARGETS", {}):
        return frozenset()
    return frozenset(getattr(conversion, "_MOE_TARGET_MODULE_MAPPING", {}).get(kind, ()))
