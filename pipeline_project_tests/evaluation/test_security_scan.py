"""Really malicious packages, and a clean one; no finding may be missed, none invented."""

import io
import pickle
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline_project.digests import canonical_json
from pipeline_project.evaluation.security_scan import find_pickle, scan_files, scan_package
from pipeline_project.packaging.package import sign_package
from pipeline_project.storage import ArtifactStore, FolderStore
from pipeline_project.trust.signing import load_or_create_key


class Exploit:
    """Runs a harmless program when loaded."""

    def __reduce__(self):
        import os

        return os.system, ("true",)


def codes(files: dict[str, bytes]) -> set[tuple[str, str]]:
    return {(finding.code, finding.where) for finding in scan_files(files)}


def model(nodes: list[onnx.NodeProto], initializers=(), opset: int = 17, domains=("",)) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        list(initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(d, opset if d == "" else 1) for d in domains])


def test_a_good_package_has_no_finding(world):
    assert scan_package(world.context.artifacts, world.package.digest, world.context.settings.trusted_signers) == []


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_is_found_under_any_name_and_protocol(protocol):
    assert ("pickle", "model.onnx") in codes({"model.onnx": pickle.dumps(Exploit(), protocol)})


def test_hidden_pickles_are_found():
    hidden = np.random.default_rng(0).bytes(50_000) + pickle.dumps(Exploit(), 4) + bytes(1000)
    assert ("pickle", "model.onnx") in codes({"model.onnx": hidden})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("data.pkl", pickle.dumps(Exploit(), 2))
    assert {("archive", "model.onnx"), ("pickle", "model.onnx")} <= codes({"model.onnx": archive.getvalue()})
    objects = io.BytesIO()
    np.savez(objects, features=np.array([Exploit()], dtype=object))
    assert ("pickle", "head.npz") in codes({"head.npz": objects.getvalue()})


def test_long_pickles_are_found():
    padded = pickle.dumps([b"x" * 200_000, Exploit()], 4)
    assert find_pickle(padded) is not None
    assert find_pickle(bytes(10) + padded) is not None
    assert find_pickle(b"N" * 3_000_000) is None
    assert find_pickle(b"\x80\x04" + b"N" * 3_000_000) is not None


def test_compressed_object_arrays_and_strange_members_are_found():
    objects = io.BytesIO()
    np.savez_compressed(objects, features=np.array([Exploit()], dtype=object))
    assert ("pickle", "head.npz") in codes({"head.npz": objects.getvalue()})
    strange = io.BytesIO()
    with zipfile.ZipFile(strange, "w") as file:
        file.writestr("run.py", "import os")
    assert ("unknown_file", "head.npz/run.py") in codes({"head.npz": strange.getvalue()})


def test_weights_are_not_taken_for_pickles():
    random = np.random.default_rng(1)
    assert all(find_pickle(random.bytes(2_000_000)) is None for _ in range(3))
    assert find_pickle(random.normal(size=200_000).astype(np.float32).tobytes()) is None
    assert find_pickle(b"") is None
    assert find_pickle(b"N.") is None
    assert find_pickle(canonical_json({"a": [1, 2]})) is None


def test_external_data_is_found_at_any_depth():
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], [0.0])
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    outer = model([helper.make_node("Add", ["x", "w"], ["y"])], [tensor])
    found = [f for f in scan_files({"model.onnx": outer.SerializeToString()}) if f.code == "external_data"]
    assert len(found) == 1
    assert "../../etc/passwd" in found[0].detail
    branch = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor)], "b", [], [])
    inner = model([helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)])
    assert ("external_data", "model.onnx") in codes({"model.onnx": inner.SerializeToString()})


@pytest.mark.parametrize(("domain", "operator"), [("evil.example", "Run"), ("com.microsoft", "EPContext"), ("ai.onnx.ml", "TreeEnsemble")])
def test_operators_outside_the_standard_are_found(domain, operator):
    graph = model([helper.make_node(operator, ["x"], ["y"], domain=domain)], domains=("", domain))
    assert codes({"model.onnx": graph.SerializeToString()}) == {("custom_operator", "model.onnx")}


def test_quantised_operators_and_unused_domains_are_fine():
    node = helper.make_node("QLinearAdd", ["x"] * 7, ["y"], domain="com.microsoft")
    graph = model([node], domains=("", "com.microsoft", "ai.onnx.ml"))
    assert codes({"model.onnx": graph.SerializeToString()}) == set()


def test_functions_opsets_and_broken_graphs_are_found():
    graph = model([helper.make_node("Identity", ["x"], ["y"])])
    graph.functions.append(
        helper.make_function("own", "F", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])], [helper.make_opsetid("", 17)])
    )
    assert codes({"model.onnx": graph.SerializeToString()}) == {("custom_function", "model.onnx")}
    assert codes({"model.onnx": model([], opset=99).SerializeToString()}) == {("opset", "model.onnx")}
    assert ("damaged", "model.onnx") in codes({"model.onnx": b"\xff\xff no graph"})


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"note": "-----BEGIN PRIVATE KEY-----\\nMC4CAQAw"}', "secret"),
        ('{"note": "-----BEGIN OPENSSH PRIVATE KEY-----"}', "secret"),
        ('{"key": "AKIAIOSFODNN7EXAMPLE"}', "secret"),
        ('{"database_password": "correct-horse-battery"}', "secret"),
        ('{"note": "ghp_' + "a1B2" * 9 + '"}', "secret"),
        ('{"author": "jane.doe@example.com"}', "personal_data"),
    ],
)
def test_secrets_and_personal_data_in_text_are_found(text, code):
    assert codes({"package.json": text.encode()}) == {(code, "package.json")}


def test_unknown_files_are_found():
    assert ("unknown_file", "run.sh") in codes({"run.sh": b"#!/bin/sh\n"})


def test_unsigned_foreign_and_changed_packages_are_found(tmp_path, good_files):
    store = ArtifactStore(FolderStore(tmp_path / "store"))
    package = store.publish("model_package", good_files)
    trusted = tmp_path / "trusted"
    assert {f.code for f in scan_package(store, package.digest, trusted)} == {"signature"}
    sign_package(package, load_or_create_key(tmp_path / "stranger.pem"))
    assert {f.code for f in scan_package(store, package.digest, trusted)} == {"signature"}
    sign_package(package, load_or_create_key(tmp_path / "known.pem", trusted))
    assert scan_package(store, package.digest, trusted) == []
    store.bytes.write(f"{package.prefix}model.onnx", b"something else")
    assert {"changed_file"} <= {f.code for f in scan_package(store, package.digest, trusted)}
