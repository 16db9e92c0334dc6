"""The learning rate from the first to the last step."""

import pytest

from hdm.train import TrainConfig
from hdm.train.optimizer import learning_rate

COSINE = {0: 1 / 11, 4: 5 / 11, 9: 10 / 11, 10: 1.0, 40: 0.75, 55: 0.5, 70: 0.25, 99: 0.000304586}
STEP = {0: 1 / 11, 9: 10 / 11, 10: 1.0, 59: 1.0, 60: 0.1, 89: 0.1, 90: 0.01, 99: 0.01}


@pytest.mark.parametrize(("schedule", "golden"), [("cosine", COSINE), ("step", STEP)])
def test_the_learning_rate_at_chosen_steps(schedule: str, golden: dict[int, float]) -> None:
    """100 steps, a tenth of them to warm up; the cosine falls from step 10 to 100, the steps come at 60 and 90."""
    config = TrainConfig("synthetic:x", lr=0.02, warm_up=0.1, schedule=schedule, drops=(0.6, 0.9))
    for step, share in golden.items():
        assert learning_rate(step, 100, config) == pytest.approx(0.02 * share, rel=1e-5), step


def test_the_official_schedule() -> None:
    """SimpleBaseline: 140 epochs, a tenth of the rate from epoch 90 on and a hundredth from 120 on."""
    config = TrainConfig("synthetic:x", lr=1e-3, warm_up=0.0, schedule="step", drops=(90 / 140, 120 / 140), epochs=140)
    rates = [learning_rate(epoch * 1000, 140_000, config) for epoch in (0, 89, 90, 119, 120, 139)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


@pytest.mark.parametrize("schedule", ["cosine", "step"])
@pytest.mark.parametrize("steps", [1, 2, 3, 50])
@pytest.mark.parametrize("warm_up", [0.0, 0.05, 1.0])
def test_the_learning_rate_is_positive_and_at_most_its_peak(schedule: str, steps: int, warm_up: float) -> None:
    config = TrainConfig("synthetic:x", lr=0.02, warm_up=warm_up, schedule=schedule)
    assert all(0 < learning_rate(step, steps, config) <= 0.02 for step in range(steps))
