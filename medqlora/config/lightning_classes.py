"""Lightning's classes that a run does not take, known by their names before Lightning is imported."""

from collections.abc import Mapping

from medqlora.errors import InputError

_AVERAGED = (
    "validation would score averaged weights, and checkpoints and the exported adapter hold others: leave it out; "
    "--average.count averages adapters of several validations; with --model.lr_scheduler cosine, the default, the rate "
    "falls to 0, which has much the same effect"
)
_FROZEN = (
    "the base stays frozen in 4 bits, and the adapters alone are trained: leave it out, and name the adapted layers "
    "with --model.lora.target_modules"
)
#: callback of `lightning.pytorch.callbacks` → why it is refused, and what to use instead
REFUSED_CALLBACKS: Mapping[str, str] = {
    "StochasticWeightAveraging": _AVERAGED,
    "WeightAveraging": _AVERAGED,
    "EMAWeightAveraging": _AVERAGED,
    "BatchSizeFinder": "--data.batch_size sets the examples of an optimizer step, and with it the result: choose it, "
    "and use --data.micro_batch_tokens auto, which fills the GPU's memory without changing the result",
    "LearningRateFinder": "it needs automatic optimization, and each step here is a whole optimizer step of our own: "
    "compare a few values of --model.learning_rate with --trainer.max_steps",
    "GradientAccumulationScheduler": "a batch is a whole optimizer step here: use --data.batch_size and "
    "--data.micro_batch_tokens",
    "ModelPruning": "4-bit weights and LoRA adapters can't be pruned: use a smaller --model.lora.r",
    "BaseFinetuning": _FROZEN,
    "BackboneFinetuning": _FROZEN,
}
#: packages of the same classes under another name, which Lightning does not take for its own
_OTHER_PACKAGES = {"pytorch_lightning": "lightning.pytorch", "lightning_fabric": "lightning.fabric"}


def check_lightning_class(path: str, option: str, *, callback: bool) -> None:
    """Refuses a class of the package `pytorch_lightning`, and a callback that would change what is trained.

    Args:
        path: a class_path, or a class's name alone.
        option: where it was given, for the message.
        callback: whether it is one of the Trainer's callbacks.

    Raises:
        InputError: names what to write instead.
    """
    package, _, rest = path.partition(".")
    if package in _OTHER_PACKAGES:
        right = f"{_OTHER_PACKAGES[package]}.{rest}"
        raise InputError(f"{option} {path}: the package here is lightning: write {right}")
    module, _, name = path.rpartition(".")
    if callback and name in REFUSED_CALLBACKS and (not module or package == "lightning"):
        raise InputError(f"{option} {name}: {REFUSED_CALLBACKS[name]}")
