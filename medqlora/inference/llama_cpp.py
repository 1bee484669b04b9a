"""Label log-likelihoods from a GGUF file, computed by llama.cpp in this process (the package xllamacpp)."""

import json
import math
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, cast

import torch

from medqlora.errors import InputError
from medqlora.records import Encoded, Prediction, Record
from medqlora.utils.types import JsonObject

#: likeliest tokens that are asked for first; a label outside of them costs a second request
_TOP = 256
#: without the proxy that the environment may name: the server is this process
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def check_llama_cpp() -> None:
    """Raises InputError where the package xllamacpp is missing."""
    if find_spec("xllamacpp") is None:
        raise InputError(
            "llama.cpp is needed to check a GGUF file: `pip install -e '.[gguf]'` brings xllamacpp, or pass "
            "--verify false"
        )


class Written(NamedTuple):
    """A generated text, its number of tokens, and why it ended: `stop` or `length`."""

    text: str
    tokens: int
    finish: str


class LlamaCpp:
    """A GGUF file loaded by llama.cpp.

    Args:
        path: the GGUF file.
        context_tokens: longest prompt with its label, in tokens.
        lora: GGUF adapter file to put on; None for none.
        threads: CPU threads; None for those that torch takes, by the cores or OMP_NUM_THREADS.
        named: how the file is called in messages.
        projector: GGUF file of the vision tower and projector; None for a text model.

    Raises:
        InputError: the package is missing, or llama.cpp can't read the file.
    """

    def __init__(
        self,
        path: Path,
        context_tokens: int,
        lora: Path | None = None,
        threads: int | None = None,
        named: str | None = None,
        projector: Path | None = None,
    ) -> None:
        check_llama_cpp()
        import xllamacpp

        options = xllamacpp.CommonParams()
        options.model.path = str(path)
        options.n_ctx = context_tokens + 8
        options.n_batch = options.n_ubatch = max(512, context_tokens + 8)
        options.n_parallel = 1
        options.warmup = False
        options.verbosity = -1
        count = threads or torch.get_num_threads()
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = count
        options.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        # keys and values as the live model has them: in f16 they would add an error of their own
        options.cache_type_k = options.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        if lora is not None:
            adapter = xllamacpp.CommonAdapterLoraInfo()
            adapter.path, adapter.scale = str(lora), 1.0
            options.lora_adapters = [adapter]
        if projector is not None:
            options.mmproj.path, options.mmproj_use_gpu = str(projector), False
        try:
            self._server = xllamacpp.Server(options)
        except (RuntimeError, ValueError) as error:
            with_adapter = "" if lora is None else " with this adapter"
            raise InputError(
                f"{named or path}: llama.cpp can't load it{with_adapter}: export it again, for this architecture"
            ) from error
        self._letter = self.tokens("a")[-1]

    def __enter__(self) -> "LlamaCpp":
        return self

    def __exit__(self, *error: object) -> None:
        """Ends the server's threads and frees the model."""
        del self._server

    def tokens(self, text: str) -> list[int]:
        """The token ids that llama.cpp makes of a text, special tokens in front included."""
        found = self.asked("tokenize", {"content": text, "add_special": True, "parse_special": True})
        return [int(token) for token in cast("list[int]", found["tokens"])]

    def asked(self, path: str, body: Mapping[str, object] | None = None) -> JsonObject:
        """The server's reply at an address: to a POST of `body`, or to a GET."""
        content = None if body is None else json.dumps(body).encode()
        address = f"{self._server.listening_address}/{path}"
        request = urllib.request.Request(address, content, {"Content-Type": "application/json"})
        with _DIRECT.open(request) as reply:
            answer: JsonObject = json.loads(reply.read())
        return answer

    def log_probability(self, prompt: Sequence[int], continuation: Sequence[int]) -> float:
        """log p(continuation | prompt) in nats, over the whole vocabulary."""
        total = 0.0
        for index, token in enumerate(continuation):
            total += self._next(tuple(prompt) + tuple(continuation[:index]), [token])[token]
        return total

    def label_log_probabilities(self, example: Encoded) -> tuple[float, ...]:
        """log p(label | prompt) of each label, the sum over its tokens."""
        first = self._next(tuple(example.prompt), [label[0] for label in example.labels])
        return tuple(
            first[label[0]] + self.log_probability((*example.prompt, label[0]), label[1:])
            for label in example.labels
        )

    def write(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> Written:
        """The text that follows a prompt, greedy at temperature 0."""
        request: dict[str, object] = {
            "prompt": list(prompt),
            "n_predict": max_new_tokens,
            "temperature": temperature,
            "samplers": ["top_k"] if temperature == 0 else ["temperature"],
            "top_k": 1,
            "stop": list(stop),
            "cache_prompt": True,
        }
        if seed is not None:
            request["seed"] = seed % 2**32
        reply = self._server.handle_completions(request)
        (choice,) = reply["choices"]
        tokens = int(reply.get("usage", {}).get("completion_tokens", 0))
        return Written(str(choice["text"]).strip(), tokens, str(choice.get("finish_reason") or "stop"))

    def predict(
        self,
        examples: Sequence[Encoded],
        records: Mapping[str, Record],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Prediction]:
        """Predictions with label log-likelihoods, in the order of `examples`."""
        predictions = []
        for done, example in enumerate(examples, 1):
            record = records[example.id]
            predictions.append(
                Prediction(
                    example.id,
                    record.answer,
                    record.labels,
                    self.label_log_probabilities(example),
                    tuple(len(label) for label in example.labels),
                    context_tokens=len(example.prompt),
                )
            )
            progress(done, len(examples))
        return predictions

    def _next(self, prompt: Sequence[int], wanted: Sequence[int]) -> dict[int, float]:
        """log p of the wanted tokens as the next one."""
        found = self._top(prompt, _TOP)
        if not all(token in found for token in wanted):
            found = self._top(prompt, 1 << 20)
        return {token: found.get(token, -math.inf) for token in wanted}

    def _top(self, prompt: Sequence[int], count: int) -> dict[int, float]:
        reply = self._server.handle_completions(
            {
                "prompt": list(prompt),
                "n_predict": 1,
                "n_probs": count,
                "temperature": 0.0,
                "samplers": ["top_k"],
                "cache_prompt": False,
                # an end token, or a part of a letter, would be answered without probabilities; the bias chooses the
                # token that is answered, and does not reach the probabilities
                "logit_bias": [[self._letter, 1e6]],
            }
        )
        (step,) = reply["choices"][0]["logprobs"]["content"]
        return {int(token["id"]): float(token["logprob"]) for token in step["top_logprobs"]}
