"""A training that goes on after an interruption as if there had been none.

Batch k is drawn from k alone, and a checkpoint keeps networks, moving average, optimiser and k.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from demo.train_vae import write_state

N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class Plan:
    """How long a stage trains, and how fast. Lengths are in samples."""

    samples: int
    batch: int = 16
    rate: float = 1e-3
    warmup: int = 10_000
    cooldown: float = 0.2  # share of the samples over which the rate falls to zero at the end
    ema_halflife: int = 12_000
    report_every: int = 10_000
    save_every: float = 60.0  # seconds

    def rate_at(self, samples: int) -> float:
        falling = (self.samples - samples) / max(self.cooldown * self.samples, 1)
        return self.rate * min(1, (samples + self.batch) / max(self.warmup, 1), falling)


def train(
    folder: Path,
    networks: N,
    loss: Callable[[N, int], Tensor],
    report: Callable[[N], dict[str, float]],
    plan: Plan,
) -> N:
    """Trains what of `networks` wants a gradient until `plan.samples`; returns its moving average.

    `loss(networks, k)` is the mean loss of batch k. `folder` keeps state.pt, from which the same call goes on, and
    log.jsonl with the mean loss and `report(average)` of every `plan.report_every` samples.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, log = folder / "state.pt", folder / "log.jsonl"
    average = copy.deepcopy(networks).requires_grad_(False)
    learning: list[Tensor] = [p for p in networks.parameters() if p.requires_grad]
    following: list[Tensor] = [
        a for a, p in zip(average.parameters(), networks.parameters(), strict=True) if p.requires_grad
    ]
    optimiser = torch.optim.AdamW(learning, lr=plan.rate, betas=(0.9, 0.99), weight_decay=0.01)
    done, seconds, total, count = 0, 0.0, 0.0, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=learning[0].device, weights_only=True)
        networks.load_state_dict(state["networks"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        done, seconds, total, count = (state[name] for name in ("samples", "seconds", "total", "count"))
    # A report that came after the last checkpoint comes again.
    reports = log.read_text().splitlines() if log.exists() else []
    log.write_text("".join(f"{line}\n" for line in reports if json.loads(line)["samples"] <= done))

    def save() -> None:
        states = {"networks": networks.state_dict(), "average": average.state_dict()}
        states["optimiser"] = optimiser.state_dict()
        progress = {"samples": done, "seconds": seconds, "total": total, "count": count}
        write_state(checkpoint, {**states, **progress})

    decay = 0.5 ** (plan.batch / plan.ema_halflife)
    saved, since = time.monotonic(), done
    begun = saved - seconds
    while done < plan.samples:
        for group in optimiser.param_groups:
            group["lr"] = plan.rate_at(done)
        value = loss(networks, done // plan.batch)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimiser.step()
        steps = done // plan.batch
        with torch.no_grad():
            torch._foreach_lerp_(following, learning, 1 - min(decay, (steps + 1) / (steps + 50)))
        before, done = done, done + plan.batch
        total, count = total + value.item(), count + 1
        seconds = time.monotonic() - begun
        last = done >= plan.samples
        if last or done // plan.report_every > before // plan.report_every:
            line = {"samples": done, "hours": round(seconds / 3600, 3), "loss": round(total / count, 4)}
            line |= {k: round(v, 4) for k, v in report(average).items()}
            print(json.dumps(line), flush=True)
            with log.open("a") as lines:
                lines.write(json.dumps(line) + "\n")
            total, count = 0.0, 0
            save()
        elif time.monotonic() - saved > plan.save_every:
            now = time.monotonic()
            speed = (done - since) / (now - saved)
            print(f"{done} samples, {speed:.1f} a second, loss {total / count:.4f}", flush=True)
            saved, since = now, done
            save()
    return average
