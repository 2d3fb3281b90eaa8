"""The house's rules of import, read from the sources; and that HTTP never loads torch, by doing it."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.support import ROOT

PACKAGES = {
    "foi_core",
    "jobs",
    "service",
    "worker",
    "foi_client",
    "foi_cli",
    "deploy",
    "demo",
    "evaluation",
    "benchmarks",
    "tests",
}
ALLOWED = {
    "foi_core": {"foi_core"},
    "jobs": {"jobs", "foi_core"},
    "service": {"service", "jobs", "foi_core"},
    "worker": {"worker", "jobs", "foi_core"},
    "foi_client": {"foi_client"},
    "foi_cli": {"foi_cli", "foi_client", "service", "worker", "jobs", "foi_core"},
    "demo": {"demo", "foi_core"},
    "evaluation": {"evaluation", "demo", "foi_core"},
    "benchmarks": {"benchmarks", "demo", "evaluation", "jobs", "worker", "foi_core"},
    "deploy": {"deploy", "jobs", "foi_core"},
}
TORCH_FREE = [
    "service.app",
    "service.__main__",
    "foi_core",
    "foi_core.keywords",
    "foi_core.splitting",
    "foi_core.sizes",
    "jobs.queue",
    "worker.webhooks",
]
TORCH_FREE_MODULES = {
    "foi_core",
    "foi_core.spec",
    "foi_core.errors",
    "foi_core.result",
    "foi_core.keywords",
    "foi_core.sizes",
    "foi_core.splitting",
}


def imports(package: str) -> set[tuple[str, str]]:
    """(file, imported module) for every import of a package, those inside functions included."""
    found = set()
    for file in sorted((ROOT / package).rglob("*.py")):
        name = str(file.relative_to(ROOT))
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {(name, alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}: relative import"
                assert node.module is not None
                found.add((name, node.module))
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_downwards(package: str) -> None:
    ours = {(file, module) for file, module in imports(package) if module.split(".")[0] in PACKAGES}
    wrong = {(file, module) for file, module in ours if module.split(".")[0] not in ALLOWED[package]}
    assert not wrong


@pytest.mark.parametrize("package", ["jobs", "service"])
def test_http_and_jobs_use_only_the_torch_free_part_of_the_core(package: str) -> None:
    used = {(file, module) for file, module in imports(package) if module.split(".")[0] in ("foi_core", "torch")}
    assert {module for _, module in used} <= TORCH_FREE_MODULES


def test_the_core_knows_nothing_of_http_redis_and_the_environment() -> None:
    foreign = {"redis", "rq", "fastapi", "starlette", "httpx", "pydantic_settings", "obstore"}
    assert not {(f, m) for f, m in imports("foi_core") if m.split(".")[0] in foreign}


def test_the_client_needs_httpx_and_little_else() -> None:
    others = {module.split(".")[0] for _, module in imports("foi_client")} - sys.stdlib_module_names
    assert others == {"foi_client", "httpx", "anyio", "standardwebhooks"}
    code = (
        "import foi_client, sys; sys.exit(' '.join({'standardwebhooks', 'pydantic', 'PIL'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", TORCH_FREE)
def test_importing_leaves_torch_out(module: str) -> None:
    code = f"import {module}, sys; sys.exit(' '.join({{'torch', 'transformers'}} & sys.modules.keys()) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
