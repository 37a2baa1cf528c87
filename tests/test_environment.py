"""The ways to install agree: pyproject.toml, environment.yml, requirements.lock, the Makefile."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
FILES = ("pyproject.toml", "environment.yml", "ci/check_environment.py")


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def check(folder):
    command = [sys.executable, str(ROOT / "ci/check_environment.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_conda_and_pip_users_get_the_same():
    done = check(ROOT)
    assert done.returncode == 0, done.stdout
    assert "packages agree" in done.stdout


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("environment.yml", "numpy>=2.0", "numpy>=1.26", "numpy: pyproject.toml >=2.0, env"),
        ("environment.yml", "  - psutil>=6.0\n", "", "psutil: pyproject.toml >=6.0, env"),
        ("environment.yml", "  - lpips", "  - rich>=13\n  - lpips", "rich: pyproject.toml absent"),
        ("environment.yml", "python>=3.11", "python>=3.12", "python: pyproject.toml >=3.11"),
        ("pyproject.toml", '"torch>=2.11"', '"torch>=2.12"', "pytorch: pyproject.toml >=2.12"),
    ],
)  # fmt: skip
def test_a_drift_of_environment_yml_is_found(tmp_path, file, old, new, says):
    for name in FILES[:2]:
        shutil.copy(ROOT / name, tmp_path)
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    done = check(tmp_path)
    assert done.returncode == 1
    assert says in done.stdout


def locked():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = (re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", line) for line in lines)
    return {m[1].lower(): m[2] for m in pins if m}


def test_the_lock_holds_every_dependency_within_its_range():
    pins = locked()
    groups = project()["dependency-groups"]
    plain = [e for g in ("workflow", "gallery", "test") for e in groups[g]]
    for wanted in map(Requirement, [*project()["project"]["dependencies"], *plain]):
        assert wanted.name.lower() in pins, wanted
        assert wanted.specifier.contains(pins[wanted.name.lower()]), wanted


def test_the_lock_has_hashes_and_no_addresses():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "--index-url" not in text
    assert text.count("--hash=sha256:") >= len(locked())


def test_jupyterlab_stays_out_of_the_lock():
    """It slows every kernel start by seconds; `make lab` alone installs it."""
    assert "jupyterlab" not in locked()
    assert "jupyterlab>=4.2" in project()["dependency-groups"]["lab"]


def test_make_help_names_every_target():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = (
        "setup reproduce refresh plan check test test-latest lab gallery bundle benchmark clean"
    )
    for name in wanted.split():
        assert re.search(rf"^  {name} ", done.stdout, re.MULTILINE), name


def test_an_unchanged_lock_makes_setup_a_single_comparison(tmp_path):
    """Without uv on the path: had it tried to sync, it would have failed."""
    shutil.copytree(ROOT / "ci", tmp_path / "ci")
    (tmp_path / "requirements.lock").write_text("numpy==2.0\n")
    fake = tmp_path / ".venv/bin/python"
    fake.parent.mkdir(parents=True)
    fake.write_text("#!/bin/sh\nexit 9\n")
    fake.chmod(0o755)
    sha = subprocess.run(["sha256sum", "requirements.lock"], cwd=tmp_path, capture_output=True,
                         text=True, check=True).stdout.split()[0]  # fmt: skip
    (tmp_path / ".venv/.lock-sha").write_text(sha + "\n")
    command = ["bash", "ci/setup.sh"]
    env = {"PATH": "/usr/bin:/bin", "UV": "uv-that-is-absent"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.returncode == 0
    (tmp_path / "requirements.lock").write_text("numpy==2.1\n")
    env["PATH"] = str(tmp_path / "ci")  # nothing to bootstrap with
    done = subprocess.run(["/bin/bash", "ci/setup.sh"], cwd=tmp_path, env=env, capture_output=True,
                          check=False)  # fmt: skip
    assert done.returncode != 0


def test_ci_runs_what_people_run():
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "exec make test"
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    assert "make test" in workflow
