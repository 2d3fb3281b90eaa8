"""The Kubernetes manifests: by their schemas, and what they promise of safety and of an orderly end."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonpatch
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from deploy.run_steps import stages
from jobs.settings import Settings
from tests.support import ROOT
from worker.crew import HAND_BACK_S
from worker.webhooks import FINISH_S

BASE = "deploy/kubernetes/base"
GPU = "deploy/kubernetes/gpu"
WORKLOADS = ("foi-api", "foi-worker", "foi-webhooks", "foi-redis")
SCALED_OBJECT = {
    "scaleTargetRef",
    "pollingInterval",
    "cooldownPeriod",
    "minReplicaCount",
    "maxReplicaCount",
    "fallback",
    "advanced",
    "triggers",
}
"""Fields of KEDA's specification that we use; no package of its schema is well kept."""
Read = Callable[[str], list[Any]]


@pytest.fixture
def manifests(read: Read) -> list[Any]:
    """All that kustomization.yaml names."""
    (kustomization,) = read(f"{BASE}/kustomization.yaml")
    return [document for name in kustomization["resources"] for document in read(f"{BASE}/{name}")]


def workload(manifests: list[Any], name: str) -> Any:
    (found,) = (one for one in manifests if "template" in one.get("spec", {}) and one["metadata"]["name"] == name)
    return found


def pod(manifests: list[Any], name: str) -> Any:
    return workload(manifests, name)["spec"]["template"]["spec"]


def is_valid(manifest: Any) -> bool:
    return bool(kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True))


def test_every_manifest_is_what_its_schema_allows(manifests: list[Any]) -> None:
    assert len(manifests) > 10
    assert all(is_valid(manifest) for manifest in manifests)


def test_every_file_of_the_base_is_part_of_it(read: Read) -> None:
    (kustomization,) = read(f"{BASE}/kustomization.yaml")
    files = {path.name for path in (ROOT / BASE).iterdir()}
    assert files == {*kustomization["resources"], "kustomization.yaml"}


def test_the_gpu_overlay_gives_the_worker_a_gpu_and_stays_valid(manifests: list[Any], read: Read) -> None:
    (overlay,), (patch,) = read(f"{GPU}/kustomization.yaml"), read(f"{GPU}/worker.yaml")
    (named,) = overlay["patches"]
    assert (named["target"], named["path"]) == ({"kind": "Deployment", "name": "foi-worker"}, "worker.yaml")
    patched = jsonpatch.apply_patch(workload(manifests, "foi-worker"), patch)
    container = patched["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"name": "FOI_DEVICE", "value": "cuda"} in container["env"]
    assert is_valid(patched)


@pytest.mark.parametrize("name", WORKLOADS)
def test_pods_have_no_rights_that_they_do_not_need(manifests: list[Any], name: str) -> None:
    spec = pod(manifests, name)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"requests", "limits"} <= container["resources"].keys()


def test_selectors_find_their_pods(manifests: list[Any]) -> None:
    labels = {name: workload(manifests, name)["spec"]["template"]["metadata"]["labels"] for name in WORKLOADS}
    for manifest in manifests:
        selector = manifest.get("spec", {}).get("selector")
        if selector is not None:
            wanted = selector.get("matchLabels", selector)
            assert any(wanted.items() <= one.items() for one in labels.values()), manifest["metadata"]


def test_the_user_of_our_pods_is_the_one_of_the_images(manifests: list[Any]) -> None:
    for stage in ("api", "worker", "worker-baked"):
        users = [step.value for step in stages(ROOT / "Dockerfile")[stage] if step.instruction == "USER"]
        assert users[-1] == "10001:10001"
    for name in ("foi-api", "foi-worker", "foi-webhooks"):
        context = pod(manifests, name)["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"]) == (10001, 10001)


def test_pods_get_the_time_that_they_need_to_end(manifests: list[Any]) -> None:
    (config,) = (one["data"] for one in manifests if one["kind"] == "ConfigMap")
    assert int(config["FOI_DRAIN_S"]) == Settings().drain_s
    grace = {name: pod(manifests, name)["terminationGracePeriodSeconds"] for name in WORKLOADS}
    assert grace["foi-worker"] > int(config["FOI_DRAIN_S"]) + HAND_BACK_S
    assert grace["foi-webhooks"] > FINISH_S


def test_every_setting_that_is_named_is_one_of_the_services(manifests: list[Any]) -> None:
    (config,) = (one["data"] for one in manifests if one["kind"] == "ConfigMap")
    variables = [e["name"] for name in WORKLOADS for c in pod(manifests, name)["containers"] for e in c.get("env", [])]
    named = {name for name in (*config, *variables) if name.startswith("FOI_")}
    assert named <= {f"FOI_{name.upper()}" for name in Settings.model_fields}


def test_secrets_are_referred_to_and_the_docs_say_how_to_make_them(manifests: list[Any]) -> None:
    assert not [one for one in manifests if one["kind"] == "Secret"]
    variables = [e for name in WORKLOADS for c in pod(manifests, name)["containers"] for e in c.get("env", [])]
    keys = {e["valueFrom"]["secretKeyRef"]["key"] for e in variables if "valueFrom" in e}
    docs = (ROOT / "docs" / "deployment.md").read_text()
    assert keys
    assert all(f"--from-literal={key}=" in docs for key in keys)


def test_keda_counts_edits_that_wait_and_edits_that_run_by_what_a_worker_takes(
    manifests: list[Any], read: Read
) -> None:
    (scaled,) = read("deploy/kubernetes/keda.yaml")
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    assert scaled["spec"].keys() <= SCALED_OBJECT
    assert scaled["spec"]["scaleTargetRef"]["name"] == workload(manifests, "foi-worker")["metadata"]["name"]
    assert "replicas" not in workload(manifests, "foi-worker")["spec"], "it would undo KEDA's at each apply"
    (config,) = (one["data"] for one in manifests if one["kind"] == "ConfigMap")
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["threshold"] == config["FOI_MAX_IN_FLIGHT"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", [BASE, GPU])
def test_kustomize_renders_what_is_valid(folder: str, tmp_path: Path) -> None:
    """Talks to no cluster."""
    environment = {"PATH": os.environ["PATH"], "KUBECONFIG": "/dev/null", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["kubectl", "kustomize", ROOT / folder],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unknown command" in done.stderr:
        pytest.skip("this kubectl has no kustomize")
    assert done.returncode == 0, done.stderr
    documents = list(yaml.safe_load_all(done.stdout))
    assert len(documents) > 10
    assert all(is_valid(one) for one in documents)
