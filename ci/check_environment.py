"""Proves that environment.yml lists what pyproject.toml lists: same packages, same ranges.

    python ci/check_environment.py [FOLDER]

Prints one line a difference and exits with 1, or one line and 0. It does not prove that a conda
channel has those versions.
"""

import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet


def from_pyproject(folder: Path) -> dict[str, SpecifierSet]:
    """Conda name -> range, of the dependencies and of Python itself."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    names = project.get("tool", {}).get("latentpapers", {}).get("conda-names", {})
    wanted = map(Requirement, project["project"]["dependencies"])
    found = {names.get(r.name, r.name): r.specifier for r in wanted}
    return {"python": SpecifierSet(project["project"]["requires-python"])} | found


def from_conda(folder: Path) -> dict[str, SpecifierSet]:
    """The same of environment.yml; what conda has not comes by its `pip` section.

    Raises:
        packaging.requirements.InvalidRequirement: a line that is no name with a range.
    """
    listed = yaml.safe_load((folder / "environment.yml").read_text())["dependencies"]
    by_pip = [line for part in listed if isinstance(part, dict) for line in part["pip"]]
    by_conda = [line for line in listed if isinstance(line, str) and line != "pip"]
    return {r.name: r.specifier for r in map(Requirement, by_conda + by_pip)}


def differences(a: dict[str, SpecifierSet], b: dict[str, SpecifierSet]) -> list[str]:
    """One line a package that is missing on a side or has another range there."""
    return [
        f"{name}: pyproject.toml {a.get(name, 'absent')}, environment.yml {b.get(name, 'absent')}"
        for name in sorted(a.keys() | b.keys())
        if a.get(name) != b.get(name)
    ]


def main(folder: Path) -> int:
    """Compares and prints; the exit status."""
    a, b = from_pyproject(folder), from_conda(folder)
    found = differences(a, b)
    print("\n".join(found) or f"{len(a)} packages agree")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(*sys.argv[1:2])))
