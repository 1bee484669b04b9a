"""What stands on a GPTQ or AWQ base: merging, answering, planned bytes, sharding, an identity, and the command line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from fused_models import CPU
from int4_bases import LAYOUTS, Twins, make_int4
from merge_models import live_model, saved
from safetensors.torch import load_file

from medqlora.artifacts.merge.live_model import LiveBase, weights_by_tensor
from medqlora.artifacts.merge.lora_update import read_update
from medqlora.artifacts.merge.merging import MergeOptions, merge_adapter
from medqlora.artifacts.merge.shards import ShardedFolder
from medqlora.config.check import check_options
from medqlora.config.stored_quantization import int4_layout, read_stored
from medqlora.data.encoding.encode import encode_all
from medqlora.distributed.processes import sharding_groups
from medqlora.errors import InputError
from medqlora.inference.predictor import Predictor
from medqlora.models import hub
from medqlora.models.sharded import share_base
from medqlora.planner import Setting, Shape, plan
from medqlora.records import Record

RECORDS = [
    Record(f"q{number}", f"Does it help {number}?", labels=("yes", "no", "maybe")) for number in range(3)
]
USED = ("gptq-act-order", "awq")


@pytest.fixture(scope="module")
def bases(int4_twins: Twins) -> dict[str, tuple[Path, Path]]:
    return int4_twins("llama", USED)


@pytest.mark.parametrize("layout", USED)
def test_a_merge_adds_the_update_to_the_dequantized_weights(
    layout: str, bases: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    base, twin = bases[layout]
    method: Any = LAYOUTS[layout][0]
    adapter = saved(live_model(base, method), tmp_path / "adapter")
    weights = weights_by_tensor(LiveBase(str(base), None, method, True, torch.float32))
    assert weights is not None
    folder = ShardedFolder(tmp_path / "merged", {})
    merge_adapter(weights, read_update(adapter), folder, MergeOptions("float32"))
    folder.finish()
    merged: dict[str, torch.Tensor] = {}
    for file in (tmp_path / "merged").glob("*.safetensors"):
        merged |= load_file(file)
    dense, factors = load_file(twin / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    assert merged.keys() == dense.keys()
    for name, tensor in dense.items():
        expected = tensor.double()
        if name.endswith("_proj.weight"):
            layer = f"base_model.model.{name.removesuffix('.weight')}"
            a, b = (factors[f"{layer}.lora_{side}.weight"].double() for side in "AB")
            expected = expected + 6 / 4 * b @ a
        assert torch.allclose(merged[name].double(), expected, rtol=1e-6, atol=1e-7), name


@pytest.mark.parametrize("layout", USED)
@torch.no_grad()
def test_a_bare_base_answers_as_its_dequantized_weights(
    layout: str, bases: dict[str, tuple[Path, Path]]
) -> None:
    from transformers import AutoModelForCausalLM

    base, twin = bases[layout]
    predictor = Predictor.load(base, device="cpu", max_new_tokens=4)  # the quantization is that of its files
    dense = AutoModelForCausalLM.from_pretrained(twin, dtype=torch.float32)
    examples = encode_all(
        RECORDS,
        predictor.prompt,
        predictor.tokenizer,
        predictor.max_prompt_tokens,
        progress=False,
        cached=False,
    )
    for example, prediction in zip(examples, predictor.predict(RECORDS), strict=True):
        for label, found in zip(example.labels, prediction.logprobs, strict=True):
            logits = dense(torch.tensor([[*example.prompt, *label]])).logits[0, len(example.prompt) - 1 : -1]
            expected = logits.log_softmax(-1).gather(1, torch.tensor(label)[:, None]).sum()
            assert found == pytest.approx(float(expected), abs=1e-4)
    assert predictor.answer("Does it help?").decision in ("yes", "no", "maybe")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_loaded_base_has_the_planned_bytes(
    layout: str, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    base, _ = make_int4(tiny_bases["llama"], tmp_path, layout)
    method: Any = LAYOUTS[layout][0]
    model = live_model(base, method)
    stored = read_stored(base)
    assert stored is not None
    read = int4_layout(stored, str(base))
    setting = Setting(quantization=method, group_size=read.group_size, act_order=read.act_order, width=4, r=4)
    tensors = [*model.parameters(), *(one for name, one in model.named_buffers() if ".state." in name)]
    planned = plan(Shape.of(model.config), setting).total("load")
    assert planned == sum(tensor.nbytes for tensor in tensors)


def test_a_sharded_layer_is_the_layer_again_once_it_is_gathered(bases: dict[str, tuple[Path, Path]]) -> None:
    model = live_model(bases["awq"][0], "awq")
    linear = model.get_base_model().model.layers[0].mlp.down_proj.base_layer
    expected = linear.dequantized(torch.float32)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        shared = share_base(model, CPU, sharding_groups("cpu", 1)[0], None)
        assert linear.weight.untyped_storage().size() == linear.state.scales.untyped_storage().size() == 0
        shared.begin(backward=False)
        with shared.use(0):
            assert torch.equal(linear.dequantized(torch.float32), expected)
        shared.join()
    finally:
        dist.destroy_process_group()


def test_the_identity_tells_packed_bytes_and_their_reading_apart(
    bases: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    base = Path(shutil.copytree(bases["gptq-act-order"][0], tmp_path / "base"))
    first = hub.identity(str(base))
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"]["checkpoint_format"] = "gptq_v2"  # the same bytes, other zero points
    (base / "config.json").write_text(json.dumps(config))
    hub.clear_caches()
    assert hub.identity(str(base)) != first


def test_the_command_line_refuses_it_before_torch_is_imported(bases: dict[str, tuple[Path, Path]]) -> None:
    words = ["fit", "--model.backend=medqlora.models.Transformers", f"--model.backend.base={bases['awq'][0]}"]
    words += ["--data.source=medqlora.data.SyntheticTrials"]
    with pytest.raises(
        InputError, match=r"quantized already, as awq: pass --model\.backend\.quantization awq"
    ):
        check_options(words[0], words[1:])
    check_options(words[0], [*words[1:], "--model.backend.quantization=awq"])
    unsloth = [words[1].replace("Transformers", "Unsloth"), *words[2:]]
    with pytest.raises(InputError, match=r"as awq: add --config configs/no_unsloth\.yaml --model\.backend"):
        check_options(words[0], unsloth)
    code = "import sys, medqlora.config.check; print('torch' in sys.modules or 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
