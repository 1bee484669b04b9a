"""The fast counterpart of `medqlora.models.Decoder`: the same results from the same weights."""

from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medqlora.compat.torch import foreach_copy_, foreach_mul
from medqlora.data.batching.packing import MicroBatch
from medqlora.fused.attention import Segments
from medqlora.fused.elementwise import elementwise, fastest
from medqlora.fused.head import HeadLoss
from medqlora.fused.host_head import HostHeadLoss
from medqlora.fused.layer import Keep, Layer, LayerFunction
from medqlora.fused.projections import norm_of, rotary_frequencies
from medqlora.fused.step import (
    Selection,
    Step,
    find_segments,
    select_any,
    select_completions,
)
from medqlora.fused.support import attention_window, unsupported
from medqlora.models.host_weights import HostEmbedding, HostHead
from medqlora.models.sharded import ShardedBase

#: which layers run a second time in the backward instead of keeping their activations
Checkpointing = Literal["offload", "full", "none"] | int


class FusedDecoder:
    """Runs a 4-bit Llama-like model's training step and packed scoring through its own decoder path.

    Weights, adapters, saving and generation stay the model's: gradients arrive at PEFT's own parameters.
    Each weight group is dequantized once a pass, with LoRA folded into the same product (`engine.group`);
    attention never crosses from one packed example to the next; the last layer and the head run at the
    rows that are wanted alone; nothing waits for the device.

    Args:
        model: a transformers causal language model in 4 bits, or a PEFT model around one. Its adapters
            have to be in place; their values, the training mode and PEFT's `disable_adapter` may change.
        checkpointing: "none" keeps every layer's activations, "full" each layer's input alone, "offload" that in
            host memory; a number is
            of layers, from the first on, that keep their input alone. The last layer always keeps its own,
            which are less than any other needs while it runs again.
        compile: one kernel for what stands between two products (`torch.compile`).
        cached: layers, from the last on, whose weights stay dequantized: the same numbers, and no
            dequantization, for 16 bits a weight.
        shared: where the model's layers are spread over processes: gathers them, in step with the others.

    Raises:
        ValueError: `unsupported(model)` says why it can't be run.
    """

    def __init__(
        self,
        model: Any,
        *,
        checkpointing: Checkpointing = "full",
        compile: bool = False,
        cached: int = 0,
        shared: ShardedBase | None = None,
    ) -> None:
        reason = unsupported(model)
        if reason is not None:
            raise ValueError(f"the fused engine can't run this model: {reason}")
        base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
        body = getattr(base, base.base_model_prefix)
        self.model = model
        self.body = body
        self.head = base.get_output_embeddings()
        #: the backward adds LoRA's gradients to `.grad` itself, a few launches a layer, where each parameter has
        #: one already; autograd is told of none
        self.accumulate = False
        #: no mask at all: a scorer gives each label its own row of the pack
        self.takes_any_mask = False
        config = base.config.get_text_config()
        self.dtype: torch.dtype = body.embed_tokens.weight.dtype
        count = len(body.layers)
        self._shared = shared
        self.layers = [
            Layer(
                module,
                number,
                last=number == count - 1,
                dtype=self.dtype,
                cached=number >= count - cached,
                whole=nullcontext if shared is None else partial(shared.use, number),
            )
            for number, module in enumerate(body.layers)
        ]
        self._recomputed_keep: Keep = "offload" if checkpointing == "offload" else "input"
        if isinstance(checkpointing, str):
            checkpointing = 0 if checkpointing == "none" else count
        self.recomputed = min(checkpointing, count - 1)
        self.norm = norm_of(body.norm)
        device = self.norm[0].device
        self.functions = fastest(device) if compile else elementwise("plain")
        self.window = attention_window(config)
        frequencies, self._factor = rotary_frequencies(body.rotary_emb, config)
        self._frequencies = frequencies.to(device)
        groups = [group for layer in self.layers for group in layer.groups]
        self._groups = groups
        #: an adapted layer, which knows whether the adapters are switched off: PEFT tells all of them at once
        self._adapted = next((one for one in body.layers.modules() if hasattr(one, "disable_adapters")), None)
        self._casts = _by_kind([cast for group in groups for cast in group.casts()])

    # ---- the decoder's interface -------------------------------------------------------------------

    def hidden(self, batch: MicroBatch, rows: Tensor) -> Tensor:
        """[len(rows), D]: the last hidden states (after the final norm) at `rows` of the batch's tokens.

        Raises:
            ValueError: the batch is padded, or longer than the model's attention window.
        """
        self._check(batch)
        segments = find_segments(batch.lengths, rows.device)
        return self._hidden(batch, self._step(batch, segments, select_any(rows, segments)))

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, V] float32 logits of hidden rows [R, D]."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(hidden.to(self.dtype)).float()

    def loss_sum(self, batch: MicroBatch) -> Tensor:
        """The sum of the completion tokens' negative log-likelihoods in nats, a float32 scalar with a graph.

        Raises:
            ValueError: as `hidden`; or `batch.rows` are not those that `pack` makes.
        """
        self._check(batch)
        segments = find_segments(batch.lengths, batch.rows.device)
        width = self.layers[0].first.heads.width
        selection = select_completions(batch, segments, self.dtype, width)
        hidden = self._hidden(batch, self._step(batch, segments, selection))
        with torch.autocast(hidden.device.type, enabled=False):
            if isinstance(self.head, HostHead):
                return HostHeadLoss.apply(hidden, self.head, batch.targets)
            return HeadLoss.apply(hidden, self.head.weight, batch.targets, self.functions.cross_entropy)

    # ---- one pass ----------------------------------------------------------------------------------

    def _check(self, batch: MicroBatch) -> None:
        if batch.attention_mask is not None:
            raise ValueError("the fused engine takes packed micro-batches alone")
        if self.window is not None and int(batch.lengths.max()) > self.window:
            raise ValueError(
                f"an example of {int(batch.lengths.max())} tokens, and the model attends within {self.window}"
            )

    def _step(self, batch: MicroBatch, segments: Segments, selection: Selection) -> Step:
        angles = batch.position_ids[0].float()[:, None] * self._frequencies
        return Step(
            angles.cos() * self._factor,
            angles.sin() * self._factor,
            segments,
            selection,
            self._seed(),
            self.functions,
            self.accumulate,
        )

    def _seed(self) -> int | None:
        """Of this pass's dropout, drawn from the CPU's random numbers; None where nothing is dropped."""
        if not any(adapter.drop_rate for group in self._groups for adapter, _, _ in group.adapters):
            return None
        return int(torch.randint(1 << 62, ()))

    @torch.no_grad()
    def _refresh(self) -> None:
        """Casts the adapters' float32 weights into the groups' operands: once a pass, not once a product."""
        active = not getattr(self._adapted, "disable_adapters", False)
        for group in self._groups:
            group.active = active
        if not active or not self._casts:
            return
        for targets, weights, factor in self._casts:
            # scaled before they are rounded
            foreach_copy_(targets, weights if factor == 1 else foreach_mul(weights, factor))

    @torch.no_grad()
    def _embedded(self, batch: MicroBatch) -> Tensor:
        """[T, D]: the tokens' embeddings, on the device."""
        embedding, ids = self.body.embed_tokens, batch.input_ids[0]
        if not isinstance(embedding, HostEmbedding):
            return F.embedding(ids, embedding.weight)
        # the ids that the collator left on the host; asking the device for them would wait for it
        return embedding.gather(ids.cpu() if batch.host_ids is None else batch.host_ids[0], ids.device)

    def _hidden(self, batch: MicroBatch, step: Step) -> Tensor:
        with torch.autocast(batch.input_ids.device.type, enabled=False):
            self._refresh()
            if self._shared is not None:
                self._shared.begin(backward=torch.is_grad_enabled())
            x = self._embedded(batch)
            for number, layer in enumerate(self.layers):
                parameters = layer.parameters
                if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in parameters)):
                    keep: Keep = self._recomputed_keep if number < self.recomputed else "all"
                    x = LayerFunction.apply(x, layer, step, keep, *parameters)
                else:
                    with torch.no_grad(), layer.whole():
                        x = layer.forward(x, step)[0]
            weight, eps = self.norm
            wide = x.float()
            normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight.float()
            return normed.to(self.dtype)


def _by_kind(
    casts: list[tuple[Tensor, nn.Parameter, float]],
) -> list[tuple[list[Tensor], list[Tensor], float]]:
    """(where, what, times what), put together so that all but those into a block diagonal are a few launches."""
    kinds: dict[tuple[bool, float], tuple[list[Tensor], list[Tensor]]] = {}
    for target, weight, factor in casts:
        targets, weights = kinds.setdefault((target.is_contiguous(), factor), ([], []))
        targets.append(target)
        weights.append(weight)
    return [(targets, weights, factor) for (_, factor), (targets, weights) in kinds.items()]
