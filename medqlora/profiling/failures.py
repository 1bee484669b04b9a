"""What went wrong in a case, in a line that its row can say."""

from typing import Any


def failure(error: Exception) -> dict[str, Any]:
    """`{"failed": why}`, with `input_error` where the user can put it right."""
    if type(error).__name__ == "InputError":
        return {"failed": str(error), "input_error": True}
    lines = [line for line in str(error).splitlines() if line.strip()]
    why = f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
    return {"failed": "out of memory" if _out_of_memory(error) else why}


def _out_of_memory(error: Exception) -> bool:
    """torch's own error, or what libraries make of it: bitsandbytes and cuBLAS allocate by themselves."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "cublas_status_alloc_failed" in text or "can't allocate memory" in text
