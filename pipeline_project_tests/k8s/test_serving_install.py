"""The serving image has the base install only: what the server imports when it loads must come from pyproject's base dependencies."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import pipeline_project

PACKAGE = Path(pipeline_project.__file__).parent
ROOT = PACKAGE.parent
SERVED = ["serving", "packaging/package.py", "imaging", "storage", "trust", "settings", "contracts.py", "digests.py", "stage.py"]
ON_DEMAND = {"boto3", "botocore"}  # only where store.root is s3://; the extra s3 adds them to the image


def served_files() -> list[Path]:
    return [file for path in SERVED for file in ([PACKAGE / path] if path.endswith(".py") else sorted((PACKAGE / path).rglob("*.py")))]


def imports(file: Path, *, inside_functions: bool) -> set[str]:
    """Top-level names that a file imports: when it loads (`if TYPE_CHECKING:` left out), or inside its functions."""
    found: set[str] = set()

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if inside == inside_functions:
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(file.read_text("utf-8")), False)
    return found - set(sys.stdlib_module_names) - {"pipeline_project"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def base() -> set[str]:
    """The distributions that pyproject names for the base install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return {canonical(re.split(r"[\[<>=!~;\s]", entry, maxsplit=1)[0]) for entry in project["dependencies"]}


@pytest.fixture(scope="module")
def locked() -> set[str]:
    """Everything in the serving image, with what the base dependencies bring along."""
    text = (ROOT / "k8s" / "serving.lock").read_text("utf-8")
    return {canonical(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)}


@pytest.fixture(scope="module")
def distributions() -> dict[str, set[str]]:
    return {module: {canonical(name) for name in names} for module, names in packages_distributions().items()}


@pytest.mark.slow
@pytest.mark.parametrize("file", served_files(), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_the_server_loads_with_the_base_install(file: Path, base: set[str], locked: set[str], distributions: dict[str, set[str]]) -> None:
    through_fastapi = {"starlette"}  # FastAPI's own foundation: part of its interface
    for module in imports(file, inside_functions=False):
        assert distributions[module] & (base | through_fastapi), f"{module}: not a base dependency of pyproject.toml"
        assert distributions[module] & locked, f"{module}: not in k8s/serving.lock"


@pytest.mark.slow
def test_what_functions_import_is_installed_or_on_demand(locked: set[str], distributions: dict[str, set[str]]) -> None:
    later = {module for file in served_files() for module in imports(file, inside_functions=True)}
    missing = {module for module in later if not distributions.get(module, set()) & locked}
    assert missing == set(), "the server would fail when it first gets there"
    assert later & ON_DEMAND, "boto3 is imported where it is needed; k8s/serving.in exists for it"


@pytest.mark.slow
def test_the_walk_sees_what_it_should() -> None:
    assert "fastapi" in imports(PACKAGE / "serving" / "app.py", inside_functions=False)
    assert "boto3" in imports(PACKAGE / "storage" / "s3_client.py", inside_functions=True)
    assert "boto3" not in imports(PACKAGE / "storage" / "s3_client.py", inside_functions=False)
