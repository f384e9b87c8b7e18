"""What housekeeping keeps and removes, over histories of a project; time is simulated."""

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline_project.governance import ledger
from pipeline_project.governance.chain import walk_chain
from pipeline_project.governance.liveness import EVIDENCE, REMOVABLE
from pipeline_project.governance.removal import apply_removal
from pipeline_project.governance.retention import RetentionError, plan_removal, why_kept
from pipeline_project.governance.retention_text import render_plan, render_why
from pipeline_project.storage import ArtifactMissingError
from pipeline_project_tests.governance.history import History, released


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path)


_STEPS: list[Callable[[History, int], None]] = [
    lambda h, n: h.take_in(1 + n % 2),
    lambda h, _: h.split(),
    lambda h, n: h.shard(1 + n % 2) and None,
    lambda h, _: h.train(),
    lambda h, _: h.package(),
    lambda h, n: h.deploy("production", n),
    lambda h, n: h.deploy("staging", n),
    lambda h, n: h.monitor(1 + n % 2),
    lambda h, _: h.serve(),
    lambda h, n: h.publish("data_profile", tag=f"same {n % 3}") and None,
]


@pytest.mark.slow
@hypothesis_settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # shrinking takes minutes
@given(
    steps=st.lists(st.tuples(st.integers(0, len(_STEPS) - 1), st.integers(0, 5), st.integers(0, 20)), min_size=5, max_size=40),
    days=st.integers(0, 30),
    models=st.integers(1, 3),
    documents=st.integers(1, 3),
    collect_at=st.integers(0, 39),
)
def test_exactly_what_nothing_needs_is_removed(
    steps: list[tuple[int, int, int]], days: int, models: int, documents: int, collect_at: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder), days, models, documents)
        for index, (step, number, hours) in enumerate(steps):
            _STEPS[step](history, number)
            history.now += timedelta(days=hours / 2, seconds=1 + index)
            if index == collect_at:
                collect(history)
        collect(history)


def collect(history: History) -> None:
    """Plan, look, remove, look again."""
    expected, before = history.expected(), history.there()
    files = {p: sorted(f for f in (history.folder / p).rglob("*") if f.is_file()) for p in expected}
    plan = plan_removal(history.context, history.now)
    assert history.there() == before, "a plan removes nothing"
    assert {v.prefix for v in plan.remove} == before - expected
    assert {v.prefix for v in plan.keep} == expected
    done = apply_removal(history.context, plan)
    assert [v.prefix for v in done.versions] == [v.prefix for v in plan.remove]
    assert done.spared == ()
    assert history.there() == expected
    for prefix in expected:
        history.entries[prefix].artifact.verify()
        assert sorted(f for f in (history.folder / prefix).rglob("*") if f.is_file()) == files[prefix]
    again = plan_removal(history.context, history.now)
    assert (again.remove, again.pieces) == ((), ())
    assert apply_removal(history.context, again).list_key == ""


def test_a_package_in_production_keeps_all_that_explains_it(history: History) -> None:
    released(history, 1)
    history.take_in(1)
    history.split()
    history.train()
    history.package()  # judged, never deployed
    history.now += timedelta(days=400)
    apply_removal(history.context, plan_removal(history.context, history.now))
    package = history.find("model_package", history.deployed[0][2])
    needed, waiting = set(), [package.prefix]
    while waiting:
        entry = history.entries[waiting.pop()]
        entry.artifact.verify()
        needed.add(entry.artifact.name)
        waiting += entry.needs
    assert needed == {
        *("model_package", "trained_model", "tuned_hyperparameters", "dataset_splits"),
        *("image_pack", "image_features", "validated_manifest", "image_shard", "raw_images"),
    }


def test_what_is_replaced_goes_when_it_is_old_and_evidence_stays(history: History) -> None:
    released(history, 3)
    plan = plan_removal(history.context, history.now)
    first = history.deployed[0][2]
    gone = {v.name for v in plan.remove}
    assert {"model_package", "trained_model", "image_pack", "dataset_splits"} <= gone
    assert not gone & EVIDENCE
    apply_removal(history.context, plan)
    with pytest.raises(ArtifactMissingError):
        history.artifacts.version("model_package", first)
    verdicts = [e for e in history.entries.values() if e.artifact.name == "release_gate"]
    assert len(verdicts) == 3
    for entry in verdicts:
        entry.artifact.verify()


def test_what_was_the_newest_until_lately_stays_for_runs_that_read_it(history: History) -> None:
    history.take_in()
    history.split()
    history.now += timedelta(days=300)
    history.take_in()
    history.split()
    history.now += timedelta(days=9)
    assert plan_removal(history.context, history.now).remove == ()
    history.now += timedelta(days=2)
    gone = {v.name for v in plan_removal(history.context, history.now).remove}
    # the dataset version stays: it is the parent that a check compares with
    assert gone == {"image_features", "image_pack", "validated_manifest", "image_shard", "raw_images"}


def test_the_table_adds_up_and_says_what_goes(history: History) -> None:
    released(history, 2)
    plan = plan_removal(history.context, history.now)
    rows = {row["what"]: row for row in plan.rows()}
    assert rows["image_pack"] == {
        "what": "image_pack",
        "kept": 1,
        "kept_bytes": sum(v.size for v in plan.keep if v.name == "image_pack"),
        "removed": 1,
        "removed_bytes": sum(v.size for v in plan.remove if v.name == "image_pack"),
    }
    assert rows["total"]["removed"] == len(plan.remove) > 0
    size = sum(f.stat().st_size for v in plan.remove for f in (history.folder / v.prefix).rglob("*") if f.is_file())
    assert rows["total"]["removed_bytes"] == plan.size == size
    assert plan.kept_runs == {"run-0"}


def test_why_names_the_chain_from_a_root(history: History) -> None:
    released(history, 2)
    package = history.find("model_package", history.deployed[1][2])
    dataset = package.info["trained_model"]
    found = why_kept(history.context, dataset[:12], history.now)
    assert len(found) == 1
    assert found[0].kept
    assert found[0].chain[-1] == f"trained_model {dataset[:12]}"
    pack = history.entries[history.heads["image_pack", "2026-01-01"]].artifact
    assert why_kept(history.context, pack.digest, history.now)[0].chain == (
        "newest image_pack of 2026-01-01",
        f"image_pack of 2026-01-01 {pack.digest[:12]}",
    )
    removed = plan_removal(history.context, history.now).remove[0]
    assert not why_kept(history.context, removed.digest, history.now)[0].kept
    with pytest.raises(ValueError, match="No version"):
        why_kept(history.context, "f" * 64, history.now)
    with pytest.raises(ValueError, match="at least 6"):
        why_kept(history.context, "ab", history.now)


def test_a_document_and_a_hanging_replica_keep_their_packages(history: History) -> None:
    released(history, 3)
    history.serve()
    first = history.find("model_package", history.deployed[0][2])
    assert first.prefix not in {v.prefix for v in plan_removal(history.context, history.now).remove}
    chain = why_kept(history.context, first.digest, history.now)[0].chain
    assert chain[0] == "document 1 of production, which a replica serves (champion)"
    history.now += timedelta(days=30)
    assert first.prefix in {v.prefix for v in plan_removal(history.context, history.now).remove}, "the replica is long dead"


def test_dossiers_stay_when_newest_or_named_by_the_ledger(history: History) -> None:
    made = [history.publish("audit_dossier") for _ in range(3)]
    ledger.append(history.artifacts.bytes, "Ada", "read", made[0].digest)
    history.now += timedelta(days=100)
    history.publish("audit_dossier")
    history.now += timedelta(days=100)
    assert {v.digest for v in plan_removal(history.context, history.now).remove} == {m.digest for m in made[1:]}


DAMAGE = ["head.json", "artifact.json", "x.json", "data.bin", "no record", "document", "ledger", "report"]


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_stops_it_before_anything_is_removed(history: History, what: str) -> None:
    released(history, 3)
    history.serve()  # the first package
    plan = plan_removal(history.context, history.now)
    assert plan.remove
    package = history.find("model_package", history.deployed[2][2])
    model = history.entries[history.heads["trained_model", None]].artifact
    store = history.artifacts.bytes
    if what == "head.json":
        store.write("artifacts/trained_model/all/head.json", b"{}")
    elif what == "artifact.json":
        store.write(f"{model.prefix}artifact.json", b"not json")
    elif what == "x.json":
        store.write(f"{package.prefix}x.json", b"{}")
    elif what == "data.bin":
        store.delete(f"{package.prefix}data.bin")
    elif what == "no record":
        older = history.find("model_package", history.deployed[0][2])
        store.delete(f"{older.prefix}artifact.json")
    elif what == "document":
        store.write("artifacts/deployments/production/documents/00000002.json", b"{}")
    elif what == "ledger":
        store.write(f"{ledger.PREFIX}000000000001.json", b"{}")
    elif what == "report":
        store.write("artifacts/deployments/production/replicas/r1.json", b"{}")
    there = store.list("")
    with pytest.raises(RetentionError, match="nothing more is removed"):
        plan_removal(history.context, history.now)
    with pytest.raises(RetentionError, match="nothing more is removed"):
        apply_removal(history.context, plan)
    assert [key for key in store.list("") if "/housekeeping/" not in key] == there


def test_an_asset_without_a_head_and_one_that_is_unknown_lose_nothing(history: History) -> None:
    history.publish("data_profile")
    history.publish("someone_elses_asset")
    history.now += timedelta(days=100)
    history.publish("data_profile")
    history.publish("someone_elses_asset")
    history.now += timedelta(days=100)
    assert {v.name for v in plan_removal(history.context, history.now).remove} == {"data_profile"}
    history.artifacts.bytes.delete("artifacts/data_profile/all/head.json")
    assert plan_removal(history.context, history.now).remove == ()


def test_every_asset_of_the_graph_has_a_rule() -> None:
    from pipeline_project.definitions import defs

    assets = {key.to_user_string() for key in defs().resolve_asset_graph().materializable_asset_keys}
    assert assets <= set(REMOVABLE) | EVIDENCE
    assert not set(REMOVABLE) & EVIDENCE


def test_the_dossier_of_a_served_package_holds_after_everything_else_is_gone(release: Any) -> None:
    package = release.build()
    release.deploy(package)
    artifacts, now = release.context.artifacts, datetime.now(UTC) + timedelta(days=400)
    assert release.made
    for artifact in release.made.values():
        if artifact.name not in EVIDENCE:
            artifacts.publish(artifact.name, {"later.json": b"{}"}, partition=artifact.partition)
    for tag in range(release.context.settings.retention.models):
        artifacts.publish("trained_model", {"later.json": str(tag).encode()})
    artifacts.publish("data_profile", {"x": b"1"})
    artifacts.publish("data_profile", {"x": b"2"})
    done = apply_removal(release.context, plan_removal(release.context, now))
    assert {version.name for version in done.versions} == {"data_profile", "trained_model"}, "only dummies"
    chain = walk_chain(release.context, package)
    assert chain.first_broken is None, chain.first_broken
    assert {"verdict of the gates", "trained model", "hyperparameters"} <= {link.name for link in chain.links}


def test_the_text_names_sizes_and_the_chain(history: History) -> None:
    released(history, 2)
    plan = plan_removal(history.context, history.now)
    lines = render_plan(plan, 3).splitlines()
    size = f"{sum(v.size for v in plan.remove if v.name == 'image_pack') / 1e3:.1f}"
    assert next(line for line in lines if line.startswith("image_pack")).split()[-3:] == ["1", size, "kB"]
    assert next(line for line in lines if line.startswith("runs")).split()[-1] == "3"
    package = history.find("model_package", history.deployed[1][2])
    text = render_why(why_kept(history.context, package.info["trained_model"], history.now))
    assert "one of the 1 newest trained models" in text or "newest trained_model" in text
    assert f"keeps trained_model {package.info['trained_model'][:12]}" in text
    assert "nothing needs it" in render_why(why_kept(history.context, plan.remove[0].digest, history.now))
