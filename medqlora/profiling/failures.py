"""The failure of a case as one line of its row."""

from medqlora.profiling.figures import Figures


def failure(error: Exception) -> Figures:
    """`failed` with the reason, and `input_error` if the user can correct it."""
    if type(error).__name__ == "InputError":
        return {"failed": str(error), "input_error": True}
    lines = [line for line in str(error).splitlines() if line.strip()]
    why = f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
    return {"failed": "out of memory" if _out_of_memory(error) else why}


def _out_of_memory(error: Exception) -> bool:
    """Whether torch, or a library with an allocator of its own (bitsandbytes, cuBLAS), ran out of memory."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "cublas_status_alloc_failed" in text or "can't allocate memory" in text
