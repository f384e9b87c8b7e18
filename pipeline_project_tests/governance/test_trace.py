"""The audit walk from a request id: every hop, what is broken, where was searched, and what a stranger may ask."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from pipeline_project.contracts import PredictionRecord, Reject, TruthRecord
from pipeline_project.digests import digest_of, sha256_bytes
from pipeline_project.evaluation.gates import compliance_settings
from pipeline_project.governance import ledger
from pipeline_project.governance.trace import Trace, trace_request
from pipeline_project.governance.trace_log import UnknownRequestError
from pipeline_project.governance.trace_text import render_trace
from pipeline_project.ingest.quarantine import QUARANTINE
from pipeline_project.monitoring.predictions import collect_truth, compact_predictions
from pipeline_project.serving.prediction_log import PredictionLog, new_worker_id, ship

DAY = "2026-11-02"
ANSWERED = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
SHA = {name: sha256_bytes(name.encode()) for name in "abcdefn"}


class World:
    """A released package that answers requests."""

    def __init__(self, release):
        self.release, self.context, self.store = release, release.context, release.context.artifacts.bytes
        self.package = release.build()
        release.deploy(self.package)

    def answer(self, request_id, image="a", *, time=ANSWERED, environment="production", status=200, **changes):
        """Log an answer as a worker does, and ship it."""
        found = status == 200
        record = PredictionRecord(
            request_id=request_id,
            time=time,
            environment=environment,
            worker="",
            sequence=0,
            document=1,
            route="champion",
            package=self.package,
            image_id=SHA[image] if image else None,
            status=status,
            predicted_class="electronics" if found else None,
            confidence=0.9 if found else None,
            probabilities=[0.9, 0.1, 0, 0, 0] if found else None,
            latency_ms=2.5,
            measurements=None,
            features=[0.5] * 8 if found else None,
        ).model_copy(update=changes)
        self._write(environment, lambda log: log.append(record))

    def truth(self, request_id, label, received):
        record = TruthRecord(request_id=request_id, label=label, source="api", received=received)
        self._write("production", lambda log: log.append_truth(record))

    def _write(self, environment, append):
        spool = self.release.root / "spool" / environment
        log = PredictionLog(spool, new_worker_id("replica"))
        append(log)
        log.close()
        ship(spool, self.store, environment)

    def compact(self, day=date(2026, 11, 21), *, made=None):
        """As the asset does; `made` sets the clock of the artefact."""
        artifacts = self.context.artifacts
        artifacts.run = "run-of-prediction_log"
        artifact = compact_predictions(self.context, day).artifact
        artifacts.run = None
        if made is not None:
            head = f"features/prediction_log/{day}/head.json"
            self.store.write_json(head, {**self.store.read_json(head), "created": made.isoformat(timespec="seconds")})
        return artifact

    def trace(self, request_id, **options) -> Trace:
        return trace_request(self.context, request_id, **options)


@pytest.fixture
def world(release) -> World:
    return World(release)


def hop(trace, name):
    return next(hop for hop in trace.hops if hop.name == name)


def test_every_hop_from_the_answer_back_to_the_object(world):
    made = world.release.made
    ledger.append(world.store, "ada", "approved", world.package, {"kind": "production_deployment"})
    ledger.append(world.store, "dagster", "deployed_to_production", world.package, {"dagster_run_id": "run-7"})
    ledger.append(world.store, "dagster", "deployed_to_production", "f" * 64, {"dagster_run_id": "run-8"})
    world.release.publish("deployed_endpoint", {"deployment.json": b"{}"}, info={"documents": [1], "package": world.package})
    world.answer("req-1", "b")
    world.truth("req-1", "clothing", ANSWERED + timedelta(minutes=5))
    log = world.compact()
    trace = world.trace("req-1")

    assert trace.problems() == [] and trace.notes == []
    assert (trace.found.where, trace.found.day, trace.found.digest) == ("prediction_log", ANSWERED.date(), log.digest)
    assert trace.found.run == "run-of-prediction_log"
    [answer] = trace.answers
    assert (answer.time, answer.environment, answer.route, answer.document) == (ANSWERED, "production", "champion", 1)
    assert (answer.predicted_class, answer.confidence, answer.status, answer.package) == ("electronics", 0.9, 200, world.package)
    assert trace.truth.label == "clothing" and trace.truth.source == "api"
    document = trace.deployment
    assert (document.number, document.author, document.reason, document.weight, document.run) == (
        1, "Ada", "release", 1.0, "run-of-deployed_endpoint",
    )  # fmt: skip
    assert document.digest == sha256_bytes(world.store.read("artifacts/deployments/production/documents/00000001.json"))
    registered = trace.registration
    assert (registered.model_name, registered.model_version, registered.mlflow_run_id) == ("products", "3", "run-1")
    assert (registered.digest, registered.run) == (made["registered_model"].digest, "run-of-registered_model")

    links = {
        "package, signed": "model_package",
        "verdict of the gates": "release_gate",
        "evaluation report": "evaluation_report",
        "load test report": "load_test_report",
        "dataset version": "dataset_splits",
        f"manifest of {DAY}": "validated_manifest",
        f"inventory of {DAY}": "raw_images",
        "trained model": "trained_model",
        "hyperparameters": "tuned_hyperparameters",
    }
    for name, asset in links.items():
        found = hop(trace, name)
        assert (found.digest, found.run, found.made) == (made[asset].digest, f"run-of-{asset}", made[asset].created), name
    assert hop(trace, "audit ledger").digest == ledger.verify(world.store).head

    image = trace.image
    assert (image.state, image.split, image.label) == ("in the dataset", "test", "clothing")
    assert (image.day, image.pack_row, image.key) == (date(2026, 11, 2), 1, f"{DAY}/images/b.jpg")
    assert (image.etag, image.pack, image.pack_run) == ("etag-b", made["image_pack"].digest, "run-of-image_pack")

    consents = {consent.kind: consent for consent in trace.consents}
    assert list(consents) == [
        "production_deployment",
        "compliance_configuration_changes",
        "model_architecture_changes",
        "data_source_modifications",
    ]
    given = consents["production_deployment"]
    assert (given.state, given.approver, given.reason) == ("approved", "Ada", "gates | passed <b>")
    assert {consents[kind].state for kind in list(consents)[1:]} == {"first value"}
    gates = consents["compliance_configuration_changes"]
    assert gates.subject == digest_of(compliance_settings(world.context.settings))
    assert [(note.actor, note.action, note.run) for note in trace.ledger] == [
        ("ada", "approved", None),
        ("dagster", "deployed_to_production", "run-7"),
    ]

    text = render_trace(trace)
    told = (
        "request req-1", "electronics, confidence 0.9000", "clothing, from api", "products version 3, run run-of-r", f"{DAY}/images/b.jpg",
        "Ada on ", f"row 1 of the image pack of {DAY}, split test", world.package, "run-of-validated_manifest",
        "Every link holds, from the answer back to the photos of 1 day.",
    )  # fmt: skip
    for words in told:
        assert words in text
    assert Trace.model_validate_json(trace.model_dump_json()) == trace


def test_an_answer_is_found_before_its_day_is_compacted_and_after_too_early_a_compaction(world):
    world.answer("early", "a")
    world.truth("early", "toys", ANSWERED)
    trace = world.trace("early")
    assert (trace.found.where, trace.found.digest, trace.truth.label) == ("segments", None, "toys")
    world.compact(made=ANSWERED)
    assert world.trace("early").found.where == "prediction_log"
    world.answer("late", "b", time=ANSWERED + timedelta(hours=2))
    assert world.trace("late").found.where == "segments", "the compacted table of this day was made before the day was over"
    assert "the segments of 2026-11-21, not compacted yet" in render_trace(world.trace("late"))


def test_of_several_answers_to_one_id_the_newest_counts_and_all_of_the_day_are_told(world):
    for minutes, image in ((0, "a"), (9, "b"), (4, "c")):
        world.answer("again", image, time=ANSWERED + timedelta(minutes=minutes))
    world.answer("again", "c", time=ANSWERED - timedelta(days=3))
    trace = world.trace("again")
    assert [(a.time - ANSWERED).seconds // 60 for a in trace.answers] == [9, 4, 0]
    assert trace.image.image_id == SHA["b"]
    assert "the same id was answered before" in render_trace(trace)
    before = world.trace("again", day=(ANSWERED - timedelta(days=3)).date())
    assert [a.image_id for a in before.answers] == [SHA["c"]]


def test_only_the_last_label_received_counts(world):
    world.answer("r")
    for days, label in ((0, "toys"), (2, "books"), (1, "home")):
        world.truth("r", label, ANSWERED + timedelta(days=days))
    collect_truth(world.context, (ANSWERED + timedelta(days=2)).date())
    assert world.trace("r").truth.label == "books"
    assert world.trace("r").truth.received == ANSWERED + timedelta(days=2)


def test_days_older_than_the_answer_are_not_read(world):
    old = ANSWERED - timedelta(days=1)
    world.answer("old", time=old)
    damaged = world.compact(old.date())
    world.store.write(f"{damaged.prefix}predictions.parquet", b"damaged")
    world.answer("new")
    world.compact()
    assert world.trace("new").notes == []
    trace = world.trace("old")  # its segments are still there
    assert trace.found.where == "segments" and "prediction_log of 2026-11-20 could not be read" in trace.notes[0]


@pytest.mark.parametrize(
    ("image", "state", "words"),
    [
        ("a", "in the dataset", "split train"),
        ("d", "left out", "it would join two splits"),
        ("e", "taken in", "accepted on 2026-11-05, which is not in the dataset"),
        ("f", "rejected", "in quarantine, never trained on: truncated: it ends early"),
        ("n", "new", "the model had never seen it"),
        (None, "no image", "before its image was read"),
    ],
)
def test_where_an_image_comes_from(world, image, state, words):
    world.release.take_in("2026-11-05", ["e"])
    reject = Reject(key="2026-11-02/images/f.jpg", code="truncated", detail="it ends early", label="toys", image_id=SHA["f"])
    world.store.write_json(f"{QUARANTINE}/{SHA['f']}/reason.json", reject.model_dump())
    world.answer("r", image)
    trace = world.trace("r")
    assert trace.image.state == state and words in trace.image.detail
    assert trace.problems() == []
    keys = {"a": f"{DAY}/images/a.jpg", "d": f"{DAY}/images/d.jpg", "e": "2026-11-05/images/e.jpg", "f": "2026-11-02/images/f.jpg"}
    assert trace.image.key == keys.get(image)
    assert trace.image.etag == {"a": "etag-a", "d": "etag-d", "e": "etag-e"}.get(image)
    assert hop(trace, f"inventory of {DAY}").run == "run-of-raw_images", "the model's own lineage is there whatever the image"
    assert state in render_trace(trace)


@pytest.mark.parametrize(
    ("image", "state", "words"), [("a", "in the dataset", "; erased since"), ("n", "not known", "gone, but for its tombstone")]
)
def test_an_erased_image_is_told_as_erased(world, image, state, words):
    world.store.write_json(f"processed-data/tombstones/{SHA[image]}.json", {})
    world.answer("r", image)
    found = world.trace("r").image
    assert found.state == state and words in found.detail


def test_a_refused_request_has_an_answer_without_a_prediction(world):
    world.answer("refused", None, status=415)
    assert "no prediction (status 415" in render_trace(world.trace("refused"))
    world.compact()
    [answer] = world.trace("refused").answers
    assert (answer.status, answer.predicted_class, answer.confidence, answer.image_id) == (415, None, None, None)


@pytest.mark.parametrize(
    ("asset", "file", "name"),
    [
        ("model_package", "model.onnx", "package, signed"),
        ("release_gate", "verdict.json", "verdict of the gates"),
        ("evaluation_report", "evaluation.json", "evaluation report"),
        ("load_test_report", "load_test.json", "load test report"),
        ("dataset_splits", "splits.parquet", "dataset version"),
        ("validated_manifest", "manifest.parquet", f"manifest of {DAY}"),
        ("raw_images", "inventory.json", f"inventory of {DAY}"),
        ("trained_model", "weights.safetensors", "trained model"),
        ("tuned_hyperparameters", "hyperparameters.json", "hyperparameters"),
        ("registered_model", "model.json", "registered model"),
        ("image_pack", "index.parquet", "image"),
    ],
)
def test_a_changed_byte_is_a_broken_link(world, asset, file, name):
    world.answer("r", "b")
    assert world.trace("r").problems() == []
    world.release.damage(asset, file)
    trace = world.trace("r")
    assert any(problem.startswith(f"{name}: ") for problem in trace.problems()), trace.problems()
    text = render_trace(trace)
    assert "THE CHAIN IS BROKEN:" in text and "Every link holds" not in text


def test_a_document_that_does_not_lead_to_the_package_is_a_broken_link(world):
    world.answer("elsewhere", route="canary")
    world.answer("nowhere", document=9)
    assert f"it has no route canary to package {world.package[:12]}" in world.trace("elsewhere").deployment.problem
    assert world.trace("nowhere").problems() == ["document 9 of production: there is no such document"]
    world.store.write("artifacts/deployments/production/documents/00000001.json", b"{}")
    assert "not a desired-state document" in world.trace("elsewhere").deployment.problem


def test_a_changed_ledger_is_a_broken_link(world):
    for number in range(3):
        ledger.append(world.store, "ada", "approved", world.package, {"n": number})
    world.answer("r")
    key = f"{ledger.PREFIX}{2:012d}.json"
    world.store.write(key, world.store.read(key).replace(b"ada", b"eve"))
    assert hop(world.trace("r"), "audit ledger").problem != ""


def test_a_withdrawn_key_leaves_its_approvals_missing(world):
    world.answer("r")
    for file in world.context.settings.trusted_approvers.iterdir():
        file.unlink()
    trace = world.trace("r")
    assert "production_deployment: no approval that counts now" in trace.problems()
    assert "MISSING" in render_trace(trace)


def test_staging_needs_no_approval(release):
    staged = World(release)
    for file in release.context.settings.trusted_approvers.iterdir():
        file.unlink()
    production = "artifacts/deployments/production/documents/00000001.json"
    document = {**json.loads(staged.store.read(production)), "environment": "staging"}
    staged.store.write_json(production.replace("/production/", "/staging/"), document)
    staged.answer("r", environment="staging")
    trace = staged.trace("r")
    assert trace.problems() == [] and "production_deployment" not in {consent.kind for consent in trace.consents}


def test_an_unknown_request_says_where_was_searched(world):
    with pytest.raises(UnknownRequestError, match="has no prediction log yet"):
        world.trace("nobody")
    for days in (0, 2):
        world.answer(f"r{days}", time=ANSWERED + timedelta(days=days))
    artifact = world.compact()
    with pytest.raises(UnknownRequestError) as caught:
        world.trace("nobody")
    assert "Request nobody is not in the prediction log; searched: prediction_log and the segments" in str(caught.value)
    assert f"of 2 days (2026-11-21 to 2026-11-23) in {world.store.uri}" in str(caught.value)
    with pytest.raises(UnknownRequestError, match="has no prediction log of 2020-01-01"):
        world.trace("r0", day=date(2020, 1, 1))
    with pytest.raises(UnknownRequestError, match=r"of 1 day \(2026-11-23\)"):
        world.trace("r0", day=date(2026, 11, 23))
    world.store.write(f"{artifact.prefix}predictions.parquet", b"damaged")
    with pytest.raises(UnknownRequestError, match="Not searched: prediction_log of 2026-11-21 could not be read"):
        world.trace("nobody")


@pytest.mark.parametrize("given", ["", "../../etc/passwd", "a/b", "a\n", "x" * 129, "a b", "a\x1b[31m", 'a"', "*", "é", "a\0"])
def test_hostile_request_ids_are_refused(world, given):
    world.answer("r")
    with pytest.raises(ValueError, match="is no request id") as caught:
        world.trace(given)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value) and len(str(caught.value)) < 300


def test_text_of_others_cannot_steer_the_terminal(world):
    world.answer("r", predicted_class="toys\x1b[2J\nforged line")
    text = render_trace(world.trace("r"))
    assert "\x1b" not in text and "toys?[2J forged line" in text
