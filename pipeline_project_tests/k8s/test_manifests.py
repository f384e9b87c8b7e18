"""What k8s/ asks of a cluster: valid for the published schemas, equal to the settings, and the Jobs that Dagster will build."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pipeline_project.settings import Settings, load_settings

FOLDER = Path(__file__).parents[2] / "k8s"
Manifest = dict[str, Any]


def manifests() -> list[Manifest]:
    return [document for document in yaml.safe_load_all((FOLDER / "serving.yaml").read_text("utf-8")) if document]


def named(kind: str, name: str) -> Manifest:
    return next(m for m in manifests() if m["kind"] == kind and m["metadata"]["name"] == name)


def validate(manifest: Manifest) -> None:
    """Against the published schemas of the newest Kubernetes known here; strict: an unknown key is an error."""
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@pytest.fixture
def settings() -> Settings:
    return load_settings("product_images", environment={})


@pytest.fixture
def cluster_settings(tmp_path: Path) -> Settings:
    """The settings as a pod reads them."""
    file = tmp_path / "settings.yaml"
    file.write_text(named("ConfigMap", "pipeline-settings")["data"]["settings.yaml"])
    return load_settings(file, environment={"PIPELINE_HOME": "/var/lib/pipeline"})


def container(deployment: str) -> Manifest:
    found: Manifest = named("Deployment", deployment)["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize("manifest", manifests(), ids=lambda m: f"{m['kind']}-{m['metadata']['name']}")
def test_every_manifest_fits_the_schema(manifest: Manifest) -> None:
    validate(manifest)
    assert "namespace" not in manifest["metadata"], "the namespace is the operator's choice"


def test_the_schema_catches_a_misspelt_key() -> None:
    broken = named("Deployment", "image-classifier")
    broken["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        validate(broken)


def test_the_autoscaler_has_the_bounds_of_the_settings(settings: Settings) -> None:
    spec = named("HorizontalPodAutoscaler", "image-classifier")["spec"]
    wanted = settings.serving.autoscaling
    targets = {m["resource"]["name"]: m["resource"]["target"]["averageUtilization"] for m in spec["metrics"]}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (wanted.min_replicas, wanted.max_replicas)
    assert targets == {"cpu": wanted.cpu_percent, "memory": wanted.memory_percent}
    assert wanted.min_replicas <= settings.serving.production.replicas <= wanted.max_replicas


def test_only_the_autoscaler_sets_the_number_of_replicas(settings: Settings) -> None:
    scaled = {m["spec"]["scaleTargetRef"]["name"] for m in manifests() if m["kind"] == "HorizontalPodAutoscaler"}
    assert scaled == {"image-classifier"}
    for name in scaled:
        assert "replicas" not in named("Deployment", name)["spec"]
    assert named("Deployment", "image-classifier-staging")["spec"]["replicas"] == settings.serving.staging.replicas


@pytest.mark.parametrize("name", ["image-classifier", "image-classifier-staging"])
def test_a_server_gets_what_the_settings_say(name: str, settings: Settings) -> None:
    server = container(name)
    environment = settings.serving.staging if name.endswith("staging") else settings.serving.production
    limits = server["resources"]["limits"]
    assert float(limits["cpu"]) == environment.cpu
    assert limits["memory"] == f"{environment.memory_gb:g}Gi"
    assert [port["containerPort"] for port in server["ports"]] == [environment.port]
    assert named("Service", name)["spec"]["ports"][0]["targetPort"] == environment.port
    assert server["args"] == ["pipeline", "serve", "staging" if name.endswith("staging") else "production"]


def test_the_requests_service_and_probes_are_those_of_the_specification() -> None:
    server, service = container("image-classifier"), named("Service", "image-classifier")["spec"]
    assert server["image"].rpartition(":")[0] == "company/image-classifier"
    assert server["resources"]["requests"] == {"cpu": "2", "memory": "4Gi"}
    assert (service["type"], service["ports"][0]["port"]) == ("LoadBalancer", 80)
    live, ready = server["livenessProbe"], server["readinessProbe"]
    assert (live["httpGet"]["path"], live["initialDelaySeconds"], live["periodSeconds"]) == ("/health/live", 30, 10)
    assert (ready["httpGet"]["path"], ready["initialDelaySeconds"], ready["periodSeconds"]) == ("/health/ready", 5, 5)


def test_model_uri_names_the_registered_model(settings: Settings) -> None:
    for name, alias in (("image-classifier", "champion"), ("image-classifier-staging", "staging")):
        variables = {e["name"]: e["value"] for e in container(name)["env"]}
        assert variables["MODEL_URI"] == f"models:/{settings.tracking.model_name}@{alias}"


def test_services_budgets_and_deployments_select_the_same_pods() -> None:
    for name in ("image-classifier", "image-classifier-staging"):
        deployment = named("Deployment", name)["spec"]
        labels = deployment["template"]["metadata"]["labels"]
        assert deployment["selector"]["matchLabels"] == labels == named("Service", name)["spec"]["selector"]
    budget = named("PodDisruptionBudget", "image-classifier")["spec"]["selector"]["matchLabels"]
    assert budget == named("Deployment", "image-classifier")["spec"]["selector"]["matchLabels"]


@pytest.mark.parametrize("name", ["image-classifier", "image-classifier-staging"])
def test_a_server_is_restricted_and_can_write_where_it_must(name: str) -> None:
    pod = named("Deployment", name)["spec"]["template"]["spec"]
    server = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert server["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in server["volumeMounts"]}
    variables = {e["name"]: e["value"] for e in server["env"]}
    assert "emptyDir" in mounts[variables["PIPELINE_HOME"]]
    assert str(Path(variables["PIPELINE_CONFIG"]).parent) in mounts


def test_a_pod_finds_its_keys_and_the_platform_its_endpoints(cluster_settings: Settings, settings: Settings) -> None:
    mounted = {mount["mountPath"] for mount in container("image-classifier")["volumeMounts"]}
    assert {str(cluster_settings.trusted_signers), str(cluster_settings.trusted_approvers)} <= mounted
    for environment, name in (
        (cluster_settings.serving.production, "image-classifier"),
        (cluster_settings.serving.staging, "image-classifier-staging"),
    ):
        assert environment.address == f"http://{name}"
        assert named("Service", name)["spec"]["ports"][0]["port"] == 80
    assert cluster_settings.profile == "production"
    assert cluster_settings.gates == settings.gates, "a deployment file changes addresses, never thresholds"


# The Dagster half: the values file, and the Jobs that dagster-k8s makes of it.


def dagster_values() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((FOLDER / "dagster-values.yaml").read_text("utf-8"))
    return values


def job(step: dict[str, Any]) -> Manifest:
    """The Job that a step with these op tags becomes, under the values' run launcher and code location."""
    from dagster_k8s.container_context import K8sContainerContext
    from dagster_k8s.job import DagsterK8sJobConfig, UserDefinedDagsterK8sConfig, construct_dagster_k8s_job
    from kubernetes.client import ApiClient

    values = dagster_values()
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    location = values["dagster-user-deployments"]["deployments"][0]
    context = (
        K8sContainerContext(
            security_context=launcher["securityContext"],
            run_k8s_config=UserDefinedDagsterK8sConfig(
                pod_spec_config=launcher["runK8sConfig"]["podSpecConfig"], job_spec_config=launcher["runK8sConfig"]["jobSpecConfig"]
            ),
        )
        .merge(
            K8sContainerContext(
                env=location["env"],
                env_secrets=[secret["name"] for secret in location["envSecrets"]],
                volumes=location["volumes"],
                volume_mounts=location["volumeMounts"],
                resources=location["resources"],
            )
        )
        .merge(K8sContainerContext(run_k8s_config=UserDefinedDagsterK8sConfig.from_dict(step)))
    )
    image = f"{location['image']['repository']}:{location['image']['tag']}"
    built = construct_dagster_k8s_job(
        DagsterK8sJobConfig(job_image=image, dagster_home="/opt/dagster/dagster_home", postgres_password_secret="dagster-postgresql"),
        ["dagster", "api", "execute_step"],
        "dagster-step-0123456789abcdef",
        user_defined_k8s_config=context.run_k8s_config,
        labels={"dagster/op": "trained_model"},
    )
    made: Manifest = ApiClient().sanitize_for_serialization(built)
    return made


def gpu_config() -> dict[str, Any]:
    from pipeline_project.defs.k8s import GPU_STEP

    config: dict[str, Any] = GPU_STEP["dagster-k8s/config"]
    return config


def test_a_training_step_becomes_a_valid_job_on_a_gpu() -> None:
    made = job(gpu_config())
    validate(made)
    pod = made["spec"]["template"]["spec"]
    step = pod["containers"][0]
    assert step["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert step["resources"]["requests"]["memory"] == step["resources"]["limits"]["memory"] == "32Gi"  # R12
    assert "nvidia.com/gpu" in {toleration["key"] for toleration in pod["tolerations"]}
    shared = next(v for v in pod["volumes"] if v["name"] == "shared-memory")
    assert shared["emptyDir"]["medium"] == "Memory"
    assert "/dev/shm" in {mount["mountPath"] for mount in step["volumeMounts"]}


def test_every_job_ends_some_day_and_is_restricted() -> None:
    for step in ({}, gpu_config()):
        made = job(step)
        validate(made)
        pod = made["spec"]["template"]["spec"]
        assert made["spec"]["backoffLimit"] == 0, "Dagster retries, Kubernetes does not"
        assert made["spec"]["activeDeadlineSeconds"] > 0
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["containers"][0]["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert "command" not in pod["containers"][0], "dagster-k8s sets args only, so the image must have no entry point"
        assert "/etc/pipeline/package-signer" in {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}


@pytest.mark.parametrize(
    "misspelt",
    [
        {"container_config": {"resorces": {"limits": {"memory": "1Gi"}}}},
        {"container_config": {"resources": {"limit": {"memory": "1Gi"}}}},
        {"pod_spec_config": {"tolerations": [{"kee": "nvidia.com/gpu"}]}},
        {"pod_spec_config": {"volumes": [{"name": "x", "empty_dir": {"medum": "Memory"}}]}},
        {"job_spec_config": {"ttl_seconds_after_finish": 1}},
    ],
    ids=str,
)
def test_a_misspelt_key_of_a_step_is_caught(misspelt: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"(?i)unexpected|additional|not in|unevaluated"):
        validate(job(misspelt))


def test_each_profile_has_its_executor() -> None:
    import dagster as dg

    from pipeline_project.defs.k8s import executor_for

    assert executor_for("production").name == "k8s"
    assert executor_for("laptop") is dg.in_process_executor
    assert executor_for("ci") is dg.in_process_executor


def test_the_values_keep_what_the_instance_file_of_a_laptop_keeps() -> None:
    from dagster._config import validate_config
    from dagster._core.instance.config import dagster_instance_config_schema

    values = dagster_values()
    instance = values["additionalInstanceConfig"]
    laptop = yaml.safe_load((FOLDER.parent / "dagster.yaml").read_text("utf-8"))
    assert validate_config(dagster_instance_config_schema(), instance).success
    assert instance["concurrency"]["pools"] == laptop["concurrency"]["pools"]
    assert values["dagsterDaemon"]["runMonitoring"]["enabled"] is laptop["run_monitoring"]["enabled"] is True
    assert values["dagsterWebserver"]["enableReadOnly"] is True
    assert values["telemetry"] == laptop["telemetry"]


# The images.


@pytest.mark.parametrize("name", ["platform.Dockerfile", "serving.Dockerfile"])
def test_an_image_installs_by_hash_runs_as_nobody_and_has_no_entry_point(name: str) -> None:
    lines = [line for line in (FOLDER / name).read_text("utf-8").splitlines() if not line.startswith("#")]
    text = "\n".join(lines)
    assert "ENTRYPOINT" not in text
    assert text.count("FROM python:3.11-slim") == 2
    user = named("Deployment", "image-classifier")["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
    assert text.rindex(f"USER {user}:") > text.rindex("FROM ")
    installs = [line for line in lines if "pip install" in line or "pip sync" in line]
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            assert all((FOLDER.parent / path).exists() for path in line.split()[1:-1])


def test_the_serving_lock_pins_what_was_tested() -> None:
    import re

    def pins(file: Path) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", file.read_text("utf-8"), re.MULTILINE):
            found.setdefault(name, set()).add(version)
        return found

    serving, everything = pins(FOLDER / "serving.lock"), pins(FOLDER.parent / "requirements.lock")
    assert {name: versions for name, versions in serving.items() if everything.get(name) != versions} == {}
    assert not serving.keys() & {"torch", "dagster", "mlflow", "pandas", "scipy", "scikit-learn"}
