"""A killed run beside an undisturbed one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from hdm.errors import InputError
from hdm.train import TrainConfig
from hdm.train.trial import difference, kill_and_resume

pytestmark = pytest.mark.slow  # each starts a process that imports everything


def test_a_killed_run_ends_as_an_undisturbed_one(tiny: Callable[..., TrainConfig], tmp_path: Path) -> None:
    undisturbed, resumed = kill_and_resume(tiny(epochs=6), tmp_path, after_step=5)
    assert len(undisturbed.record["sessions"]) == 1
    assert len(resumed.record["sessions"]) == 2
    table = difference(undisturbed, resumed).set_index("of")
    assert (table["differ"] == 0).all() and (table["largest difference"] == 0).all()
    assert table.loc["weights", "numbers"] > 1000
    assert undisturbed.checkpoint.name == resumed.checkpoint.name  # they are named by their content

    # A single other digit is seen.
    weights = load_file(resumed.checkpoint)
    weights["final_layer.bias"][3] += 1e-6
    other = tmp_path / "other.safetensors"
    save_file(weights, other)
    epochs = resumed.epochs.copy()
    epochs.loc[2, "val_loss"] += 0.5
    table = difference(undisturbed, replace(resumed, checkpoint=other, epochs=pd.DataFrame(epochs))).set_index("of")
    assert table["differ"].tolist() == [1, 1]
    assert table.loc["history", "largest difference"] == pytest.approx(0.5)
    assert 0 < table.loc["weights", "largest difference"] < 2e-6


def test_a_process_that_ends_too_early_is_no_trial(tiny: Callable[..., TrainConfig], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ended before step 1000: give fewer steps"):
        kill_and_resume(tiny(epochs=1), tmp_path, after_step=1000)
    assert torch.get_num_threads() == 1


@pytest.mark.gpu
def test_a_run_killed_on_a_gpu_goes_on(tiny: Callable[..., TrainConfig], tmp_path: Path) -> None:
    """Sums of a GPU may be taken in another order each time, so that the end is the same but for rounding."""
    config = tiny(epochs=6, device="cuda", precision="float16", loss="hdm", warm_start=0.5, input_size=(64, 64))
    undisturbed, resumed = kill_and_resume(config, tmp_path, after_step=5)
    assert len(resumed.record["sessions"]) == 2
    losses = [finished.epochs["train_loss"][1:].to_numpy() for finished in (undisturbed, resumed)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
