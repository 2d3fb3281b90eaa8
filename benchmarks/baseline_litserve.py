"""What one would build instead: diffusers' InstructPix2Pix pipeline behind LitServe, as its documentation shows.

`python -m benchmarks.baseline_litserve --port 8001`, then `POST /predict` with JSON (`image` as base64, `instruction`,
`steps`, `guidance_scale`, `image_guidance_scale`, `seed`) answers a PNG. Plain InstructPix2Pix: diffusers has no FoI.
"""

# No postponed annotations: LitServe tells FastAPI what a request is by the type that `decode_request` names.

import argparse
import base64
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import litserve  # type: ignore[import-untyped, import-not-found, unused-ignore]
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline
from fastapi import Response
from PIL import Image

from foi_core.model import choose_dtype
from foi_core.sizes import model_size

ROOT = Path(__file__).parent.parent
START_S, STOP_S = 120, 20
RUN_HEADER = "X-Run-Ms"
"""How long the pipeline's call took, for comparison with our `metrics.run_ms`."""
Job = dict[str, Any]
Done = tuple[Image.Image, float]


class InstructPix2Pix(litserve.LitAPI):  # type: ignore[misc]
    """One call of the pipeline for each request, or for each batch that LitServe collects."""

    def __init__(self, model: Path, max_batch_size: int = 1, batch_timeout: float = 0.0) -> None:
        super().__init__(max_batch_size=max_batch_size, batch_timeout=batch_timeout)
        self._model = model

    def setup(self, device: str) -> None:
        self._device = device
        self._pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
            self._model,
            dtype=choose_dtype("auto", torch.device(device)),
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
        ).to(device)
        self._pipeline.set_progress_bar_config(disable=True)
        self._native = self._pipeline.unet.config.sample_size * self._pipeline.vae_scale_factor

    def decode_request(self, request: Job) -> Job:
        image = Image.open(io.BytesIO(base64.b64decode(request["image"]))).convert("RGB")
        return {**request, "image": image}

    def predict(self, jobs: Job | list[Job]) -> Done | list[Done]:
        """LitServe gives a list exactly where it batches."""
        return self._edit(jobs) if isinstance(jobs, list) else self._edit([jobs])[0]

    def encode_response(self, done: Done) -> Response:
        image, run_ms = done
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        return Response(buffer.getvalue(), media_type="image/png", headers={RUN_HEADER: f"{run_ms:.1f}"})

    def _edit(self, jobs: list[Job]) -> list[Done]:
        """At the size that our engine gives a picture too. Steps, scales and size of a batch are the first one's."""
        begun, first = time.perf_counter(), jobs[0]
        size = model_size(first["image"].width, first["image"].height, self._native)
        images = self._pipeline(
            prompt=[job["instruction"] for job in jobs],
            image=[job["image"].resize(size, Image.Resampling.LANCZOS) for job in jobs],
            num_inference_steps=first["steps"],
            guidance_scale=first["guidance_scale"],
            image_guidance_scale=first["image_guidance_scale"],
            generator=[torch.Generator(self._device).manual_seed(job["seed"]) for job in jobs],
        ).images
        back = [
            image.resize(job["image"].size, Image.Resampling.LANCZOS) for image, job in zip(images, jobs, strict=True)
        ]
        run_ms = 1000 * (time.perf_counter() - begun)
        return [(image, run_ms) for image in back]


@contextmanager
def running(folder: Path, batch: int) -> Iterator[str]:
    """The server in a session of its own, so that all its processes end together; its log goes into `folder`."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.baseline_litserve", "--port", str(port), "--batch", str(batch)]
    url, log = f"http://127.0.0.1:{port}", folder / "litserve.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + START_S
        while not _is_ready(f"{url}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"LitServe did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield url
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(STOP_S)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--model", type=Path, default=ROOT / "demo" / "model")
    parser.add_argument("--batch", type=int, default=1, help="LitServe's max_batch_size")
    parser.add_argument("--batch-timeout", type=float, default=0.02, help="seconds it waits for a batch to fill")
    args = parser.parse_args()
    api = InstructPix2Pix(args.model, args.batch, args.batch_timeout if args.batch > 1 else 0.0)
    # Without a timeout: ours lets an edit wait as long as it takes.
    server = litserve.LitServer(api, accelerator="auto", devices=1, timeout=False)
    server.run(host="127.0.0.1", port=args.port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
