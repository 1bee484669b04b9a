"""What one process does about another that it waits for."""

from datetime import timedelta

import pytest
import torch

from medqlora.errors import InputError
from medqlora.utils.distributed_errors import LostProcessError, patience, together


def test_the_patience_is_half_an_hour_or_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDQLORA_PATIENCE_S", raising=False)
    assert patience() == timedelta(minutes=30)
    monkeypatch.setenv("MEDQLORA_PATIENCE_S", "90")
    assert patience() == timedelta(seconds=90)


@pytest.mark.parametrize("given", ["", "0", "-5", "1.5", "10 min", "604801", "9" * 30, "٣"])
def test_a_patience_that_is_no_number_of_seconds_is_said_in_one_line(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDQLORA_PATIENCE_S", given)
    with pytest.raises(
        InputError, match=r"MEDQLORA_PATIENCE_S=.*: it is the whole seconds, 1 to 604800"
    ) as error:
        patience()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("[…/gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer"),
            "has ended",
        ),
        (RuntimeError("Connection closed by peer [127.0.0.1]:1929"), "has ended"),
        (torch.distributed.DistNetworkError("failed to recv, got 0 bytes"), "has ended"),
        (
            RuntimeError("[…/gloo/…/unbound_buffer.cc:78] Timed out waiting 15000ms for recv"),
            "has not answered",
        ),
        (
            torch.distributed.DistBackendError(
                "ncclRemoteError: A call failed possibly due to a network error"
            ),
            "has ended",
        ),
        (torch.distributed.DistStoreError("wait timeout after 15000ms"), "has not answered"),
    ],
)
def test_what_the_network_says_of_a_lost_process_becomes_a_line(error: RuntimeError, said: str) -> None:
    with pytest.raises(LostProcessError, match=f"another process {said}") as found, together():
        raise error
    assert found.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes differ"),
        RuntimeError(
            "[enforce fail at …/gloo/transport/tcp/pair.cc:446] op.preamble.length <= op.nbytes. 8 vs 4"
        ),
        torch.distributed.DistBackendError("ncclUnhandledCudaError: Failed to CUDA calloc: out of memory"),
    ],
)
def test_any_other_error_beside_a_message_stays_what_it_is(error: RuntimeError) -> None:
    with pytest.raises(RuntimeError) as found, together():
        raise error
    assert found.value is error
