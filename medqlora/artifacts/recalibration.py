"""A new calibration in a finished adapter folder, with its record, card and manifest."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from medqlora.artifacts.adapter_record import AdapterRecord
from medqlora.artifacts.card import model_card
from medqlora.models.adapters import RECORD_FILE, read_adapter
from medqlora.utils.manifests import put_in_place, write_folder_manifest


def recalibrate(folder: Path, calibration: Mapping[str, object], origin: Mapping[str, object]) -> bool:
    """Replaces the calibration of an adapter; False where the adapter has it already.

    The folder is copied, changed and put in place at once: it is whole at every moment.

    Args:
        folder: the adapter's.
        calibration: see `medqlora.inference.Calibration.to_json`.
        origin: what it was fitted on, for the record: `calibrated_on`.

    Raises:
        InputError: the folder is damaged.
        OSError: it can't be written.
    """
    record = read_adapter(str(folder))
    if record.get("calibration") == calibration and record.get("calibrated_on") == origin:
        return False
    changed = {**record, "calibration": dict(calibration), "calibrated_on": dict(origin)}
    new, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("new", "old"))
    for path in (new, old):
        shutil.rmtree(path, ignore_errors=True)
    try:
        shutil.copytree(folder, new)
        (new / RECORD_FILE).write_text(json.dumps(changed, indent=2, default=str) + "\n", encoding="utf-8")
        (new / "README.md").write_text(model_card(cast(AdapterRecord, changed)), encoding="utf-8")
        write_folder_manifest(new)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        raise
    put_in_place(new, folder, old)
    shutil.rmtree(old, ignore_errors=True)
    return True
