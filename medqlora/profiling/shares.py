"""One row's figures, from what each of a case's processes saw."""

from collections.abc import Sequence
from typing import Any

from medqlora.profiling.clock import summary


def combined(shares: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of a case, from what each of its processes saw.

    Tokens are of all processes, over the time of the slowest; memory is the highest. With several, also
    `tokens_per_s_per_device`, and as `quickest_waits` the share of the steps' time that the process which was
    through with its examples first waited for the last.
    """
    first, several = shares[0], len(shares) > 1
    step_s = max((share["step_s"] for share in shares), key=sum)
    found = {name: max(share["peaks"][name] for share in shares) for name in first["peaks"]}
    planned = None if first["planned_gib"] is None else max(share["planned_gib"] for share in shares)
    peak = found.get("peak_allocated_gib")
    ceiling = sum(share["flops_per_s"] for share in shares)
    speed = summary(step_s, first["tokens"])
    if several:
        computing_s = zip(*(share["computing_s"] for share in shares), strict=True)
        waiting_s = sum(max(one) - min(one) for one in computing_s)
        speed["tokens_per_s_per_device"] = round(speed["tokens_per_s"] / len(shares), 1)
        speed["quickest_waits"] = round(waiting_s / sum(step_s), 4)
    return {
        **speed,
        **found,
        "planned_gib": None if planned is None else round(planned, 3),
        "plan_error": None if planned is None or peak is None else round(planned / peak - 1, 4),
        "loaded_gib": max(share["loaded_gib"] for share in shares),
        "flop_utilisation": round(sum(share["flops"] for share in shares) / sum(step_s) / ceiling, 4),
        "matrix_product_tflops": round(ceiling / len(shares) / 1e12, 3),
        "loss": round(first["loss"], 4),
        "attention": first["attention"],
        "hardware": first["hardware"],
    }
