"""`pipeline doctor`: what is wrong with an installation, why, and how to mend it. Every finding comes from looking, none from guessing."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline_project.local.probes import data, instance, machine
from pipeline_project.local.probes.finding import Finding
from pipeline_project.settings import Settings


def examine(settings: Settings, config: Path) -> list[Finding]:
    """Everything that is wrong now, errors first. A probe that fails itself is a finding, and does not stop the others."""
    probes: dict[str, Callable[[], list[Finding]]] = {
        "Python": machine.python_version,
        "packages": machine.packages,
        "disk": lambda: machine.disk(settings),
        "runtime home": lambda: machine.home(settings),
        "ports": lambda: machine.ports(settings, config),
        "services": lambda: machine.service_states(settings),
        "leftovers": lambda: machine.leftovers(settings),
        "Dagster instance": lambda: instance.dagster_instance(settings),
        "store": lambda: data.store(settings),
        "clock": lambda: data.store_clock(settings),
        "source": lambda: data.source(settings),
        "MLflow": lambda: data.mlflow(settings),
        "keys": lambda: data.keys(settings),
        "endpoints": lambda: data.endpoints(settings),
    }
    found = [finding for name, probe in probes.items() for finding in _tell(name, probe, settings)]
    return sorted(found, key=lambda finding: finding.severity)


def mend(findings: Sequence[Finding]) -> list[str]:
    """Mend what can be mended safely. Returns what was done, each once."""
    done = []
    for finding in findings:
        if finding.mend is not None:
            try:
                done.append(finding.mend())
            except (ValueError, OSError) as error:
                done.append(f"could not mend: {finding.what}: {error}")
    return list(dict.fromkeys(done))


def healthy(findings: Sequence[Finding]) -> bool:
    """Whether nothing is wrong; warnings do no harm yet."""
    return not any(finding.severity == "error" for finding in findings)


def _tell(name: str, probe: Callable[[], list[Finding]], settings: Settings) -> list[Finding]:
    try:
        return probe()
    except Exception as error:  # a doctor who faints helps nobody: the other probes still look
        why = f"{type(error).__name__}: {error}"
        return [Finding(f"{name}: could not be looked at", str(settings.home), why, "mend that first, then ask again")]
