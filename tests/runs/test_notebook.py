"""The notebook for Colab: all cells run on the path without a GPU, in a short form."""

import re
import shlex
import tempfile
from pathlib import Path

import nbformat
import pytest
from command_server import CommandServer
from import_path import import_path
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from medqlora.config.check import check_options
from medqlora.config.shipped import shipped_configs
from medqlora.config.words import CommandLine, with_config

FILE = Path(__file__).parents[2] / "examples" / "medqlora_colab.ipynb"
SHORT = (
    "--trainer.max_epochs 1 --data.train_samples 16 --data.batch_size 4 --data.validation_samples 8 "
    "--data.test_samples 12 --model.max_new_tokens 4"
)


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(FILE, as_version=4)


def test_it_is_stored_without_outputs(notebook: nbformat.NotebookNode) -> None:
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


def test_every_configuration_that_it_names_is_shipped(notebook: nbformat.NotebookNode) -> None:
    named = set(re.findall(r"--config ([a-z_0-9]+)", "\n".join(cell.source for cell in notebook.cells)))
    assert {"demo", "qlora", "colab_t4", "no_unsloth", "large_gpu"} == named
    assert named <= shipped_configs().keys()


@pytest.mark.parametrize("gpu", ["T4", "L4", "A100-SXM4-40GB"])
def test_the_configuration_of_each_gpu_is_one_that_fit_takes(
    gpu: str, notebook: nbformat.NotebookNode
) -> None:
    chosen = notebook.cells[2].source.partition("if not GPU:")[2].partition("SHORT =")[0]
    names = {"GPU": f"NVIDIA {gpu}"}
    exec(f"if not GPU:{chosen}", names)  # the notebook's own lines
    words = with_config(shlex.split(names["CONFIG"]))
    check_options("fit", words)
    line = CommandLine.parse(words)
    assert str(line.value("data.train_samples")) == "200"
    assert str(line.value("trainer.max_epochs")) == "3"
    assert line.value("trainer.precision") == ("16-mixed" if gpu == "T4" else "bf16-mixed")
    assert line.class_path("model.backend") == "medqlora.models.Transformers"


@pytest.mark.slow
def test_all_cells_run_without_a_gpu(
    notebook: nbformat.NotebookNode, cache_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="nb") as folder:  # a socket's path has 107 letters at most
        server = CommandServer(Path(folder))
        monkeypatch.setenv("PATH", server.path())
        monkeypatch.setenv("PYTHONPATH", import_path())
        monkeypatch.setenv("MEDQLORA_NOTEBOOK_OPTIONS", SHORT)
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        try:
            NotebookClient(
                notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
            ).execute()
        except CellExecutionError as error:
            pytest.fail(f"{error}\nafter {server.calls[-1:]}")
        finally:
            server.close()
    done = {words[0]: text for words, code, text in server.calls}
    assert [(words[0], code) for words, code, _ in server.calls if code] == []
    assert list(done) == ["data", "plan", "fit", "test", "predict", "merge", "export"]
    assert "95% interval" in done["test"]
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = "".join(str(output.get("data", {}).get("text/html", "")) for output in outputs)
    assert shown.count("<iframe") >= 3  # the look, the test report, what was merged
    assert any("image/png" in output.get("data", {}) for output in outputs)  # the curves
    assert (tmp_path / "model.gguf").is_file()
    assert (tmp_path / "merged" / "config.json").is_file()
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 5
