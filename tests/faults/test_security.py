"""Files from strangers: whatever a checkpoint, an adapter, a base or a configuration asks for, no code of theirs runs.

Each of them would leave a mark if it did. `trust_remote_code` has no option at all, neither in a configuration nor on
the command line: that is stricter than an option for the command line alone, and the tests hold it.
"""

import json
import os
import pickle
import re
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import options, run
from strangers import Refused, changed, harmful_base, harmful_file

from medqlora.artifacts.checkpoint_files import write_checkpoint
from medqlora.errors import InputError
from medqlora.utils.digests import file_digest
from medqlora.utils.manifests import (
    FOLDER_FILE,
    check_folder,
    write_folder_manifest,
)

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "configs" / "demo.yaml")
#: files that are not to be opened, and those that were
WATCHED: set[str] = set()
OPENED: list[str] = []


def _watch(event: str, given: tuple[Any, ...]) -> None:
    if event == "open" and WATCHED and isinstance(given[0], (str, bytes)):
        path = os.path.realpath(os.fsdecode(given[0]))
        if path in WATCHED:
            OPENED.append(path)


sys.addaudithook(_watch)  # the interpreter's own word, by whichever module a file is opened


@pytest.fixture(scope="module")
def finished(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data and the one finished run of a small training."""
    folder = tmp_path_factory.mktemp("finished")
    run("fit", [*options(tiny_bases["llama"], folder), "--trainer.max_steps=6", "--trainer.max_epochs=1"])
    return folder


@pytest.fixture
def words(finished: Path, tiny_bases: dict[str, Path], tmp_path: Path) -> list[str]:
    return [*options(tiny_bases["llama"], finished), f"--trainer.default_root_dir={tmp_path}"]


def test_the_files_of_these_tests_do_leave_the_mark_where_pickles_are_run(tmp_path: Path) -> None:
    for kind in ("pickle", "zip", "legacy"):
        made = harmful_file(tmp_path / kind, kind, tmp_path / f"harmed by {kind}")
        if kind == "pickle":
            pickle.loads(made.read_bytes())
        else:
            torch.load(made, weights_only=False)
        assert (tmp_path / f"harmed by {kind}").exists()


# ---- checkpoints -------------------------------------------------------------------------------------


@pytest.fixture
def own_run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run's folder, to be spoiled."""
    return shutil.copytree(finished / "lightning_logs" / "version_0", tmp_path / "logs" / "version_0")


@pytest.mark.parametrize("signed", [True, False], ids=["with a manifest that fits", "alone"])
@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy"])
def test_a_malicious_checkpoint_is_refused_by_every_command(
    refused: Refused, words: list[str], own_run: Path, mark: Path, kind: str, signed: bool
) -> None:
    path = harmful_file(own_run / "checkpoints" / "evil.ckpt", kind, mark)
    if signed:
        entry = {"file": path.name, **file_digest(path), "step": 9}
        path.with_name(f"{path.name}.json").write_text(json.dumps(entry))
    for command in ("fit", "validate", "test", "predict"):
        assert "is not a whole checkpoint" in refused(command, *words, f"--ckpt_path={path}")
    assert "is not a whole checkpoint" in refused("export", f"--ckpt_path={path}")


@pytest.mark.parametrize(
    "name", ["../last.ckpt", "/etc/passwd", "checkpoints/last.ckpt", "", None, ["last.ckpt"]]
)
def test_a_checkpoints_manifest_may_not_name_another_file(
    refused: Refused, words: list[str], own_run: Path, name: Any
) -> None:
    path = own_run / "checkpoints" / "last.ckpt"
    manifest = path.with_name("last.ckpt.json")
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "file": name}))
    assert "is of another file" in refused("test", *words, f"--ckpt_path={path}")


def test_a_checkpoint_that_calls_files_outside_its_own_does_not_get_them_removed(
    words: list[str], own_run: Path, tmp_path: Path
) -> None:
    path, other = own_run / "checkpoints" / "last.ckpt", tmp_path / "diary.txt"
    other.write_text("dear diary")
    saved = torch.load(path, weights_only=True)
    (state,) = (one for one in saved["callbacks"].values() if "best_k_models" in one)
    best = torch.tensor(-1.0)  # the worst there can be: any validation removes it
    state.update(best_k_models={str(other): best}, best_model_path=str(other), kth_best_model_path=str(other))
    state.update(last_model_path=str(other), dirpath=str(tmp_path), kth_value=best, best_model_score=best)
    write_checkpoint(saved, path)
    run("fit", [*words, f"--ckpt_path={path}", "--trainer.max_epochs=2", "--trainer.max_steps=-1"])
    assert other.read_text() == "dear diary"
    assert [one.name for one in tmp_path.glob("*.ckpt")] == []


# ---- adapters ----------------------------------------------------------------------------------------


@pytest.fixture
def adapter(own_run: Path) -> Path:
    return own_run / "adapter"


def signed(adapter: Path) -> None:
    """A stranger's manifest fits the stranger's files."""
    write_folder_manifest(adapter)


def pickled_weights(adapter: Path, mark: Path) -> None:
    harmful_file(adapter / "adapter_model.bin", "zip", mark)
    (adapter / "adapter_model.safetensors").unlink()
    signed(adapter)


def pickled_weights_beside(adapter: Path, mark: Path) -> None:
    harmful_file(adapter / "adapter_model.bin", "legacy", mark)
    signed(adapter)


def pickle_by_the_name_of_safetensors(adapter: Path, mark: Path) -> None:
    harmful_file(adapter / "adapter_model.safetensors", "zip", mark)
    signed(adapter)


def header_longer_than_the_file(adapter: Path, mark: Path) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}" * 50)
    signed(adapter)


def tensor_past_the_end(adapter: Path, mark: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (adapter / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"1234")
    signed(adapter)


def module_of_its_own(adapter: Path, mark: Path) -> None:
    mapping = {"base_model_class": "Model", "parent_library": "stranger"}
    changed(adapter / "adapter_config.json", auto_mapping=mapping, task_type=None)
    signed(adapter)


def transformers_code_of_its_own(adapter: Path, mark: Path) -> None:
    changed(adapter / "adapter_config.json", auto_map={"AutoModelForCausalLM": "stranger.Model"})
    signed(adapter)


def megatron_of_its_own(adapter: Path, mark: Path) -> None:
    changed(adapter / "adapter_config.json", megatron_config={"a": 1}, megatron_core="stranger")
    signed(adapter)


def another_kind_of_adapter(adapter: Path, mark: Path) -> None:
    changed(adapter / "adapter_config.json", peft_type="XLORA", adapters={"0": "/somewhere/else"})
    signed(adapter)


def config_that_is_a_list(adapter: Path, mark: Path) -> None:
    (adapter / "adapter_config.json").write_text("[]")
    signed(adapter)


def nested_without_end(adapter: Path, mark: Path) -> None:
    (adapter / "adapter_config.json").write_text("[" * 100_000)
    signed(adapter)


def record_of_another_shape(adapter: Path, mark: Path) -> None:
    changed(adapter / "medqlora.json", prompt=["medical"])
    signed(adapter)


def record_with(key: str, value: Any) -> Callable[[Path, Path], None]:
    def spoil(adapter: Path, mark: Path) -> None:
        changed(adapter / "medqlora.json", **{key: value})
        signed(adapter)

    spoil.__name__ = f"record with {key} {value}"
    return spoil


def threshold_changed_afterwards(adapter: Path, mark: Path) -> None:
    changed(adapter / "medqlora.json", calibration={"threshold": 0.0})


def manifest_that_leaves(name: str) -> Callable[[Path, Path], None]:
    def spoil(adapter: Path, mark: Path) -> None:
        manifest = json.loads((adapter / FOLDER_FILE).read_text())
        manifest["files"][name.format(outside=adapter.parent / "config.yaml")] = file_digest(
            adapter.parent / "config.yaml"
        )
        (adapter / FOLDER_FILE).write_text(json.dumps(manifest))

    spoil.__name__ = f"manifest that names {name}"
    return spoil


def linked(name: str) -> Callable[[Path, Path], None]:
    """The file itself lies beside the adapter's folder; its bytes are right."""

    def spoil(adapter: Path, mark: Path) -> None:
        (adapter / name).rename(adapter.parent / name)
        (adapter / name).symlink_to(adapter.parent / name)

    spoil.__name__ = f"link to {name} outside"
    return spoil


def manifest_nested_without_end(adapter: Path, mark: Path) -> None:
    (adapter / FOLDER_FILE).write_text("[" * 100_000)


SPOILT = [
    (pickled_weights, "adapter_model.bin, a pickle"),
    (pickled_weights_beside, "adapter_model.bin, a pickle"),
    (pickle_by_the_name_of_safetensors, "is not a whole safetensors file"),
    (header_longer_than_the_file, "is not a whole safetensors file"),
    (tensor_past_the_end, "is not a whole safetensors file"),
    (module_of_its_own, "auto_mapping asks for code of its own"),
    (transformers_code_of_its_own, "auto_map asks for code of its own"),
    (megatron_of_its_own, "megatron_config asks for code of its own"),
    (another_kind_of_adapter, "peft_type is 'XLORA': give a LoRA adapter"),
    (config_that_is_a_list, "is not a JSON object"),
    (nested_without_end, "is not a JSON object"),
    (record_of_another_shape, "prompt is no object"),
    (record_with("labels", 7), "labels is no list of texts"),
    (record_with("labels", [1, 2]), "labels is no list of texts"),
    (record_with("dev_ids", [["x"]]), "dev_ids is no list of texts"),
    (record_with("train_ids", [{}]), "train_ids is no list of texts"),
    (record_with("data", {"max_prompt_tokens": "many"}), "data.max_prompt_tokens is no whole number"),
    (threshold_changed_afterwards, "medqlora.json is damaged"),
    (manifest_that_leaves("../config.yaml"), "names '../config.yaml', which is no file of its folder"),
    (manifest_that_leaves("{outside}"), "which is no file of its folder"),
    (linked("adapter_model.safetensors"), "is a link out of its folder"),
    (linked("adapter_config.json"), "is a link out of its folder"),
    (linked("medqlora.json"), "is a link out of its folder"),
    (linked("tokenizer.json"), "is a link out of its folder"),
    (linked(FOLDER_FILE), "is a link out of its folder"),
    (manifest_nested_without_end, "can't be read: the folder is damaged"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILT, ids=[spoil.__name__ for spoil, _ in SPOILT])
def test_a_malicious_adapter_is_refused_before_anything_of_it_is_used(
    refused: Refused,
    words: list[str],
    adapter: Path,
    mark: Path,
    stranger: str,
    spoil: Callable[[Path, Path], None],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil(adapter, mark)
    outside = {os.path.realpath(one) for one in adapter.parent.iterdir() if one.is_file()}
    monkeypatch.setattr(sys.modules[__name__], "WATCHED", outside)
    OPENED.clear()
    assert message in refused("test", *words, f"--model.adapter={adapter}")
    assert message in refused("predict", *words, f"--model.adapter={adapter}")
    assert message in refused("ask", "Does it help?", f"--adapter={adapter}", "--device=cpu")
    assert OPENED == []


def test_a_file_outside_is_seen_when_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "link").symlink_to("secret")
    monkeypatch.setattr(sys.modules[__name__], "WATCHED", {os.path.realpath(tmp_path / "secret")})
    OPENED.clear()
    (tmp_path / "link").read_text()
    assert len(OPENED) == 1


def test_an_adapter_in_the_hubs_cache_is_links_and_is_taken(adapter: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(adapter.iterdir())):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    check_folder(snapshot, "--model.adapter")
    from medqlora.models.adapters import read_adapter

    assert read_adapter(str(snapshot)) == read_adapter(str(adapter))
    # its blobs, and nothing else: a folder may have the name of the cache's
    secret = tmp_path / "models--a--b" / "secret"
    (snapshot / "README.md").resolve().rename(secret)
    (snapshot / "README.md").unlink()
    (snapshot / "README.md").symlink_to("../../secret")
    with pytest.raises(InputError, match=r"README\.md is a link out of its folder"):
        check_folder(snapshot, "--model.adapter")


def test_a_base_that_only_the_adapter_names_brings_no_code(
    refused: Refused, adapter: Path, tmp_path: Path, tiny_bases: dict[str, Path], stranger: str, mark: Path
) -> None:
    base = harmful_base(tiny_bases["llama"], tmp_path / "base", mark, model_type="strange")
    changed(adapter / "adapter_config.json", base_model_name_or_path=str(base))
    (adapter / "medqlora.json").unlink()
    signed(adapter)
    line = refused("ask", "Does it help?", f"--adapter={adapter}", "--device=cpu")
    assert "brings Python code of its own (auto_map), which is never run" in line


# ---- configurations ----------------------------------------------------------------------------------


def test_the_configuration_of_a_strangers_run_is_held_to_the_same(
    refused: Refused, own_run: Path, mark: Path
) -> None:
    config = own_run / "config.yaml"
    text = config.read_text(encoding="utf-8")
    system = f"optimizer: {{class_path: os.system, init_args: {{command: touch {mark}}}}}"
    changed_text = re.sub(r"optimizer: adamw_8bit", system, text)
    assert changed_text != text
    config.write_text(changed_text, encoding="utf-8")
    line = refused("export", f"--ckpt_path={own_run / 'checkpoints' / 'last.ckpt'}")
    assert line.startswith("--model.optimizer os.system: it is no subclass of torch.optim")
