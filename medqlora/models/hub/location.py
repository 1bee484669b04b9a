"""The location of a base, a folder or a repository on the Hub, and its identity."""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from medqlora.errors import InputError
from medqlora.models.weight_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    gguf_alone,
    not_a_model,
    read_object,
    refuse_lfs_pointer,
)

#: bytes read of each tensor for an identity
_SAMPLE_BYTES = 1 << 16


def is_local(base: str) -> bool:
    """Whether `base` means a folder: it exists, or is written as a path."""
    return Path(base).expanduser().exists() or base.startswith((".", "/", "~"))


def resolve(base: str) -> str:
    """`base` as transformers takes it: a folder's full path, or the Hub's name unchanged.

    Raises:
        InputError: it means a folder, which holds no model.
    """
    if not is_local(base):
        return base
    folder = Path(base).expanduser()
    if folder.is_file():
        gguf = folder.suffix == ".gguf"
        fault = gguf_alone(base, [folder.name]) if gguf else f"'{base}' is a file: give its folder"
        raise InputError(f"--model.backend.base: {fault}")
    if not folder.is_dir():
        raise InputError(
            f"--model.backend.base: there is no folder '{base}': give a model's folder or its Hub name"
        )
    if not (folder / "config.json").is_file():
        raise InputError(f"--model.backend.base: {not_a_model(base, folder)}")
    return str(folder)


def hub_file(base: str, name: str, revision: str | None = None) -> Path | None:
    """A file of the repository `base`, downloaded where needed; None where there is none or the Hub fails."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(base, name, revision=revision))
    except (HfHubHTTPError, OSError, ValueError):
        return None


def adapter_beside(base: str, revision: str | None = None) -> bool:
    """Whether the base's folder or repository also holds an adapter, which must not be loaded with it."""
    if is_local(base):
        return (Path(resolve(base)) / ADAPTER_CONFIG).is_file()
    return hub_file(base, ADAPTER_CONFIG, revision) is not None


@contextmanager
def bare_folder(base: str, revision: str | None = None) -> Iterator[str]:
    """`base` itself; where an adapter lies beside it, while entered, a folder of links to its other files.

    For a loader that adds any adapter that it finds, without an option against it (Unsloth).
    """
    if not adapter_beside(base, revision):
        yield base
        return
    if is_local(base):
        source = Path(resolve(base)).resolve()
    else:
        from huggingface_hub import snapshot_download

        ignored = ["adapter_*", "*.gguf", "*.pth"]
        source = Path(snapshot_download(base, revision=revision, ignore_patterns=ignored))
    with tempfile.TemporaryDirectory(prefix="medqlora_base_") as folder:
        for file in source.iterdir():
            if not file.name.startswith("adapter_"):
                (Path(folder) / file.name).symlink_to(file.resolve())
        yield folder


@lru_cache(maxsize=4)
def identity(base: str, revision: str | None = None) -> str:
    """The Hub's name and revision, or a digest of a folder's configuration and weights.

    A folder may be moved or renamed: the digest covers its `config.json` and the beginning of every tensor. The
    beginning of every file would not do: an adapter merged into a base leaves the embedding, which comes first.

    Raises:
        InputError: there is no such folder, or a weight file in it is not whole.
    """
    path = resolve(base)
    if path == base and not is_local(base):
        return base if revision is None else f"{base}@{revision}"
    folder = Path(path)
    digest = hashlib.sha256()
    config = read_object(folder / "config.json")
    for key in ("_name_or_path", "transformers_version"):
        config.pop(key, None)
    digest.update(json.dumps(config, sort_keys=True).encode())
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]):
        if file.name == ADAPTER_WEIGHTS:  # an adapter beside the base is no part of it
            continue
        refuse_lfs_pointer(file)
        digest.update(f"{file.name} {file.stat().st_size} ".encode())
        for piece in _samples(file):
            digest.update(piece)
    return f"sha256:{digest.hexdigest()[:32]}"


def _samples(file: Path) -> Iterator[bytes]:
    """Parts that differ between weight files of one name and size, without reading them completely."""
    with file.open("rb") as stream:
        if file.suffix == ".bin":
            # torch's zip ends with its index, which holds a checksum of every tensor
            stream.seek(max(0, file.stat().st_size - (1 << 20)))
            yield stream.read()
            return
        size = int.from_bytes(stream.read(8), "little")
        index = stream.read(min(size, file.stat().st_size))
        try:
            tensors = json.loads(index)
        except ValueError as error:
            raise InputError(
                f"--model.backend.base: '{file}' is not a whole safetensors file: copy or download it again"
            ) from error
        yield index
        for name in sorted(tensors.keys() - {"__metadata__"}):
            start, end = tensors[name]["data_offsets"]
            stream.seek(8 + size + start)
            yield stream.read(min(end - start, _SAMPLE_BYTES))


def first_line(error: Exception) -> str:
    """The first line of a message of transformers', which names the fault."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(":. ") if text else type(error).__name__


def unreachable(base: str, error: Exception) -> InputError:
    """The error for a base that can't be downloaded."""
    if "gated" in str(error).lower() or "401" in str(error):
        fix = "accept its licence on its Hub page, then `hf auth login`"
    else:
        fix = "check the name and the connection, or download it elsewhere and pass the folder"
    return InputError(
        f"--model.backend.base: '{base}' can't be had from the Hub ({first_line(error)}): {fix}"
    )


def needs_own_code(error: Exception) -> bool:
    """Whether it is transformers' refusal without `trust_remote_code`, a ValueError like others."""
    return "trust_remote_code" in str(error)


def own_code(base: str) -> InputError:
    """The error for a base that needs its own Python code."""
    return InputError(
        f"--model.backend.base: '{base}' brings Python code of its own (auto_map), which is never run: take a base "
        "of a family that this transformers knows"
    )
