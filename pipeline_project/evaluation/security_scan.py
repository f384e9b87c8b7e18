"""security_scans_clear, the package's half: is every byte of it what a server may load (R197)?

A package is data. Anything in it that could run code, reach outside it, or give something away is a finding.
"""

import io
import json
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_project.ingest.privacy import mask_personal_data
from pipeline_project.packaging.package import NAME, SIGNATURE_FILE, PackageError, load_package
from pipeline_project.storage import ArtifactStore
from pipeline_project.trust.signing import UntrustedError

KNOWN_FILES = frozenset({"package.json", "model.onnx", "model.fp32.onnx", "head.npz", "reference.npz"})
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
# Of ONNX Runtime's own operators only arithmetic: com.microsoft also has EPContext, which opens files that the graph names.
QUANTISED_OPERATORS = frozenset(
    {
        *("QLinearAdd", "QLinearMul", "QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearConcat", "QLinearSigmoid"),
        *("QLinearLeakyRelu", "QLinearSoftmax", "QGemm", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeMatMul"),
        *("MatMulIntegerToFloat", "FusedConv", "FusedGemm", "FusedMatMul"),
    }
)
_OPSETS = range(11, 27)
_PICKLE_HEADER = re.compile(rb"\x80[\x02-\x05]")
_MANY_OPCODES = 100_000
_IDENTIFIER = re.compile(r"[A-Za-z_][\w.]*( [A-Za-z_][\w.]*)?")
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
_SECRETS: Mapping[str, re.Pattern[bytes]] = {
    "private key": re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "AWS access key": re.compile(rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "GitHub token": re.compile(rb"\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{40}"),
    "Slack token": re.compile(rb"\bxox[abprs]-[0-9A-Za-z-]{10,}"),
    "Google API key": re.compile(rb"\bAIza[0-9A-Za-z_-]{35}"),
    "JSON web token": re.compile(rb"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
}
_TEXT_SECRET = re.compile(r"(?i)(?:password|passwd|secret|api[_-]?key|(?:access|auth)[_-]?token)[\"']?\s*[:=]\s*[\"']?[^\s\"',}{\[]{8,}")


@dataclass(frozen=True)
class Finding:
    """Something that must not be there. `code` is stable, `where` a file or a probe, `detail` for people."""

    code: str
    where: str
    detail: str

    def as_json(self) -> dict[str, str]:
        """A JSON value."""
        return asdict(self)


def scan_package(artifacts: ArtifactStore, digest: str, trusted_signers: Path) -> list[Finding]:
    """Every finding in a published package: signature, files, graphs, text. An empty list means that it may be served.

    Raises:
        ArtifactMissingError: there is no such package.
    """
    artifact = artifacts.version(NAME, digest)
    findings = []
    try:
        load_package(artifacts, digest, trusted_signers)
    except UntrustedError as error:
        findings.append(Finding("signature", SIGNATURE_FILE, str(error)))
    except PackageError as error:
        findings.append(Finding("package", NAME, str(error)))
    files: dict[str, bytes] = {}
    for file in artifact.files:
        try:
            files[file] = artifact.read(file)
        except (ValueError, FileNotFoundError) as error:
            findings.append(Finding("changed_file", file, str(error)))
    return findings + scan_files(files)


def scan_files(files: Mapping[str, bytes]) -> list[Finding]:
    """Findings in a package's files {name: bytes}, sorted by name."""
    findings: list[Finding] = []
    for name, data in sorted(files.items()):
        if name not in KNOWN_FILES:
            findings.append(Finding("unknown_file", name, f"a package holds only {', '.join(sorted(KNOWN_FILES))}"))
        if pickled := find_pickle(data):
            findings.append(Finding("pickle", name, pickled))
        if name.endswith(".npz"):
            findings += _scan_arrays(name, data)
        elif zipfile.is_zipfile(io.BytesIO(data)):
            findings.append(Finding("archive", name, "a zip archive; only .npz files may be one"))
        if name.endswith(".onnx"):
            findings += _scan_graph(name, data)
        findings += _scan_text(name, data)
    return findings


def find_pickle(data: bytes) -> str | None:
    """What makes the bytes a pickle or hide one that calls something, or None.

    Looks at the start (every protocol) and at each protocol header within (an archive's member, a tensor's padding). Bytes of weights
    look like opcodes now and then, so within a file only a pickle that names a callable counts.
    """
    file = io.BytesIO(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weights read as text hold odd escape sequences
        is_pickle, calls = _read_pickle(file, 0)
        if is_pickle and (calls or data[:1] == b"\x80"):
            return "the file is a pickle: loading it could run any program"
        for match in _PICKLE_HEADER.finditer(data):
            if _read_pickle(file, match.start()) == (True, True):
                return f"a pickle that names a callable starts at byte {match.start()}"
    return None


def _read_pickle(file: io.BytesIO, start: int) -> tuple[bool, bool]:
    """Whether a pickle starts there (opcodes up to STOP, or very many), and whether it names a callable."""
    file.seek(start)
    texts, calls = 0, False
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            named = bool(_IDENTIFIER.fullmatch(str(argument)))
            calls |= (opcode.name in ("GLOBAL", "INST") and named) or (opcode.name == "STACK_GLOBAL" and texts >= 2)
            texts += "UNICODE" in opcode.name and named
            if count >= _MANY_OPCODES:
                break
    except Exception:  # genops raises whatever its readers meet in bytes that are no pickle
        return False, False
    return True, calls


def _scan_arrays(name: str, data: bytes) -> list[Finding]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            strange = [member for member in archive.zip.namelist() if not member.endswith(".npy")]
            for member in archive.files:
                archive[member]
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        return [Finding("pickle" if "pickle" in str(error) else "damaged", name, f"not an archive of plain arrays: {error}")]
    return [Finding("unknown_file", f"{name}/{member}", "an array archive holds only .npy members") for member in strange]


def _scan_graph(name: str, data: bytes) -> list[Finding]:
    import onnx

    try:
        model = onnx.load_from_string(data)
    except Exception as error:  # protobuf's errors have no stable public class
        return [Finding("damaged", name, f"not an ONNX graph: {error}")]
    findings = []
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "?")
            findings.append(Finding("external_data", name, f"tensor {tensor.name!r} is read from {location!r}; weights must be inside"))
    findings += [
        Finding("custom_function", name, f"defines {function.domain}:{function.name}; only standard operators may be used")
        for function in model.functions
    ]
    nodes = [node for source in (model.graph, *model.functions) for node in _nodes(source)]
    for domain, operator in sorted({(node.domain, node.op_type) for node in nodes}):
        standard = domain in STANDARD_DOMAINS or (domain == "com.microsoft" and operator in QUANTISED_OPERATORS)
        if not standard:
            findings.append(Finding("custom_operator", name, f"{domain}:{operator} is neither standard ONNX nor quantised arithmetic"))
    opsets = [entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS]
    if len(opsets) != 1 or opsets[0] not in _OPSETS:
        findings.append(Finding("opset", name, f"opset {opsets}; one of {_OPSETS.start}-{_OPSETS.stop - 1} is expected"))
    return findings


def _nodes(graph: Any) -> Iterator[Any]:
    """Nodes of a graph or function, and of the graphs inside If, Loop and Scan."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor that a graph holds: initializers, sparse ones, and constants, at any depth."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors, attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _scan_text(name: str, data: bytes) -> list[Finding]:
    findings = [Finding("secret", name, f"holds a {kind}") for kind, pattern in _SECRETS.items() if pattern.search(data)]
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return findings
    if "\0" in text:
        return findings
    if _TEXT_SECRET.search(text):
        findings.append(Finding("secret", name, "holds something like a password or a token"))
    kinds = sorted({kind for value in _strings(text) for kind in mask_personal_data(value)[1]})
    if kinds:
        findings.append(Finding("personal_data", name, f"holds personal data: {', '.join(kinds)}"))
    return findings


def _strings(text: str) -> list[str]:
    """The strings of a JSON text, digests left out (their digits can look like card numbers); any other text as a whole."""
    try:
        pending = [json.loads(text)]
    except ValueError:
        return [text]
    found = []
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            pending += value
        elif isinstance(value, str) and not _HEX_DIGEST.fullmatch(value):
            found.append(value)
    return found
