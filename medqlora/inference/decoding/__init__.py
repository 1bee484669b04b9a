"""Generation with the fused engine: continuous batching over a key-value cache.

`DecodeEngine` takes requests at any time and yields their tokens as they come:

    engine = DecodeEngine(decoder, tokens=8192, rows=16, prefill_tokens=2048)
    number = engine.add(Request(prompt, max_new_tokens=64, end_token_ids=(2,)))
    while engine.busy:
        for event in engine.step():  # a prefill where a request can begin, then one token for each row
            print(event.id, event.tokens, event.finished)
    engine.cancel(number)            # at any time between two steps
    engine.release()                 # frees the cache

One thread at a time may use an engine. Adapters may be loaded into the PEFT model at any time; before one is deleted,
its requests are cancelled. The model is in eval mode, within its precision context, while it steps.
"""

from medqlora.inference.decoding.engine import DecodeEngine
from medqlora.inference.decoding.requests import ACTIVE, NewTokens, Request, Sampling

__all__ = ["ACTIVE", "DecodeEngine", "NewTokens", "Request", "Sampling"]
