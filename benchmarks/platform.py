"""`make bench-platform`: the graph through the launcher and the queue of `make demo`, against the same steps in a bare script.

Each round runs A (Dagster: webserver, daemon, queue, one process a run), B (a script that calls the same stage functions in one
process) and B again (the A/A control), in an order that rotates; each in a fresh runtime home on the same catalogue. Payload digests
of every asset must be equal before a ratio counts. The last line is one JSON object.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import platform_script
from benchmarks.report import interval, machine, say
from pipeline_project.local import project, services
from pipeline_project.local.dagster_client import DagsterClient
from pipeline_project.local.demo import Progress, run_graph
from pipeline_project.settings import Settings, child_environment, load_settings
from pipeline_project.storage import open_artifacts

# What a run produces from its inputs alone; logs and reports of live traffic differ from run to run by their nature.
COMPARED = (
    "data_profile",
    "dataset_splits",
    "tuned_hyperparameters",
    "cross_validation_report",
    "trained_model",
    "model_package",
    "evaluation_report",
    "release_gate",
    "registered_model",
    "staging_endpoint",
    "deployed_endpoint",
)
COMPARED_DAILY = ("validated_manifest", "image_pack", "image_features", "batch_predictions")


def main() -> None:
    """Parse arguments, run the rounds, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images-a-day", type=int, default=project.SAMPLE_IMAGES_A_DAY)
    parser.add_argument("--keep", type=Path, help="folder for the raw values")
    arguments = parser.parse_args()
    say("loading the code location, three times each in a fresh process")
    load = load_cost()
    seconds: dict[str, list[float]] = {"dagster": [], "script": [], "script_again": []}
    digests: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="bench-platform-") as folder:
        catalogue = Path(folder) / "catalogue"
        write_catalogue(catalogue, arguments.images_a_day)
        for number in range(arguments.rounds):
            order = ["dagster", "script", "script_again"]
            order = order[number % 3 :] + order[: number % 3]
            for side in order:
                home = Path(folder) / f"{side}-{number}"
                config, settings = make_project(home, catalogue)
                run = run_dagster if side == "dagster" else run_script
                seconds[side].append(run(config, settings))
                found = payload_digests(settings)
                if digests and found != digests:
                    different = sorted(name for name in found.keys() | digests.keys() if found.get(name) != digests.get(name))
                    sys.exit(f"payloads differ between runs, so no ratio counts: {', '.join(different)}")
                digests = found
                say(f"round {number + 1} {side}: {seconds[side][-1]:.1f} s, {len(found)} payload digests equal")
                shutil.rmtree(home)
    report = summarise(seconds, load)
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        (arguments.keep / f"platform-{datetime.now(UTC):%Y%m%dT%H%M%S}.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report))


def run_dagster(config: Path, settings: Settings) -> float:
    """Seconds of the graph through Dagster. The services are up before the clock starts, as the script's endpoints are."""
    started = services.dagster_services(settings)
    try:
        for service in started:
            services.start(settings, service, config)
        endpoints(settings)
        for service in started:
            services.wait_ready(settings, service)
        client = DagsterClient(started[0].url, lambda _: None)
        client.wait_loaded()
        begin = time.monotonic()
        run_graph(client, settings, Progress())
        return time.monotonic() - begin
    finally:
        services.stop_all(settings)


def run_script(config: Path, settings: Settings) -> float:
    """Seconds of a bare script: one fresh process that calls the stage functions in order."""
    try:
        endpoints(settings)
        begin = time.monotonic()
        command = [sys.executable, "-m", platform_script.__name__, str(config), str(settings.home)]
        subprocess.run(command, env=child_environment(settings, config), check=True)
        return time.monotonic() - begin
    finally:
        services.stop_all(settings)


def endpoints(settings: Settings) -> None:
    """Both environments, as `make demo` starts them."""
    services.start_endpoint(settings, "staging")
    services.start_endpoint(settings, "production")


def make_project(home: Path, catalogue: Path) -> tuple[Path, Settings]:
    """A fresh runtime home over the shared catalogue, with ports of its own."""
    days = sorted(path.name for path in catalogue.iterdir())
    config = home / "settings.yaml"
    values: dict[str, object] = {
        "extends": "sample",
        "name": "bench",
        "data": {"source": str(catalogue), "start_date": datetime.fromisoformat(days[0]).date()},
        "local": {"dagster_port": 13870},
        "serving": {"staging": {"port": 13871}, "production": {"port": 13872}},
    }
    project.write_settings(config, values)
    return config, load_settings(config, environment={"PIPELINE_HOME": str(home)})


def write_catalogue(folder: Path, images_a_day: int) -> None:
    """The sample catalogue of the five days before today."""
    from datetime import timedelta

    from pipeline_project.sample.catalogue import generate_catalogue

    today = datetime.now(UTC).date()
    days = [today - timedelta(days=n) for n in range(project.SAMPLE_DAYS, 0, -1)]
    generate_catalogue(folder, seed=project.SAMPLE_SEED, days=days, images_per_day=images_a_day)


def payload_digests(settings: Settings) -> dict[str, str]:
    """{asset or asset/day: digest} of everything that must not depend on who called it."""
    artifacts = open_artifacts(settings)
    found = {name: artifacts.latest(name).digest for name in COMPARED}
    for name in COMPARED_DAILY:
        found |= {f"{name}/{day}": artifacts.latest(name, day).digest for day in artifacts.partitions(name)}
    return found


def load_cost() -> dict[str, object]:
    """CPU seconds of loading the code location beyond `import dagster` (median of three fresh processes), and whether torch came along."""
    code = (
        "import sys, time\nimport dagster\nbegin = time.process_time()\n"
        "from pipeline_project.definitions import defs\ndefs().get_repository_def()\n"
        "print(time.process_time() - begin, 'torch' in sys.modules)"
    )
    lines = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
        lines.append(done.stdout.split())
    return {
        "load_beyond_dagster_s": round(statistics.median(float(line[0]) for line in lines), 3),
        "load_beyond_dagster_raw_s": [round(float(line[0]), 3) for line in lines],
        "torch_imported": any(line[1] == "True" for line in lines),
    }


def summarise(seconds: dict[str, list[float]], load: dict[str, object]) -> dict[str, object]:
    """Medians of the rounds' ratios with bootstrap intervals, the raw seconds and the machine."""
    ratios = [a / statistics.mean(b) for a, *b in zip(seconds["dagster"], seconds["script"], seconds["script_again"], strict=True)]
    control = [a / b for a, b in zip(seconds["script"], seconds["script_again"], strict=True)]
    return {
        "benchmark": "platform",
        "ratio_vs_script": round(statistics.median(ratios), 4),
        "ratio_vs_script_interval": interval(ratios),
        "control_ratio": round(statistics.median(control), 4),
        "control_ratio_interval": interval(control),
        "rounds": len(ratios),
        "digests_equal": True,
        **load,
        "seconds": {side: [round(value, 2) for value in values] for side, values in seconds.items()},
        "machine": machine(),
    }


if __name__ == "__main__":
    main()
