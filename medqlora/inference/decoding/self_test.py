"""Whether a decode engine runs on this device and writes the likeliest tokens, before a result depends on it."""

import torch

from medqlora.data.batching.packing import pack
from medqlora.inference.decoding.engine import DecodeEngine
from medqlora.inference.decoding.requests import Request
from medqlora.records import Encoded

#: largest relative difference between the best logit and the chosen token's that rounding explains
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
_PROMPTS, _NEW = ((5, 3, 8, 4, 9), (7, 2), (4, 6, 3)), 4


@torch.no_grad()
def why_not(engine: DecodeEngine) -> str | None:
    """The reason why an engine can't be used, in a few words; None where it can.

    It continues three short prompts, the first one alone too, since one row and several run different kernels, and
    looks for each token in the logits of a packed pass over the whole rows.
    """
    decoder = engine.decoder
    training = decoder.model.training
    decoder.model.eval()
    try:
        rows: dict[int, list[int]] = {}
        for together in (_PROMPTS[:1], _PROMPTS):
            rows |= {engine.add(Request(prompt, _NEW)): list(prompt) for prompt in together}
            for event in engine.run():
                rows[event.id] += event.tokens
            engine.release()
        batch = pack([Encoded("", row, ()) for row in rows.values()])
        ends = batch.lengths.long().cumsum(0)
        places = torch.cat([torch.arange(end - _NEW, end) for end in ends.tolist()])
        chosen = batch.input_ids[0, places]
        batch = batch.to(engine.device)
        logits = decoder.logits(engine.prefill(batch, (places - 1).to(engine.device), ())).cpu()
    except (RuntimeError, ValueError) as error:
        engine.release()
        return str(error).splitlines()[0]
    finally:
        decoder.model.train(training)
    best = logits.max(-1).values
    gap = ((best - logits.gather(1, chosen[:, None])[:, 0]) / best.abs()).max().item()
    tolerance = _TOLERANCE[decoder.dtype]
    return None if gap <= tolerance else f"its tokens are not the likeliest ones, by {gap:.1e}"
