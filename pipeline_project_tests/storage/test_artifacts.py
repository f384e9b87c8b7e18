"""Artefacts: named by their contents, never half there, and refused when somebody changed them."""

import json
from pathlib import Path

import pytest

from pipeline_project.settings import load_settings
from pipeline_project.storage import ArtifactMissingError, ArtifactStore, FolderStore, open_artifacts


class StoppingStore(FolderStore):
    """A folder store whose process dies at the n-th write."""

    writes_left = 10**9

    def write(self, key: str, data: bytes) -> None:
        if self.writes_left == 0:
            raise KeyboardInterrupt
        self.writes_left -= 1
        super().write(key, data)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


@pytest.fixture
def artifacts(store: FolderStore) -> ArtifactStore:
    return ArtifactStore(store)


def test_digest_is_of_names_and_contents_alone(artifacts: ArtifactStore) -> None:
    digest = artifacts.publish("trained_model", {"a": b"1", "b": b"2"}).digest
    assert artifacts.publish("trained_model", {"b": b"2", "a": b"1"}, sidecars={"t": b"9"}, info={"x": 1}).digest == digest
    assert artifacts.publish("data_profile", {"a": b"1", "b": b"2"}, partition="2026-11-01").digest == digest
    others = [{"a": b"2", "b": b"1"}, {"a": b"1"}, {"a": b"1", "c": b"2"}, {"a": b"1", "b": b"2", "c": b""}, {}]
    assert len({digest, *(artifacts.publish("trained_model", payload).digest for payload in others)}) == 6


def test_published_artifact_is_found_whole(artifacts: ArtifactStore) -> None:
    artifacts.publish("trained_model", {"m.json": b'{"x": 1}', "w": b"\0\1"}, sidecars={"log": b"hi"}, info={"dataset": "d"})
    found = artifacts.latest("trained_model")
    assert found.json("m.json") == {"x": 1}
    assert found.read("w") == found.path("w").read_bytes() == b"\0\1"
    assert found.sidecar("log") == b"hi"
    assert found.info == {"dataset": "d"}
    found.add_sidecar("log", b"later")
    assert artifacts.latest("trained_model").sidecar("log") == b"later"
    assert artifacts.latest("trained_model").digest == found.digest
    with pytest.raises(KeyError, match=r"no payload file 'x'; it has m\.json, w"):
        found.read("x")


def test_older_versions_stay_readable(artifacts: ArtifactStore) -> None:
    old, new = (artifacts.publish("trained_model", {"w": content}) for content in (b"old", b"new"))
    assert artifacts.latest("trained_model").digest == new.digest
    assert artifacts.version("trained_model", old.digest).read("w") == b"old"
    artifacts.publish("trained_model", {"w": b"old"})
    assert artifacts.latest("trained_model").read("w") == b"old"
    assert artifacts.version("trained_model", new.digest).read("w") == b"new"


@pytest.mark.parametrize("writes", range(5))
def test_head_never_points_at_a_missing_payload(tmp_path: Path, writes: int) -> None:
    store = StoppingStore(tmp_path)
    artifacts = ArtifactStore(store)
    old = artifacts.publish("trained_model", {"a": b"1"})
    store.writes_left = writes  # two payload files, a sidecar, the record and the head: five writes
    with pytest.raises(KeyboardInterrupt):
        artifacts.publish("trained_model", {"a": b"2", "b": b"2"}, sidecars={"s": b"2"})
    found = ArtifactStore(FolderStore(tmp_path)).latest("trained_model")
    assert found.digest == old.digest
    assert found.read("a") == b"1"
    store.writes_left = 5
    retried = artifacts.publish("trained_model", {"a": b"2", "b": b"2"}, sidecars={"s": b"2"})
    assert {file: artifacts.latest("trained_model").read(file) for file in retried.files} == {"a": b"2", "b": b"2"}


def test_changed_bytes_are_refused_until_published_again(artifacts: ArtifactStore, store: FolderStore) -> None:
    published = artifacts.publish("trained_model", {"w": b"weights"})
    store.write(f"{published.prefix}w", b"weightS")
    with pytest.raises(ValueError, match="the bytes differ from those published. Materialize trained_model again"):
        artifacts.latest("trained_model").read("w")
    artifacts.publish("trained_model", {"w": b"weights"})
    assert artifacts.latest("trained_model").read("w") == b"weights"


@pytest.mark.parametrize("file", ["head.json", "artifact.json"])
def test_tampered_record_is_refused(artifacts: ArtifactStore, store: FolderStore, file: str) -> None:
    published = artifacts.publish("trained_model", {"w": b"weights"})
    [key] = [key for key in store.list("") if key.endswith(file)]
    record = json.loads(store.read(key))
    record["files"]["w"] = "0" * 64
    store.write(key, json.dumps(record).encode())
    with pytest.raises(ValueError, match="was changed. Materialize trained_model again"):
        artifacts.latest("trained_model") if file == "head.json" else artifacts.version("trained_model", published.digest)


def test_record_of_another_version_is_refused(artifacts: ArtifactStore, store: FolderStore) -> None:
    good, bad = artifacts.publish("model_package", {"w": b"good"}), artifacts.publish("model_package", {"w": b"bad"})
    store.write(f"{good.prefix}artifact.json", store.read(f"{bad.prefix}artifact.json"))
    with pytest.raises(ValueError, match="is of another artefact"):
        artifacts.version("model_package", good.digest)
    assert artifacts.version("model_package", bad.digest[:24]).read("w") == b"bad"


def test_partitions_are_apart_and_listed(artifacts: ArtifactStore) -> None:
    for day in ("2026-11-02", "2026-11-01"):
        artifacts.publish("image_pack", {"d": day.encode()}, partition=day)
    artifacts.publish("image_features", {"d": b""}, partition="2026-11-09")
    assert artifacts.partitions("image_pack") == ["2026-11-01", "2026-11-02"]
    assert artifacts.latest("image_pack", "2026-11-01").read("d") == b"2026-11-01"
    artifacts.publish("trained_model", {"w": b""})
    assert artifacts.partitions("trained_model") == []
    assert artifacts.partitions("nothing") == []


def test_zones_are_as_specified(artifacts: ArtifactStore, store: FolderStore) -> None:
    for name in ("validated_manifest", "image_features", "trained_model"):
        artifacts.publish(name, {"x": b""})
    assert {key.split("/")[0]: key.split("/")[1] for key in store.list("")} == {
        "processed-data": "validated_manifest", "features": "image_features", "artifacts": "trained_model",
    }  # fmt: skip


def test_missing_artifact_names_what_to_materialize(artifacts: ArtifactStore) -> None:
    assert artifacts.find("trained_model") is None
    with pytest.raises(ArtifactMissingError, match="trained_model is not in .* Materialize trained_model first"):
        artifacts.latest("trained_model")
    with pytest.raises(ArtifactMissingError, match="Materialize image_pack of 2026-11-01 first"):
        artifacts.latest("image_pack", "2026-11-01")
    with pytest.raises(ArtifactMissingError, match="trained_model has no version ffffffffffffffffffffffff in"):
        artifacts.version("trained_model", "f" * 64)


def test_settings_name_the_store(tmp_path: Path) -> None:
    settings = load_settings("sample", environment={"PIPELINE_HOME": str(tmp_path)})
    published = open_artifacts(settings).publish("trained_model", {"w": b"1"})
    assert published.uri == f"{tmp_path}/store/artifacts/trained_model/all/{published.digest[:24]}/"
    assert (Path(published.uri) / "w").read_bytes() == b"1"
