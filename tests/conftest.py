"""Where the tests find real data, and what they share."""

import gc
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from quick import undrawn, unsynced
from tokenizer_families import FAMILIES, family

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before anything imports huggingface_hub: tests use no network
# which reads it once, and gives its log the stream of that moment: not in a test that takes either away
import huggingface_hub.constants

assert huggingface_hub.constants.HF_HUB_OFFLINE

SHARED = Path(__file__).parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: a worker takes whole files, and none should begin a long one at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish() -> None:
    """Keeps the garbage collector off what was imported and collected: it would look through all of it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def cache_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The session's cache folder: no test reads or writes the user's. One for all workers, so the demo's base is
    built once."""
    root = tmp_path_factory.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "cache"
    root.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDQLORA_CACHE", str(root))
        yield root


@pytest.fixture(scope="session")
def pubmedqa_file() -> Path:
    """The real `ori_pqal.json`."""
    path = Path(os.environ.get("MEDQLORA_PUBMEDQA") or SHARED / "data" / "pubmedqa" / "ori_pqal.json")
    if not path.is_file():
        pytest.skip("no PubMedQA here: set MEDQLORA_PUBMEDQA to ori_pqal.json")
    return path


@pytest.fixture(scope="session")
def official_test_ids(pubmedqa_file: Path) -> list[str]:
    """The PMIDs of the official ground truth, which lies beside `ori_pqal.json`."""
    path = pubmedqa_file.with_name("test_ground_truth.json")
    if not path.is_file():
        pytest.skip("no test_ground_truth.json beside PubMedQA's file")
    return list(json.loads(path.read_text("utf-8")))


@pytest.fixture(scope="session")
def llama3_tokenizer() -> Any:
    """The real Llama-3 tokenizer (without chat template; this copy adds no BOS of itself)."""
    path = Path(os.environ.get("MEDQLORA_LLAMA3_TOKENIZER") or SHARED / "tokenizers" / "llama3")
    if not path.is_dir():
        pytest.skip("no Llama-3 tokenizer here: set MEDQLORA_LLAMA3_TOKENIZER to its folder")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


@pytest.fixture(scope="session")
def cases() -> Path:
    """The folder of small inputs from bug reports: `data/`, `models/`, `adapters/` and `generated_answers.jsonl`."""
    path = Path(os.environ.get("MEDQLORA_CASES") or SHARED / "cases")
    if not path.is_dir():
        pytest.skip("no cases here: set MEDQLORA_CASES to their folder")
    return path


@pytest.fixture(params=FAMILIES)
def any_tokenizer(request: pytest.FixtureRequest) -> Any:
    """Each family's tokenizer in turn; not to be changed."""
    return family(request.param)


@pytest.fixture(autouse=True, scope="session")
def no_power_cut() -> Iterator[None]:
    """A run syncs some 40 files, and waits for each; no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        unsynced(patch)
        yield


@pytest.fixture(autouse=True, scope="module")
def pictures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Figures are drawn for the modules that look at them alone."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.parent.name != "evaluation" and not getattr(request.module, "DRAWN", False):
            undrawn(patch)
        yield


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Products this small are faster on one thread, by far so where other processes use the cores too."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family → the folder of a tiny random base of it."""
    from tiny import FAMILIES, build_base

    root = tmp_path_factory.mktemp("bases")
    return {name: build_base(root / name, name) for name in FAMILIES}
