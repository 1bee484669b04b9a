"""`FusedDecoder`: a faster implementation of `medqlora.models.Decoder` with the same results."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medqlora.data.batching.packing import MicroBatch
from medqlora.fused.casts import Casts
from medqlora.fused.families import FAMILIES, layer_windows
from medqlora.fused.head import HeadLoss, HostHeadLoss
from medqlora.fused.host_inputs import HostInputs
from medqlora.fused.kernels.attention import Segments
from medqlora.fused.kernels.elementwise import elementwise, fastest
from medqlora.fused.layer import Keep, Layer, LayerFunction
from medqlora.fused.modules import read_model, read_norm, rotary_frequencies
from medqlora.fused.seeds import Seed
from medqlora.fused.step import Selection, Step, Widened, find_segments, select_any, select_completions
from medqlora.fused.support import unsupported
from medqlora.models.embedding_noise import with_noise
from medqlora.models.host_weights import HostEmbedding, HostHead
from medqlora.models.sharded import ShardedBase

#: activation checkpointing; a number is of layers, from the first on, that recompute
Checkpointing = Literal["offload", "full", "none"] | int
#: receives a layer's index, its keys and its values, [T, H_kv, d] each
StoreKeys = Callable[[int, Tensor, Tensor], None]


class RunsPasses(Protocol):
    """Runs training passes in its own way.

    Attributes:
        on: whether it does so for the next pass.
        least: tokens that the next passes are padded to at least.
    """

    on: bool
    least: int

    def loss_sum(self, batch: MicroBatch) -> Tensor | None:
        """As `FusedDecoder.loss_sum`; None leaves the pass to the decoder."""

    def summary(self) -> str | None:
        """What there is to tell the user at the end of the training, in one line."""

    def clear(self) -> None:
        """Frees the memory that is kept for passes."""


class FusedDecoder:
    """The training step and packed scoring of a Llama-like 4-bit model, by the engine's own code.

    Weights, adapters, saving and generation stay the model's: gradients arrive at PEFT's parameters.
    Each weight group is dequantized once per pass, with LoRA in the same product (`fused.group`). Attention
    stays within each packed example. The last layer and the head run at the selected rows only. No operation
    waits for the device.

    Args:
        model: a transformers causal language model in 4 bits, or a PEFT model around one. Its adapters
            are in place; their values, the training mode and PEFT's `disable_adapter` may change later. The
            adapter that is switched on now stays its own: see `has_its_adapter`.
        checkpointing: "none" keeps the activations of every layer. "full" keeps the layers' inputs and
            recomputes the rest. "offload" keeps the inputs in host memory. A number selects the first layers
            for "full". The last layer always keeps its activations: they take less memory than a
            recomputation of any other layer.
        compile: runs the functions between matrix products as one kernel each.
        cached: the number of layers, from the last on, whose weights stay dequantized: same results, no
            dequantization, 16 bits per weight.
        shared: the sharded base, which gathers the layers in step with the other processes.
        own_adapter: False leaves all adapters to an `AdapterBank`: other passes are the bare base model's.

    Attributes:
        own_adapter: as given.

    Raises:
        ValueError: the engine can't run the model; the message has the reason from `unsupported`.
    """

    #: NEFTune's alpha while training; 0 for no noise on the embeddings
    noise_alpha: float = 0.0

    def __init__(
        self,
        model: nn.Module,
        *,
        checkpointing: Checkpointing = "full",
        compile: bool = False,
        cached: int = 0,
        shared: ShardedBase | None = None,
        own_adapter: bool = True,
    ) -> None:
        if (reason := unsupported(model)) is not None:
            raise ValueError(f"the fused engine can't run this model: {reason}")
        body, head, config = read_model(model)
        family = FAMILIES.get(config.model_type)
        assert family is not None  # `unsupported` refuses other families
        self.model, self.own_adapter = model, own_adapter
        self.body, self.head = body, cast(nn.Linear, head)  # or a HostHead, which is one
        #: the backward adds LoRA's gradients to `.grad` in place, in a few launches per layer; every parameter
        #: needs a gradient tensor, and autograd receives none
        self.accumulate = False
        #: runs the training passes that accumulate, see `StepGraphs`; where it returns None, they run as others do
        self.graphs: RunsPasses | None = None
        #: the rows of this pass have different adapters, and the groups' `by_row` adds them
        self.by_row = False
        #: packed rows with other masks aren't supported: a scorer gives each label a row of its own
        self.takes_any_mask = False
        self.dtype, count = body.embed_tokens.weight.dtype, len(body.layers)
        self._shared = shared
        self.window = family.window(config)
        windows = layer_windows(config, self.window)
        self._recomputed_keep: Keep = "offload" if checkpointing == "offload" else "input"
        asked = checkpointing if isinstance(checkpointing, int) else count * (checkpointing != "none")
        self.recomputed = min(asked, count - 1)
        self.layers = [
            Layer(
                module,
                index,
                family=family,
                last=index == count - 1,
                dtype=self.dtype,
                cached=index >= count - cached,
                keeps=index >= max(self.recomputed, count - cached),
                window=windows[index],
                adapted=own_adapter,
                gathered=nullcontext if shared is None else partial(shared.use, index),
            )
            for index, module in enumerate(body.layers)
        ]
        self.norm = read_norm(body.norm)
        device = self.norm[0].device
        self.functions = fastest(device) if compile else elementwise("plain")
        #: copies layers' inputs to host memory and back
        self._copies = torch.cuda.Stream(device) if self.offloaded and device.type == "cuda" else None
        frequencies, self._factor = rotary_frequencies(body.rotary_emb, config)
        self._frequencies = frequencies.to(device)
        self.groups = [group for layer in self.layers for group in layer.groups]
        #: an adapted module: PEFT disables all adapters together, so one module tells the state of all
        self._adapted = next((m for m in body.layers.modules() if hasattr(m, "disable_adapters")), None)
        self._made_with = self._active
        self._casts = Casts([cast for group in self.groups for cast in group.casts()])

    # ---- the decoder's interface -------------------------------------------------------------------

    def hidden(self, batch: MicroBatch, rows: Tensor) -> Tensor:
        """[len(rows), D]: the last hidden states (after the final norm) at `rows` of the batch's tokens.

        Raises:
            ValueError: the batch is padded; or with gradients, an example is longer than the attention window.
        """
        self._check(batch, windows=not torch.is_grad_enabled())
        segments = find_segments(batch.lengths, rows.device)
        return self._hidden(batch, self.step(batch.position_ids[0], segments, select_any(rows, segments)))

    @torch.no_grad()
    def prefill(self, batch: MicroBatch, rows: Tensor, store: StoreKeys) -> Tensor:
        """`hidden` without a graph, for examples of any length; `store` gets each layer's keys and values.

        Raises:
            ValueError: the batch is padded.
        """
        self._check(batch, windows=True)
        segments = find_segments(batch.lengths, rows.device)
        return self._hidden(
            batch, self.step(batch.position_ids[0], segments, select_any(rows, segments)), store
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, V] float32 logits of hidden rows [R, D]."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(hidden.to(self.dtype)).float()

    def loss_sum(self, batch: MicroBatch) -> Tensor:
        """The sum of the completion tokens' negative log-likelihoods in nats, a float32 scalar with a graph.

        With `batch.terms`, Σ weight · (−log p(target)) over them.

        Raises:
            ValueError: as `hidden`; or `batch.rows` are not as `pack` makes them.
        """
        self._check(batch)
        plain = batch.terms is None and not self.noise_alpha  # graphs have neither weights nor noise
        if (
            self.graphs is not None
            and self.graphs.on
            and plain
            and self.accumulate
            and torch.is_grad_enabled()
        ):
            loss = self.graphs.loss_sum(batch)
            if loss is not None:
                return loss
        segments = find_segments(batch.lengths, batch.rows.device)
        width = self.layers[0].first.heads.width
        selection = select_completions(batch, segments, self.dtype, width)
        return self.pass_loss(batch, self.step(batch.position_ids[0], segments, selection))

    # ---- one pass ----------------------------------------------------------------------------------

    def _check(self, batch: MicroBatch, *, windows: bool = False) -> None:
        if batch.attention_mask is not None:
            raise ValueError("the fused engine takes packed micro-batches only")
        if not windows and self.window is not None and int(batch.lengths.max()) > self.window:
            raise ValueError(
                f"an example has {int(batch.lengths.max())} tokens, and the model's attention window {self.window}"
            )

    def pass_loss(self, batch: MicroBatch, step: Step, embedded: Tensor | None = None) -> Tensor:
        """The loss of a pass, as `loss_sum`; `embedded` [T, D] replaces the embedding of its tokens."""
        hidden = self._hidden(batch, step, embedded=embedded)
        targets, weights = batch.targets, None
        if batch.terms is not None:
            targets, weights = batch.terms.targets, batch.terms.weights
            hidden = hidden[batch.terms.places]
        with torch.autocast(hidden.device.type, enabled=False):
            if isinstance(self.head, HostHead):
                return HostHeadLoss.apply(hidden, self.head, targets, weights)
            return HeadLoss.apply(hidden, self.head.weight, targets, self.functions.cross_entropy, weights)

    def step(self, positions: Tensor, segments: Segments, selection: Selection) -> Step:
        """What the layers share in a pass over tokens at `positions` [T]; draws the seed of its dropout."""
        return self.seeded_step(positions, segments, selection, self.draw_seed())

    def seeded_step(
        self,
        positions: Tensor,
        segments: Segments,
        selection: Selection,
        seed: Seed | None,
        pinned: list[Tensor] | None = None,
    ) -> Step:
        """`step` with a given seed; `pinned` holds the layers' inputs in a pass that offloads them."""
        return Step(
            *self.turns(positions),
            segments,
            selection,
            seed,
            self.functions,
            HostInputs(self._copies, pinned),
            self.accumulate,
            Widened(),
        )

    def turns(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [T, d / 2] float32 of the rotary angles at `positions` [T]."""
        angles = positions.float()[:, None] * self._frequencies
        return angles.cos() * self._factor, angles.sin() * self._factor

    @property
    def sharded(self) -> bool:
        """Whether processes share the layers' weights."""
        return self._shared is not None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The LoRA weights."""
        return [parameter for layer in self.layers for parameter in layer.parameters]

    @property
    def offloaded(self) -> int:
        """The number of layers, from the first on, whose inputs a training pass keeps in host memory."""
        return self.recomputed if self._recomputed_keep == "offload" else 0

    def draw_seed(self) -> int | None:
        """The seed of this pass's dropout, from torch's CPU generator; None without dropout."""
        if not any(adapter.drop_rate for group in self.groups for adapter, _, _ in group.adapters):
            return None
        return int(torch.randint(1 << 62, ()))

    @property
    def adapters_on(self) -> bool:
        """Whether PEFT's adapters are in use now."""
        return not getattr(self._adapted, "disable_adapters", False)

    @property
    def _active(self) -> tuple[str, ...]:
        """PEFT's names of the adapters that are switched on."""
        return tuple(getattr(self._adapted, "active_adapters", ()))

    @property
    def has_its_adapter(self) -> bool:
        """Whether PEFT has the decoder's own adapter switched on, or has switched all off; True without one."""
        return not (self.own_adapter and self.adapters_on) or self._active == self._made_with

    @torch.no_grad()
    def refresh(self, active: bool) -> None:
        """Casts the adapters' float32 weights into the groups' operands, once per pass; `active` as in `Group`."""
        for group in self.groups:
            group.active = active
        if active:
            self._casts()

    @torch.no_grad()
    def embed(self, ids: Tensor, host_ids: Tensor | None) -> Tensor:
        """[T, D]: the embeddings of tokens [T], on the device; the same ids on the host avoid a device sync."""
        embedding = self.body.embed_tokens
        if not isinstance(embedding, HostEmbedding):
            return F.embedding(ids, embedding.weight)
        return embedding.gather(ids.cpu() if host_ids is None else host_ids, ids.device)

    def last_norm(self, x: Tensor) -> Tensor:
        """The final norm of hidden states [R, D]."""
        weight, eps = self.norm
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight.float()
        return normed.to(self.dtype)

    def _hidden(
        self, batch: MicroBatch, step: Step, store: StoreKeys | None = None, embedded: Tensor | None = None
    ) -> Tensor:
        with torch.autocast(batch.input_ids.device.type, enabled=False):
            if not self.by_row:
                self.refresh(self.adapters_on)
            if self._shared is not None:
                self._shared.begin(backward=torch.is_grad_enabled())
            x = embedded
            if x is None:
                x = self.embed(batch.input_ids[0], None if batch.host_ids is None else batch.host_ids[0])
            if self.noise_alpha and torch.is_grad_enabled():
                x = with_noise(x, batch.lengths, self.noise_alpha)
            for index, layer in enumerate(self.layers):
                parameters = layer.parameters
                if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in parameters)):
                    keep: Keep = self._recomputed_keep if index < self.recomputed else "all"
                    # a pass that accumulates has its gradients outside of autograd: any input begins its graph
                    inputs = [torch.empty(0, requires_grad=True)] if step.accumulate else parameters
                    x = LayerFunction.apply(x, layer, step, keep, *inputs)
                else:
                    with torch.no_grad(), layer.gathered():
                        x, saved = layer.forward(x, step)
                    if store is not None:
                        store(index, saved[0].k, saved[0].v)
                    del saved  # before the next layer allocates
            step.inputs.finish()
            return self.last_norm(x)
