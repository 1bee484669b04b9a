"""`medqlora doctor` runs attention and bitsandbytes, and finds out what gives wrong values."""

from typing import Any

import pytest
import torch

from medqlora.commands.diagnosis import selftests
from medqlora.commands.diagnosis.selftests import attention, bitsandbytes
from medqlora.commands.diagnosis.versions import installed


@pytest.mark.skipif(installed("flash-attn") is not None, reason="flash-attn is installed")
def test_a_configuration_that_needs_flash_attn_is_told_that_it_isnt_installed() -> None:
    cpu = torch.device("cpu")
    for wanted, state in (("flash_attention_2", "wrong"), ("auto", "note"), (None, "note")):
        found = {one.name: one for one in attention(cpu, wanted)}
        assert found["flash-attn"].state == state
        assert found["SDPA"].state == "ok"


def test_the_error_that_nf4_is_allowed_is_half_the_widest_gap_of_its_codes() -> None:
    from medqlora.models.quantization import import_bitsandbytes

    codes = import_bitsandbytes().functional.get_4bit_type("nf4", device="cpu").sort().values
    assert float(codes.diff().max()) / 2 == pytest.approx(selftests._NF4_ERROR, abs=1e-6)


def test_a_bitsandbytes_that_gives_wrong_values_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from medqlora.models.quantization import import_bitsandbytes

    module, cpu = import_bitsandbytes(), torch.device("cpu")
    assert [one.state for one in bitsandbytes(cpu)] == ["ok", "ok"]
    right = module.functional.dequantize_4bit
    with monkeypatch.context() as patch:
        patch.setattr(module.functional, "dequantize_4bit", lambda *given: right(*given).flip(0))
        nf4, adamw = bitsandbytes(cpu)
        assert (nf4.state, adamw.state) == ("wrong", "ok")
    with monkeypatch.context() as patch:
        patch.setattr(module.functional, "dequantize_4bit", lambda *given: right(*given) * torch.nan)
        assert bitsandbytes(cpu)[0].state == "wrong"
        assert bitsandbytes(cpu, needed=False)[0].state == "note"
    for broken in (torch.optim.SGD, torch.optim.AdamW):  # another step; the right one, with 32-bit state
        with monkeypatch.context() as patch:
            patch.setattr(module.optim, "AdamW8bit", broken)
            nf4, adamw = bitsandbytes(cpu)
            assert (nf4.state, adamw.state) == ("ok", "wrong")


def test_attention_that_sees_what_it_must_not_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = torch.nn.functional.scaled_dot_product_attention

    def leaks(*given: Any, is_causal: bool = False, **options: Any) -> torch.Tensor:
        return attend(*given, is_causal=False, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", leaks)
    sdpa = attention(torch.device("cpu"))[0]
    assert (sdpa.name, sdpa.state) == ("SDPA", "wrong")
