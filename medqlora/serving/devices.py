"""The devices that torch sees; called in a process of its own, since the service imports no torch."""


def visible(name: str) -> list[str]:
    """The devices of `--device`: every GPU for auto and cuda, where there is one.

    Raises:
        InputError: there is no such device.
    """
    import torch

    from medqlora.inference.loading import pick_device

    device = pick_device(name)
    if device.type == "cuda" and device.index is None:
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [str(device)]
