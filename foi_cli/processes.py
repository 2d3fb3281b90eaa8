"""Commands that are other programs of this project: each takes this process over, so that signals and exit statuses are
its own."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Annotated, NoReturn

import typer

from foi_cli.configuration import read_settings
from foi_cli.errors import EditError, UnusableError, needing

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": list[str]()}
"""The other program reads its arguments itself, --help too."""

evaluate = typer.Typer(help="Measure the method: on scenes with ground truth, or on pictures of your own.")


def serve(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Else FOI_PORT.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Worker processes, one per GPU; else FOI_WORKERS.")
    ] = None,
) -> None:
    """Run the service: Redis if needed, the API with its page, workers and webhooks, until Ctrl-C."""
    if port is not None:
        os.environ["FOI_PORT"] = str(port)
    read_settings()  # what is wrong with them is said in one line
    _become("worker.supervisor", [] if workers is None else ["--workers", str(workers)], "torch", "uvicorn")


def work(
    name: Annotated[str | None, typer.Option(help="Unique, never used before; else made.")] = None,
    index: Annotated[int, typer.Option(min=0, help="Which of FOI_WORKERS it is: chooses among several GPUs.")] = 0,
) -> None:
    """Run one worker alone; Redis and the store are those of the settings."""
    read_settings()
    _become("worker", ["--index", str(index), *([] if name is None else ["--name", name])], "torch")


@evaluate.command("scenes", context_settings=PASSED_ON)
def evaluate_scenes(context: typer.Context) -> None:
    """The paper's claims and all variants, on scenes with ground truth (`--quick`: a minute)."""
    _become("evaluation.scenes", context.args, "torch", "matplotlib")


@evaluate.command("pictures", context_settings=PASSED_ON)
def evaluate_pictures(context: typer.Context) -> None:
    """FoI and baselines on pictures of your own."""
    _become("evaluation", context.args, "torch", "matplotlib")


def calibrate(context: typer.Context) -> None:
    """Find the mask setting and guidance scales that suit a checkpoint, on pictures of your own."""
    _become("evaluation.calibration", context.args, "torch", "matplotlib")


def manage_keys(context: typer.Context) -> None:
    """Make, list and revoke API keys; show and rotate webhook secrets."""
    read_settings()
    with needing("service"):
        from jobs import keys
        from jobs.connection import RedisError
        from jobs.redis_server import RedisUnavailableError
    try:
        keys.run(context.args, "foi keys")
    except keys.UnknownKeyError as error:
        raise EditError(str(error)) from error
    except RedisUnavailableError as error:
        raise UnusableError(str(error)) from error
    except RedisError as error:
        raise UnusableError(f"Redis does not answer: {error}") from error


def openapi() -> None:
    """Print the description of the HTTP API (OpenAPI 3.1, YAML)."""
    with needing("cli,service"):
        from service.openapi import as_yaml

        print(as_yaml(), end="")


def _become(module: str, arguments: list[str], *needed: str) -> NoReturn:
    """Without the present folder among the places that modules come from: it may hold a `worker` of its own."""
    for package in needed:
        if importlib.util.find_spec(package) is None:
            with needing("service,worker,embedded-redis,evaluation"):
                raise ModuleNotFoundError(name=package)
    environment = {"TRANSFORMERS_VERBOSITY": "error", **os.environ, "PYTHONSAFEPATH": "1"}
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)
