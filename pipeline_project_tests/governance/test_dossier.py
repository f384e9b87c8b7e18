import shutil

import pytest

from pipeline_project.governance import ledger
from pipeline_project.governance.checks import check_chain
from pipeline_project.governance.dossier import build_dossier


def test_without_a_document_there_is_nothing_to_account_for(release):
    with pytest.raises(ValueError, match="Materialize deployed_endpoint first"):
        build_dossier(release.context)


def test_an_intact_chain_is_told_in_full(release):
    package = release.build()
    release.deploy(package)
    ledger.append(release.context.artifacts.bytes, "Ada", "deployed", package)
    result = build_dossier(release.context)
    dossier = result.artifact.json("dossier.json")
    assert result.metadata["chain_intact"] is True and all(link["problem"] == "" for link in dossier["links"])
    names = [link["name"] for link in dossier["links"]]
    assert names[:3] == ["package, signed", "approval of the deployment", "verdict of the gates"]
    assert {"manifest of 2026-11-02", "inventory of 2026-11-02", "trained model", "hyperparameters", "audit ledger"} <= set(names)
    assert dossier["package"]["signer"] == "package-signer" and dossier["model"]["hyperparameters"]["batch_size"] == 32
    assert dossier["registration"]["model_version"] == "3" and dossier["approvals"][0]["approver"] == "Ada"
    assert dossier["ledger"]["entries"] == 1
    rows = {row["link"]: row for row in result.metadata["links"].rows}
    for link, asset in (("verdict of the gates", "release_gate"), ("inventory of 2026-11-02", "raw_images")):
        assert (rows[link]["digest"], rows[link]["run"]) == (release.made[asset].digest, f"run-of-{asset}")
    text = result.artifact.read("dossier.md").decode()
    assert "1. [Summary](#summary)" in text and "0.9100 (0.8800-0.9400)" in text and "2026-11-03 | reject rate 0.20" in text
    assert "gates \\| passed &lt;b>" in text
    outcome = check_chain(release.context)[0]
    assert outcome.passed and outcome.name == "chain_intact"
    assert build_dossier(release.context).artifact.digest == result.artifact.digest


@pytest.mark.parametrize(
    ("name", "file", "link"),
    [
        ("model_package", "model.onnx", "package, signed"),
        ("release_gate", "verdict.json", "verdict of the gates"),
        ("evaluation_report", "evaluation.json", "evaluation report"),
        ("load_test_report", "load_test.json", "load test report"),
        ("dataset_splits", "splits.parquet", "dataset version"),
        ("validated_manifest", "manifest.parquet", "manifest of 2026-11-02"),
        ("raw_images", "inventory.json", "inventory of 2026-11-02"),
        ("trained_model", "weights.safetensors", "trained model"),
        ("tuned_hyperparameters", "hyperparameters.json", "hyperparameters"),
    ],
)
def test_a_changed_byte_breaks_the_chain_at_its_link(release, name, file, link):
    release.deploy(release.build())
    build_dossier(release.context)
    release.damage(name, file)
    outcome = check_chain(release.context)[0]
    assert not outcome.passed and f"breaks at: {link}" in outcome.detail
    dossier = build_dossier(release.context).artifact.json("dossier.json")  # it is still made, and says so
    assert next(entry["name"] for entry in dossier["links"] if entry["problem"]) == link


def test_a_removed_artefact_breaks_the_chain(release):
    release.deploy(release.build())
    build_dossier(release.context)
    shutil.rmtree(release.context.artifacts.bytes.local_path(release.made["trained_model"].prefix + "artifact.json").parent)
    assert "breaks at: trained model" in check_chain(release.context)[0].detail


def test_a_verdict_of_no_and_a_missing_approval_break_the_chain(release):
    release.deploy(release.build(passed=False, approve=False))
    dossier = build_dossier(release.context).artifact.json("dossier.json")
    broken = {link["name"]: link["problem"] for link in dossier["links"] if link["problem"]}
    assert "no valid approval" in broken["approval of the deployment"] and "accuracy = 0.91" in broken["verdict of the gates"]


def test_a_dossier_of_an_earlier_champion_is_out_of_date(release):
    release.deploy(release.build())
    build_dossier(release.context)
    release.deploy(release.build(seed=1), number=2)
    assert "Materialize audit_dossier again" in check_chain(release.context)[0].detail
    build_dossier(release.context)
    assert check_chain(release.context)[0].passed


def test_a_ledger_cut_off_after_the_dossier_is_found(release):
    package = release.build()
    release.deploy(package)
    store = release.context.artifacts.bytes
    for action in ("approved", "deployed"):
        ledger.append(store, "Ada", action, package)
    build_dossier(release.context)
    store.delete(f"{ledger.PREFIX}{2:012d}.json")
    outcome = check_chain(release.context)[0]
    assert not outcome.passed and "audit ledger" in outcome.detail and "ends at 1" in outcome.detail
