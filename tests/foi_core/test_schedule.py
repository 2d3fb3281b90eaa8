"""Euler ancestral against diffusers' own scheduler and values worked out by hand."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler

from foi_core import schedule


def scheduler(prediction_type: str = "epsilon") -> EulerAncestralDiscreteScheduler:
    return EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type
    )


@pytest.mark.parametrize(
    ("steps", "strength", "run"), [(100, 0.8, 80), (50, 0.8, 40), (100, 0.29, 29), (3, 0.1, 1), (7, 1.0, 7)]
)
def test_strength_is_the_share_of_steps_that_run_and_never_none(steps: int, strength: float, run: int) -> None:
    plan = schedule.make_schedule(scheduler(), steps, strength)
    assert len(plan) == run
    assert len(plan.sigmas) == run + 1
    assert plan.sigmas[-1] == 0


def test_threads_that_share_a_scheduler_each_get_their_own_steps() -> None:
    shared, counts = scheduler(), [2, 1000, 7, 400] * 100
    expected = {steps: schedule.make_schedule(scheduler(), steps, 0.8) for steps in set(counts)}
    before = shared.timesteps
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda steps: schedule.make_schedule(shared, steps, 0.8), counts))
    finally:
        sys.setswitchinterval(interval)
    for steps, plan in zip(counts, found, strict=True):
        assert torch.equal(plan.timesteps, expected[steps].timesteps)
        assert torch.equal(plan.sigmas, expected[steps].sigmas)
        assert plan.start_sigma == expected[steps].start_sigma
    assert shared.timesteps is before


def test_the_start_is_the_picture_with_noise_and_noise_alone_at_full_strength() -> None:
    source, noise = torch.full((1, 1, 1, 1), 3.0), torch.ones(1, 1, 1, 1)
    part = schedule.make_schedule(scheduler(), 10, 0.5)
    whole = schedule.make_schedule(scheduler(), 10, 1.0)
    assert schedule.start_latents(part, source, noise).item() == pytest.approx(3 + float(part.sigmas[0]))
    assert schedule.start_latents(whole, source, noise).item() == pytest.approx(float(whole.sigmas[0]))


def columns(sigmas: torch.Tensor, steps: tuple[int, ...], prediction_type: str = "epsilon") -> schedule.Coefficients:
    """Of edits that are at these steps."""
    every = schedule.coefficients(sigmas, prediction_type)
    return schedule.Coefficients(*(values[list(steps)][:, None, None, None] for values in every))


def test_a_step_by_hand() -> None:
    latents, noise_predicted, noise = (torch.full((1, 1, 1, 1), v) for v in (5.0, 2.0, 1.0))
    c = columns(torch.tensor([2.0, 1.0]), (0,))
    assert c.input_scale.item() == pytest.approx(5**-0.5)
    clean = schedule.denoised(latents, noise_predicted, c.skip, c.out)
    assert clean.item() == pytest.approx(5 - 2 * 2)
    # up^2 = 1 (4 - 1) / 4 = .75, down = .5, direction = (5 - 1) / 2 = 2: 5 + 2 (.5 - 2) + .75^.5
    stepped = schedule.euler_ancestral_step(latents, clean, c.drift, c.up, noise)
    assert stepped.item() == pytest.approx(2 + 0.75**0.5)


def test_the_last_step_arrives_at_the_clean_latents() -> None:
    latents, clean, noise = (torch.full((1, 1, 1, 1), v) for v in (5.0, 1.0, 1.0))
    c = columns(torch.tensor([2.0, 0.0]), (0,))
    assert schedule.euler_ancestral_step(latents, clean, c.drift, c.up, noise).item() == pytest.approx(1)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_edits_at_different_steps_each_move_as_in_diffusers(prediction_type: str) -> None:
    theirs = scheduler(prediction_type)
    plan = schedule.make_schedule(scheduler(prediction_type), 10, 1.0)
    generator = torch.Generator().manual_seed(0)
    latents, output = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
    at = (2, 7)
    c = columns(plan.sigmas, at, prediction_type)
    clean = schedule.denoised(latents, output, c.skip, c.out)
    noise = torch.randn(latents[0].shape, generator=torch.Generator().manual_seed(3))
    ours = schedule.euler_ancestral_step(latents, clean, c.drift, c.up, noise.expand_as(latents))
    for row, step in enumerate(at):
        theirs.set_timesteps(10)
        t = theirs.timesteps[step]
        scaled = theirs.scale_model_input(latents[row], t)
        stepped = theirs.step(output[row], t, latents[row], generator=torch.Generator().manual_seed(3)).prev_sample
        assert torch.allclose(c.input_scale[row] * latents[row], scaled, atol=1e-6)
        assert torch.allclose(ours[row], stepped, atol=1e-4)
