"""Private parts of Unsloth 2026.10."""


def attention_package() -> str | None:
    """The package whose attention Unsloth's models run, "flash-attn" or "xformers"; None for torch's own.

    Unsloth 2026.10 decides it when it is imported and keeps the result in a private module.
    """
    from unsloth.models import _utils

    if getattr(_utils, "HAS_FLASH_ATTENTION", False):
        return "flash-attn"
    return "xformers" if getattr(_utils, "HAS_XFORMERS", False) else None
