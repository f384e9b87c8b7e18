"""Which code decides a step's result: its module, and every module of this project that it imports, directly or through others.

Plumbing is left out: rooms that carry results without changing them (the store, settings, progress, plots, tracking, signatures). The
values of settings count by themselves, see `reuse.py`; records are versioned. A changed line anywhere else makes the steps anew that
can reach it, and no others. It is the same on every machine: file contents, no paths, no times.
"""

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline_project.digests import digest_of, sha256_bytes

_ROOT = Path(__file__).parent
_PACKAGE = _ROOT.name
_PLUMBING = frozenset(
    {
        "code_version", "contracts", "digests", "plots", "provenance", "reuse", "settings", "stage", "storage", "trust",
        "training/tracking.py", "monitoring/tracking.py",
    }
)  # fmt: skip
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<source>[\w.]+)[ \t]+import[ \t]+(?:\((?P<many>[^)]*)\)|(?P<few>[^\n#]*))"
    r"|import[ \t]+(?P<plain>[\w., \t]+))",
    re.MULTILINE,
)
_LIBRARIES = {  # module: distribution; those whose version may change a result
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "evidently": "evidently",
    "imagehash": "imagehash",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnxscript": "onnxscript",
    "optuna": "optuna",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "scipy": "scipy",
    "simplejpeg": "simplejpeg",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "torch": "torch",
    "torchvision": "torchvision",
}


@cache
def files_of(*modules: str) -> dict[str, str]:
    """{file: SHA-256} of modules and of all that they import within this project, without plumbing.

    Args:
        modules: dotted names below `pipeline_project`, such as "training.final". A package stands for all its modules.

    Raises:
        ValueError: there is no such module.
    """
    waiting = [file for module in modules for file in _named(module)]
    found: dict[str, str] = {}
    while waiting:
        file = waiting.pop()
        name = file.relative_to(_ROOT).as_posix()
        if name in found or _is_plumbing(name):
            continue
        found[name], imported, _ = _read(file)
        waiting += imported
    return dict(sorted(found.items()))


@cache
def libraries_of(*modules: str) -> dict[str, str]:
    """{distribution: version} of the libraries that the code of these modules uses and that may change a result."""
    used = {library for file in files_of(*modules) for library in _read(_ROOT / file)[2]}
    return {name: found for name in sorted(used) if (found := _version(name)) is not None}


@cache
def code_version(*modules: str) -> str:
    """One digest over `files_of`, for Dagster's `code_version`."""
    return digest_of(files_of(*modules))[:16]


def _named(module: str) -> list[Path]:
    path = _ROOT.joinpath(*module.split("."))
    if path.is_dir():
        return sorted(path.rglob("*.py"))
    if not path.with_suffix(".py").is_file():
        raise ValueError(f"{_PACKAGE} has no module {module!r}.")
    return [path.with_suffix(".py")]


def _is_plumbing(name: str) -> bool:
    return name in _PLUMBING or name.split("/", maxsplit=1)[0].removesuffix(".py") in _PLUMBING


@cache
def _read(file: Path) -> tuple[str, list[Path], frozenset[str]]:
    """A file's digest, the files of this project that it imports, and the libraries it uses."""
    inside: list[Path] = []
    libraries = set()
    for source, names in _imports(file):
        top = source.split(".")[0]
        if top == _PACKAGE:
            wanted = [[*source.split(".")[1:], name] for name in names] or [source.split(".")[1:]]
            inside += [found for parts in wanted for found in _resolve(parts)]
        elif top in _LIBRARIES:
            libraries.add(_LIBRARIES[top])
    return sha256_bytes(file.read_bytes()), inside, frozenset(libraries)


@cache
def _imports(file: Path) -> list[tuple[str, tuple[str, ...]]]:
    """(module, names) of each import of a file, wherever it stands; `import a.b` has no names."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for match in _IMPORT.finditer(file.read_text("utf-8")):
        listed = re.sub(r"#[^\n]*", "", match["many"] or match["few"] or match["plain"] or "")
        names = [name for part in listed.split(",") if (name := part.split(" as ")[0].strip())]
        if match["source"]:
            found.append((match["source"], tuple(names)))
        else:
            found += [(name, ()) for name in names]
    return found


def _resolve(parts: list[str]) -> list[Path]:
    """The file that defines an imported name. A package's own file only passes names on: it is looked through, not counted."""
    folder = _ROOT
    for part in parts:
        if (folder / f"{part}.py").is_file():
            return [folder / f"{part}.py"]
        if not (folder / part / "__init__.py").is_file():
            return _passed_on(folder / "__init__.py", part)
        folder = folder / part
    return []


@cache
def _passed_on(package: Path, name: str) -> list[Path]:
    """Where a package's `__init__.py` has a name from."""
    for source, imported in _imports(package):
        if name in imported and source.startswith(f"{_PACKAGE}."):
            return _resolve([*source.split(".")[1:], name])
    return [package]


@cache
def _version(distribution: str) -> str | None:
    try:
        return version(distribution).partition("+")[0]  # one release for CPU and GPU builds: the key is the same on every executor
    except PackageNotFoundError:
        return None
