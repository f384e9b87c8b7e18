"""Checks of the endpoints, made through the real HTTP API. Their requests are marked, so that monitoring leaves them out."""

import secrets
from collections import Counter

from pipeline_project.contracts import PROBE_PREFIX, Environment
from pipeline_project.dataset.reading import load_split
from pipeline_project.ingest.sources import open_source
from pipeline_project.packaging.package import load_package
from pipeline_project.release.registry import aliases_of
from pipeline_project.serving.documents import newest
from pipeline_project.stage import CheckOutcome, StageContext
from pipeline_project.statistics.intervals import wilson_interval
from pipeline_project.training.tracking import TrackingError
from pipeline_project.trust.approvals import find_approval

_SMOKE_IMAGES = 10
_SPLIT_REQUESTS = 60


def check_staging(context: StageContext) -> list[CheckOutcome]:
    """smoke_test and observed_split of staging."""
    return [_smoke_test(context, "staging"), _observed_split(context, "staging")]


def check_production(context: StageContext) -> list[CheckOutcome]:
    """approval, smoke_test, observed_split and registry_alias of production."""
    return [_approval(context), _smoke_test(context, "production"), _observed_split(context, "production"), _alias(context)]


def _approval(context: StageContext) -> CheckOutcome:
    document = newest(context.artifacts.bytes, "production")
    packages = [route.package for route in document.routes] if document else []
    store, trusted = context.artifacts.bytes, context.settings.trusted_approvers
    found = {package: find_approval(store, trusted, "production_deployment", package) for package in packages}
    missing = [package[:12] for package, approval in found.items() if approval is None]
    by = ", ".join(f"{p[:12]} by {a.approval.approver} ({a.approval.reason})" for p, a in found.items() if a is not None)
    detail = f"served without an approval: {', '.join(missing)}. Roll back." if missing else f"approved: {by}."
    return CheckOutcome("approval", bool(packages) and not missing, detail if packages else "production serves nothing.")


def _smoke_test(context: StageContext, environment: Environment) -> CheckOutcome:
    """Test images through the endpoint give the class that the package gives in this process."""
    from pipeline_project.serving.client import PredictionClient, PredictionError
    from pipeline_project.serving.engine import Engine

    document = newest(context.artifacts.bytes, environment)
    if document is None:
        return CheckOutcome("smoke_test", False, f"{environment} serves nothing. Materialize the endpoint first.")
    engines = {
        route.package[:12]: Engine(load_package(context.artifacts, route.package, context.settings.trusted_signers))
        for route in document.routes
    }
    test, source = load_split(context.artifacts, "test"), open_source(context.settings)
    chosen = range(0, len(test.keys), max(1, len(test.keys) // _SMOKE_IMAGES))
    wrong, asked = [], 0
    try:
        with PredictionClient(_url(context, environment)) as client:
            for i in chosen:
                answer = client.predict(source.read(test.keys[i]), request_id=_probe_id())
                engine = engines.get(answer.model)
                asked += 1
                expected = (
                    engine.manifest.classes[int(engine.predict(test.images[i : i + 1]).probabilities[0].argmax())] if engine else None
                )
                if answer.predicted_class != expected:
                    wrong.append(f"{test.keys[i]}: {answer.predicted_class} instead of {expected}")
    except PredictionError as error:
        return CheckOutcome("smoke_test", False, str(error))
    detail = f"{asked - len(wrong)} of {asked} answers equal the package's own. {'; '.join(wrong[:3])}"
    return CheckOutcome("smoke_test", asked > 0 and not wrong, detail)


def _observed_split(context: StageContext, environment: Environment) -> CheckOutcome:
    """The routes of answers against the document's weights (99.9% Wilson interval: a false alarm a thousand checks)."""
    from pipeline_project.serving.client import PredictionClient, PredictionError

    document = newest(context.artifacts.bytes, environment)
    if document is None:
        return CheckOutcome("observed_split", False, f"{environment} serves nothing. Materialize the endpoint first.")
    test, source = load_split(context.artifacts, "test"), open_source(context.settings)
    image = source.read(test.keys[0])
    try:
        with PredictionClient(_url(context, environment)) as client:
            seen = Counter(client.predict(image, request_id=_probe_id()).route for _ in range(_SPLIT_REQUESTS))
    except PredictionError as error:
        return CheckOutcome("observed_split", False, str(error))
    weights: dict[str, float] = {route.name: route.weight for route in document.routes}
    off = []
    for name, weight in weights.items():
        interval = wilson_interval(seen[name], _SPLIT_REQUESTS, 0.999)
        if not interval.low - 1e-9 <= weight <= interval.high + 1e-9:
            off.append(name)
    unknown = sorted(set(seen) - set(weights))
    detail = f"{dict(seen)} of {_SPLIT_REQUESTS} requests for weights {weights} (document {document.number})."
    return CheckOutcome("observed_split", not off and not unknown, detail, {"observed": dict(seen), "weights": weights})


def _alias(context: StageContext) -> CheckOutcome:
    document = newest(context.artifacts.bytes, "production")
    champion = next((r.package for r in document.routes if r.name == "champion"), "") if document else ""
    try:
        alias = aliases_of(context.settings).get("champion", "")
    except TrackingError as error:
        return CheckOutcome("registry_alias", False, f"could not be compared: {error}")
    detail = f"the alias champion names package {alias[:12] or 'none'}; production serves {champion[:12] or 'none'}."
    return CheckOutcome("registry_alias", bool(champion) and alias == champion, detail)


def _url(context: StageContext, environment: Environment) -> str:
    serving = context.settings.serving
    return (serving.staging if environment == "staging" else serving.production).address


def _probe_id() -> str:
    return f"{PROBE_PREFIX}{secrets.token_hex(8)}"
