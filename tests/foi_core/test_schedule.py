"""Euler ancestral against diffusers' own scheduler and values worked out by hand."""

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


def test_the_start_is_the_picture_with_noise_and_noise_alone_at_full_strength() -> None:
    source, noise = torch.full((1, 1, 1, 1), 3.0), torch.ones(1, 1, 1, 1)
    part = schedule.make_schedule(scheduler(), 10, 0.5)
    whole = schedule.make_schedule(scheduler(), 10, 1.0)
    assert schedule.start_latents(part, source, noise).item() == pytest.approx(3 + float(part.sigmas[0]))
    assert schedule.start_latents(whole, source, noise).item() == pytest.approx(float(whole.sigmas[0]))


def test_a_step_by_hand() -> None:
    latents, clean, noise = (torch.full((1, 1, 1, 1), v) for v in (5.0, 1.0, 1.0))
    sigma, sigma_next = schedule.as_column([2.0], latents), schedule.as_column([1.0], latents)
    # up^2 = 1 (4 - 1) / 4 = .75, down = .5, direction = (5 - 1) / 2 = 2: 5 + 2 (.5 - 2) + .75^.5
    assert schedule.euler_ancestral_step(latents, clean, sigma, sigma_next, noise).item() == pytest.approx(
        2 + 0.75**0.5
    )


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_edits_at_different_steps_each_move_as_in_diffusers(prediction_type: str) -> None:
    theirs = scheduler(prediction_type)
    plan = schedule.make_schedule(scheduler(prediction_type), 10, 1.0)
    generator = torch.Generator().manual_seed(0)
    latents, output, noise = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(3))
    at = (2, 7)
    sigma = schedule.as_column([float(plan.sigmas[i]) for i in at], latents)
    sigma_next = schedule.as_column([float(plan.sigmas[i + 1]) for i in at], latents)
    clean = schedule.denoised(latents, output, sigma, prediction_type)
    ours = schedule.euler_ancestral_step(latents, clean, sigma, sigma_next, torch.zeros_like(noise))
    for row, step in enumerate(at):
        theirs.set_timesteps(10)
        t = theirs.timesteps[step]
        theirs.scale_model_input(latents[row], t)
        stepped = theirs.step(output[row], t, latents[row], generator=torch.Generator().manual_seed(3)).prev_sample
        up = ((sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2).sqrt())[row].item()
        their_noise = torch.randn(latents[row].shape, generator=torch.Generator().manual_seed(3))
        assert torch.allclose(ours[row], stepped - their_noise * up, atol=1e-4)
