"""The suite turns red when something is broken: each test breaks one thing on purpose."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from latentpapers import paths
from latentpapers.report import stamp


def outcome(arguments: list[str], **env: str) -> subprocess.CompletedProcess:
    import os

    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments]
    return subprocess.run(
        command, cwd=paths.root(), env={**os.environ, **env}, capture_output=True, text=True
    )


@pytest.fixture
def library(tmp_path) -> Path:
    """A copy of the library that a test may damage."""
    shutil.copytree(paths.root() / "lib", tmp_path / "lib")
    return tmp_path / "lib"


FLIPS = [
    ("losses/equilibrium.py", "sign = -1 if", "sign = 1 if", "test_eq_11"),
    ("losses/energy.py", "return real - k * (", "return real + k * (", "test_eq_13"),
    ("losses/variational.py", "- log_variance - 1)", "+ log_variance - 1)", "test_eq_3"),
]


@pytest.mark.kernel
@pytest.mark.parametrize("flipped", [True, False])
def test_a_flipped_sign_turns_red(library, flipped):
    """One run for all flips: each must fail its own equation's test, and none without the flip."""
    for file, old, new, _ in FLIPS if flipped else ():
        path = library / "latentpapers" / file
        assert path.read_text().count(old) == 1, old
        path.write_text(path.read_text().replace(old, new))
    tests = [f"tests/test_avae_identities.py::{test}" for *_, test in FLIPS]
    ran = outcome(tests, PYTHONPATH=str(library), LATENTPAPERS_ROOT=str(paths.root()))
    assert ran.returncode == int(flipped), ran.stdout + ran.stderr
    failed = {t for t in tests if f"FAILED {t} " in ran.stdout}
    assert failed == (set(tests) if flipped else set())


@pytest.mark.parametrize("damage", ["number", "figure", "table", "stray"])
def test_a_stale_stamp_turns_red(tmp_path, damage):
    folder = tmp_path / "quick" / "avae"
    shutil.copytree(paths.root() / "results" / "quick" / "avae", folder,
                    ignore=shutil.ignore_patterns("runs"))  # fmt: skip
    assert stamp.inconsistent(tmp_path) == []
    if damage == "number":
        file = folder / "metrics.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        rows[0]["value"] += 0.01
        file.write_text("".join(json.dumps(r, sort_keys=True) + "\n" for r in rows))
    elif damage == "figure":
        with (folder / "figures" / "fig_2.png").open("ab") as file:
            file.write(b"x")
    elif damage == "table":
        file = folder / "tables" / "table_1.md"
        file.write_text(file.read_text().replace("6.80", "6.81"))
    else:
        (folder / "figures" / "fig_99.png").write_bytes(b"x")
    assert stamp.inconsistent(tmp_path)


@pytest.mark.kernel
@pytest.mark.parametrize("broken", [False, True])
def test_a_broken_notebook_turns_red(tmp_path, broken):
    import nbformat

    printed = "close  pass\n"
    cells = [
        nbformat.v4.new_code_cell(
            f"print('close  {'fail' if broken else 'pass'}')",
            metadata={"tags": ["check", "nbval-check-output"]},
            outputs=[nbformat.v4.new_output("stream", name="stdout", text=printed)],
        )
    ]
    cells[0]["execution_count"] = 1  # nbval takes a cell without a count for one that never ran
    nb = nbformat.v4.new_notebook(cells=cells)
    nb.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    nbformat.write(nb, tmp_path / "one.ipynb")
    ran = outcome(["-o", "testpaths=", "--nbval-lax", "--nbval-current-env", str(tmp_path)])
    assert ran.returncode == int(broken), ran.stdout
