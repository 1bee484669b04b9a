"""Which GPU each fold of a cross-validation gets."""

import os

import pytest

from medqlora.commands import fold_training
from medqlora.errors import InputError

ON_GPUS = ["--trainer.accelerator=gpu"]


def test_folds_share_a_gpu_that_is_named_several_times_and_the_first_process_sees_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, 0,1")
    named = fold_training._named_gpus()
    assert fold_training._gpus(3, ON_GPUS, named) == ["1", "0", "1"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,0"
    with pytest.raises(InputError, match="--folds_at_once 4: there are 3 GPUs here"):
        fold_training._gpus(4, ON_GPUS, named)


def test_gpus_that_are_named_once_and_an_empty_list_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, named in (("GPU-1f,GPU-2", ["GPU-1f", "GPU-2"]), ("", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        assert fold_training._named_gpus() == named
        assert os.environ["CUDA_VISIBLE_DEVICES"] == given
    assert fold_training._gpus(2, ["--trainer.accelerator=cpu"], []) == [None, None]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert fold_training._named_gpus() is None
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
