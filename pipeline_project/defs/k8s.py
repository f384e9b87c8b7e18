"""Where steps run: in this process on a laptop, as Kubernetes jobs in production; and what a heavy step asks of a node (R11, R12)."""

from typing import Any

import dagster as dg

_GPU = {
    "container_config": {
        "resources": {"requests": {"cpu": "4", "memory": "32Gi"}, "limits": {"memory": "32Gi", "nvidia.com/gpu": "1"}},
        "volume_mounts": [{"name": "shared-memory", "mount_path": "/dev/shm"}],  # noqa: S108 - a path in the pod
    },
    "pod_spec_config": {
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "volumes": [{"name": "shared-memory", "empty_dir": {"medium": "Memory", "size_limit": "8Gi"}}],
    },
    "job_spec_config": {"ttl_seconds_after_finished": 86400},
}
GPU_STEP: dict[str, Any] = {"dagster-k8s/config": _GPU}
"""Op tags of a step that trains; they act under the Kubernetes executor only."""


def executor_for(profile: str) -> dg.ExecutorDefinition:
    """The executor of a profile: every run that the UI, a schedule or a sensor starts uses it."""
    if profile != "production":
        return dg.in_process_executor
    from dagster_k8s import k8s_job_executor

    executor: dg.ExecutorDefinition = k8s_job_executor
    return executor
