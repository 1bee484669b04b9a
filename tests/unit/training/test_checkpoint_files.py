"""Checkpoints and adapters on the disk: at every moment a whole one, a damaged one named, a full disk survived."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import options, run
from warm_process import WarmProgram

from medqlora.artifacts.checkpoint_files import (
    newest_whole,
    problem,
    read_checkpoint,
    remove_checkpoint,
    step_of,
    write_checkpoint,
)
from medqlora.callbacks import CheckpointFiles
from medqlora.errors import InputError
from medqlora.utils import manifests
from medqlora.utils.manifests import (
    FOLDER_FILE,
    check_folder,
    put_in_place,
    write_folder_manifest,
)


def state(step: int) -> dict[str, Any]:
    return {"global_step": step, "epoch": 0, "weights": torch.full((64,), float(step))}


def saved(path: Path, step: int) -> Path:
    write_checkpoint(state(step), path)
    return path


def test_the_manifest_says_what_the_file_is(tmp_path: Path) -> None:
    (tmp_path / ".last.ckpt.1.part").write_bytes(b"what a killed process left")
    saved(tmp_path / "last.ckpt", 2)
    path = saved(tmp_path / "last.ckpt", 3)
    entry = json.loads((tmp_path / "last.ckpt.json").read_text())
    assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (entry["file"], entry["bytes"], entry["step"]) == ("last.ckpt", path.stat().st_size, 3)
    assert "replaces" not in entry
    assert torch.equal(torch.load(path, weights_only=True)["weights"], state(3)["weights"])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["last.ckpt", "last.ckpt.json"]


def test_a_save_that_ends_after_any_of_its_calls_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files as they are at each rename, flush, unlink and open of a save are what a crash would leave."""
    path, shots = saved(tmp_path / "run" / "last.ckpt", 1), tmp_path / "shots"

    def watched(module: Any, name: str, function: Any) -> None:
        def snapshot(*args: Any, **kwargs: Any) -> Any:
            shutil.copytree(path.parent, shots / f"{len(list(shots.glob('*'))):03}_{name}")
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, snapshot)

    shots.mkdir()
    with monkeypatch.context():
        watched(os, "fsync", os.fsync)
        watched(Path, "replace", Path.replace)
        saved(path, 2)
    monkeypatch.undo()
    steps = []
    for shot in sorted(shots.iterdir()):
        found = newest_whole(shot)
        assert found == shot / "last.ckpt", shot.name
        steps.append(read_checkpoint(found)["global_step"])
        assert step_of(found) == steps[-1]
        # the next save finds its way from there, and clears up
        saved(found, 7)
        assert read_checkpoint(found)["global_step"] == 7
        assert not list(shot.glob(".last.ckpt.*.part"))
    assert set(steps) == {1, 2}
    assert steps == sorted(steps)


@pytest.mark.parametrize("harm", ["cut", "flipped", "longer", "empty"])
def test_a_damaged_checkpoint_is_named_with_the_newest_whole_one(tmp_path: Path, harm: str) -> None:
    for step in (1, 2):
        saved(tmp_path / f"epoch0-step{step}.ckpt", step)
    path = saved(tmp_path / "last.ckpt", 3)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    harmed = {"cut": whole[:-9], "flipped": whole, "longer": whole + b"x", "empty": b""}[harm]
    path.write_bytes(harmed)
    with pytest.raises(InputError) as error:
        read_checkpoint(path)
    assert str(path) in str(error.value)
    assert f"pass {tmp_path / 'epoch0-step2.ckpt'}" in str(error.value)
    assert newest_whole(tmp_path) == tmp_path / "epoch0-step2.ckpt"


def test_a_file_that_torch_cannot_read_is_not_named_as_its_own_remedy(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no checkpoint")
    assert problem(path) is None
    with pytest.raises(InputError, match="holds no whole one"):
        read_checkpoint(path)


@pytest.mark.parametrize("step", [1, 2])
def test_after_a_save_that_ended_on_its_way_the_next_one_still_knows_what_it_replaces(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "last.ckpt", 1)
    manifest = tmp_path / "last.ckpt.json"
    first, old = json.loads(manifest.read_text()), path.read_bytes()
    saved(path, 2)
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "replaces": first}))
    if step == 1:
        path.write_bytes(old)  # it ended before the checkpoint's own rename
    whole = Path.replace

    def ended(self: Path, target: Any) -> Path:
        if Path(target) == path:
            raise OSError(errno.EIO, "the disk is gone")
        return whole(self, target)

    monkeypatch.setattr(Path, "replace", ended)
    with pytest.raises(OSError, match="the disk is gone"):
        saved(path, 3)
    assert problem(path) is None
    assert step_of(path) == step


def test_without_a_manifest_the_archives_own_checksums_tell(tmp_path: Path) -> None:
    path = saved(tmp_path / "last.ckpt", 3)
    (tmp_path / "last.ckpt.json").unlink()
    assert problem(path) is None
    data = bytearray(path.read_bytes())
    at = data.index(torch.full((64,), 3.0).numpy().tobytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert problem(path) is not None


def test_a_removed_checkpoint_takes_its_manifest_along(tmp_path: Path) -> None:
    path = saved(tmp_path / "last.ckpt", 3)
    remove_checkpoint(path)
    assert list(tmp_path.iterdir()) == []


def test_no_pickled_code_is_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "harmed",))

    torch.save({"global_step": 1, "x": Harm()}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match="not a whole checkpoint"):
        CheckpointFiles().load_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", "", "c:\\x", 7])
def test_a_folders_manifest_may_not_name_a_file_outside(tmp_path: Path, name: Any) -> None:
    (tmp_path / "weights").write_text("x")
    write_folder_manifest(tmp_path)
    manifest = json.loads((tmp_path / FOLDER_FILE).read_text())
    entry = manifest["files"].pop("weights")
    if not isinstance(name, str):
        manifest["files"] = [[name, entry]]
    else:
        manifest["files"][name] = entry
    (tmp_path / FOLDER_FILE).write_text(json.dumps(manifest))
    with pytest.raises(InputError):
        check_folder(tmp_path, "--model.adapter")


def test_a_damaged_or_missing_file_of_a_folder_is_named(tmp_path: Path) -> None:
    for name in ("weights", "README.md"):
        (tmp_path / name).write_text("as it was")
    write_folder_manifest(tmp_path)
    check_folder(tmp_path, "--model.adapter")
    (tmp_path / "README.md").write_text("people write in here")
    check_folder(tmp_path, "--model.adapter")
    (tmp_path / "weights").write_text("as it is.")
    with pytest.raises(InputError, match="weights is damaged"):
        check_folder(tmp_path, "--model.adapter")
    (tmp_path / "weights").unlink()
    with pytest.raises(InputError, match="it is not there"):
        check_folder(tmp_path, "--model.adapter")


def test_a_file_of_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").write_text("as it was")
    write_folder_manifest(tmp_path)

    def denied(path: Path, *args: Any, **options: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    # root may read anything: what the system would say to others
    with monkeypatch.context() as patch:
        patch.setattr(manifests, "file_digest", denied)
        with pytest.raises(InputError, match=r"weights is damaged .it can't be read: Permission denied"):
            check_folder(tmp_path, "--model.adapter")


def test_a_folder_is_replaced_in_one_moment(tmp_path: Path) -> None:
    for name in ("new", "adapter"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "who").write_text(name)
    put_in_place(tmp_path / "new", tmp_path / "adapter", tmp_path / "old")
    assert (tmp_path / "adapter" / "who").read_text() == "new"
    assert (tmp_path / "old" / "who").read_text() == "adapter"
    assert not (tmp_path / "new").exists()


# ---- a disk that is full ---------------------------------------------------------------------------

_LIMITED = """
import resource, signal, sys
from pathlib import Path
import torch
from medqlora.artifacts.checkpoint_files import read_checkpoint, write_checkpoint
from medqlora.utils.files import disk_full
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
write_checkpoint({"global_step": 1, "x": torch.zeros(10)}, path)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
try:
    write_checkpoint({"global_step": 2, "x": torch.zeros(100_000)}, path)
except OSError as error:
    assert disk_full(error), error
    print("full", error.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert sorted(one.name for one in path.parent.iterdir()) == ["last.ckpt", "last.ckpt.json"]
assert read_checkpoint(path)["global_step"] == 1
write_checkpoint({"global_step": 3, "x": torch.zeros(100_000)}, path)
assert read_checkpoint(path)["global_step"] == 3
"""


def test_a_save_that_finds_no_room_keeps_the_older_checkpoint_and_the_next_one_works(tmp_path: Path) -> None:
    log, folder = tmp_path / "said.txt", tmp_path / "checkpoints"
    folder.mkdir()
    assert WarmProgram(_LIMITED, folder / "last.ckpt", log=log).wait() == 0, log.read_text()
    assert f"full {errno.EFBIG}\n" in log.read_text()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root mounts a small disk")
@pytest.mark.parametrize("what", ["checkpoints", "the whole run"])
def test_training_goes_on_over_a_full_disk_and_saves_when_there_is_room(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        words = [*options(tiny_bases["llama"], tmp_path), f"--checkpoint.dirpath={disk / 'checkpoints'}"]
        if what == "the whole run":  # its events and record too
            words[-1] = f"--trainer.default_root_dir={disk}"
        words += ["--checkpoint.every_n_train_steps=1", f"--trainer.callbacks={__name__}.Filler"]
        cli = run("fit", [*words, f"--trainer.callbacks.file={disk / 'ballast'}"])
        shown = capsys.readouterr().out
        assert "No room for a checkpoint" in shown
        assert "that of step 2 is kept" in shown
        assert cli.trainer.global_step == 12
        assert Filler.kept == 2
        (last,) = disk.rglob("last.ckpt")
        assert read_checkpoint(last)["global_step"] == 12
        assert not list(last.parent.glob(".*"))
    finally:
        subprocess.run(["umount", disk], check=True)


def _filler() -> type:
    from lightning.pytorch import Callback, LightningModule, Trainer

    from medqlora.callbacks.attached import saver_of

    class Filler(Callback):
        """Fills the disk after step 2, and makes room after step 8."""

        kept = 0

        def __init__(self, file: str) -> None:
            self.file = Path(file)

        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
            if trainer.global_step in (2, 8):
                _ = saver_of(trainer).newest_step  # the step's checkpoint is written, or found no room
            if trainer.global_step == 2:
                with self.file.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
                    while True:
                        stream.write(bytes(1 << 12))
            elif trainer.global_step == 8:
                (last,) = self.file.parent.rglob("last.ckpt")
                type(self).kept = read_checkpoint(last)["global_step"]
                self.file.unlink()

    Filler.__module__, Filler.__qualname__ = __name__, "Filler"
    return Filler


Filler: Any = _filler()


# ---- the export again ------------------------------------------------------------------------------


def test_export_writes_the_same_adapter_from_a_checkpoint_without_the_base(
    tiny_bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medqlora import cli
    from medqlora.models import Transformers

    words = [*options(tiny_bases["llama"], tmp_path), "--trainer.max_epochs=1", "--model.lora.use_dora=true"]
    done = run("fit", words)
    adapter = Path(done.trainer.log_dir) / "adapter"
    before = {path.name: path.read_bytes() for path in adapter.iterdir()}
    shutil.rmtree(adapter)

    def load(self: Any, **options: Any) -> Any:
        raise AssertionError("the base was loaded")

    monkeypatch.setattr(Transformers, "load", load)
    assert (
        cli.main(["export", "--ckpt_path", done.trainer.checkpoint_callback.best_model_path, "--debug"]) == 0
    )
    after = {path.name: path.read_bytes() for path in adapter.iterdir()}
    assert after.keys() == before.keys()
    changing = {"README.md", "medqlora.json", FOLDER_FILE, "adapter_config.json"}
    assert {name for name in before if before[name] != after[name]} <= changing
    for name in ("medqlora.json", "adapter_config.json"):
        old, new = json.loads(before[name]), json.loads(after[name])
        for one in (old, new):
            one.pop("created", None)
            if name == "adapter_config.json":
                one["target_modules"] = sorted(one["target_modules"])
        assert old == new
    check_folder(adapter, "--model.adapter")


def test_an_export_that_finds_no_room_does_not_end_the_training_and_says_how_to_repeat_it(
    tiny_bases: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = options(tiny_bases["llama"], tmp_path)
    from medqlora.artifacts import adapter_folder

    real = adapter_folder.write_folder_manifest

    def full(folder: Path) -> None:  # a device that is always full: the error is the system's own
        with Path("/dev/full").open("wb", buffering=0) as stream:
            stream.write(b"x")

    with monkeypatch.context() as patch:
        patch.setattr(adapter_folder, "write_folder_manifest", full)
        with pytest.raises(RuntimeError, match="the adapter found no room on the disk"):
            run("fit", words)
    assert real is adapter_folder.write_folder_manifest
    (best,) = map(str, tmp_path.rglob("epoch*.ckpt"))
    assert f"`medqlora export --ckpt_path {best}`" in capsys.readouterr().out
    folder = Path(best).parent.parent
    assert step_of(folder / "checkpoints" / "last.ckpt") == 12
    assert json.loads((folder / "run.json").read_text())["state"] == "failed"
    assert not list(folder.glob("*adapter*"))
    assert not list(folder.glob(".adapter*"))
    from medqlora import cli

    assert cli.main(["export", "--ckpt_path", best]) == 0
    check_folder(folder / "adapter", "--model.adapter")
