"""The house rules of docs/decisions.md: floors, guests, sizes, names."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "revox_lightning"
FILES = sorted(PACKAGE.rglob("*.py"))
FLOORS = {
    "errors": 0, "files": 0, "plain_files": 0, "audio": 0, "dsp": 0, "tape": 0, "kernels": 0,
    "models": 1, "stream": 1, "parallel": 1, "losses": 1, "metrics": 1, "objectives": 1, "measure": 1,
    "data": 2, "capture": 2,
    "system": 3, "distributed": 3, "scorer": 3, "weight_average": 3, "callbacks": 3,
    "runs": 4, "identity": 4, "active": 4, "texture": 4, "export": 4, "report": 4,
    "commands": 5,
}  # fmt: skip
# The floor from which on a guest may be imported, or the rooms that may import it.
GUESTS = {
    "hydra": 5, "omegaconf": 5, "pytorch_lightning": 2, "lightning_fabric": 3,
    "wandb": ("callbacks", "report", "commands"), "soundfile": ("audio",), "torchaudio": ("dsp",),
    "auraloss": ("losses", "metrics"), "torchmetrics": ("losses", "metrics"), "matplotlib": ("report",),
    "numba": 0,
}  # fmt: skip


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", [f for f in FILES if f.parent != PACKAGE or f.name != "__init__.py"], ids=str)
def test_a_file_imports_only_from_floors_below_and_its_own_guests(path):
    floor = FLOORS[room(path)]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "revox_lightning" and len(parts) > 1:
            assert FLOORS.get(parts[1], 0) <= floor, f"{path} (floor {floor}) imports {name}"
            assert {room(path), parts[1]} != {"data", "models"}, f"{path} imports {name}: data serves any model"
        allowed = GUESTS.get(parts[0])
        if isinstance(allowed, int):
            assert floor >= allowed, f"{path} imports {name}, a guest from floor {allowed} on"
        elif allowed is not None:
            assert room(path) in allowed, f"{path} imports {name}, a guest of {allowed}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert text.count("\n") <= 300, f"{path} has {text.count(chr(10))} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno <= 50, f"{path}:{node.lineno} {node.name}"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("kernels/*.[ch]*")), ids=str)
def test_kernel_sources_stay_small(path):
    assert path.read_text().count("\n") <= 300, path


def test_no_room_is_called_after_nothing():
    for path in FILES:
        assert path.stem not in {"utils", "common", "base", "core", "helpers", "misc"}, path
        assert len(path.relative_to(PACKAGE).parts) <= 2, f"{path}: one level of folders"


def test_models_cite_their_paper_in_the_first_line():
    for name in ("recurrent", "tcn", "wavenet", "nam_wavenet"):
        first = (PACKAGE / "models" / f"{name}.py").read_text().splitlines()[0]
        assert any(year in first for year in ("2019", "2020", "2021", "2022", "2023")), first


def test_the_constraints_name_no_addresses():
    assert "://" not in (ROOT / "constraints.txt").read_text()
