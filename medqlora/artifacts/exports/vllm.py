"""An adapter folder for vLLM and other servers of PEFT adapters."""

import json
import shutil
from pathlib import Path

from medqlora.artifacts.exports.staging import Staging
from medqlora.artifacts.serving_check import check_served, decision_file, vllm_command
from medqlora.errors import InputError
from medqlora.inference.loading import read_trained
from medqlora.models.adapters import adapter_config, base_of, read_adapter


def export_vllm(adapter: str, out: Path, base: str | None = None) -> str:
    """Copies an adapter folder that vLLM takes, with `decision.json` beside it; the command that serves it.

    Args:
        adapter: adapter folder in PEFT's format, or a run's folder.
        out: folder to write; it does not exist, or is empty.
        base: base model, where it differs from the adapter's record.

    Raises:
        InputError: vLLM refuses the adapter, or the output exists.
    """
    staging = Staging(out, None)
    trained = read_trained(adapter, "--adapter")
    if trained.adapter is None:
        raise InputError(f"--adapter {adapter}: it is a base model: name an adapter's folder")
    record = read_adapter(trained.adapter, "--adapter")
    config = adapter_config(trained.adapter)
    check_served(config)
    name = out.name
    staging.begin()
    try:
        shutil.copytree(Path(trained.adapter).expanduser(), staging.folder, dirs_exist_ok=True)
        decision = json.dumps(decision_file(record, name), indent=2) + "\n"
        (staging.folder / "decision.json").write_text(decision, encoding="utf-8")
        command = vllm_command(base or base_of(trained.adapter), out, name, config)
        staging.finish({"to": "vllm", "adapter": trained.adapter, "command": command, "verification": None})
    except BaseException:
        staging.discard()
        raise
    return command
