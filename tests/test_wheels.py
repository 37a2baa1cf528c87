"""Files out of wheels: pinned, not run, not unpacked here; what the package manager is told."""

import dataclasses
import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from latentpapers import storage, wheels
from latentpapers.errors import Corrupt, Missing, UserError
from latentpapers.wheels import Wheel

BODY, LICENCE = b"numbers" * 100, b"Permission is hereby granted"


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "toy_wheel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy_wheel/data/toy.bin", BODY)
        archive.writestr("toy_wheel/__init__.py", "raise RuntimeError('imported')")
        archive.writestr("toy_wheel-1.0.dist-info/LICENSE", LICENCE)
        archive.writestr("../../escaped.txt", "out of the folder")
    return path


@pytest.fixture
def one(wheel):
    members = {"data/toy.bin": hashlib.sha256(BODY).hexdigest()}
    licence = "toy_wheel-1.0.dist-info/LICENSE"
    return Wheel("toy-wheel==1.0", storage.sha256_file(wheel), "toy_wheel", members, licence)


def unpack(wheel, folder):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist()[:3]:
            archive.extract(name, folder)


def test_what_a_wheel_is_asked_for(one):
    assert one.names == ("toy.bin",)
    assert one.hashes == {"toy.bin": hashlib.sha256(BODY).hexdigest()}
    assert dataclasses.replace(one, licence="").inner == {"toy.bin": "toy_wheel/data/toy.bin"}


def test_a_wheel_on_this_machine_is_read_without_unpacking_or_running_it(wheel, one, tmp_path):
    assert wheels.read(one, wheel) == {"toy.bin": BODY, "LICENSE": LICENCE}
    assert list(tmp_path.iterdir()) == [wheel]
    assert not list(tmp_path.parent.rglob("escaped.txt"))


def test_another_wheel_an_incomplete_one_and_none_are_refused(wheel, one):
    other = dataclasses.replace(one, members={"data/absent.bin": "0" * 64})
    with pytest.raises(Corrupt, match=r"lacks what toy-wheel==1\.0 holds .*absent"):
        wheels.read(other, wheel)
    wheel.write_bytes(wheel.read_bytes()[:-30])
    with pytest.raises(Corrupt, match="another SHA-256"):
        wheels.read(one, wheel)
    short = dataclasses.replace(one, sha256=storage.sha256_file(wheel))
    with pytest.raises(Corrupt, match="lacks what"):
        wheels.read(short, wheel)
    with pytest.raises(Missing, match="no wheel"):
        wheels.read(one, wheel.with_name("absent.whl"))


def test_a_member_that_is_a_link_is_refused(wheel, one):
    with zipfile.ZipFile(wheel, "w") as archive:
        link = zipfile.ZipInfo("toy_wheel/data/toy.bin")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "../../../secret")
        archive.writestr(one.licence, LICENCE)
    with pytest.raises(Corrupt, match="link or device"):
        wheels.read(dataclasses.replace(one, sha256=storage.sha256_file(wheel)), wheel)


@pytest.fixture
def manager(wheel, one, monkeypatch):
    """The package manager, replaced by the local wheel; the commands that it got."""
    seen = []

    def install(command, **_):
        target = next(part.split("=", 1)[1] for part in command if part.startswith("--target="))
        wanted = Path(command[command.index("-r") + 1]).read_text()
        assert wanted == f"{one.requirement} --hash=sha256:{one.sha256}\n"
        seen.append(command)
        unpack(wheel, target)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(wheels.subprocess, "run", install)
    return seen


def test_a_wheel_comes_through_the_package_manager(one, manager):
    assert wheels.fetch(one) == {"toy.bin": BODY, "LICENSE": LICENCE}
    (command,) = manager
    assert {"--no-deps", "--require-hashes", "--only-binary=:all:"} <= set(command)
    target = next(part for part in command if part.startswith("--target="))
    assert not Path(target.split("=", 1)[1]).exists()  # nothing stays behind
    other = dataclasses.replace(one, members={"data/absent.bin": "0" * 64})
    with pytest.raises(Corrupt, match=r"toy-wheel==1\.0 lacks toy_wheel/data/absent\.bin"):
        wheels.fetch(other)


@pytest.mark.parametrize(
    ("error", "said"),
    [("noise\nerror: no route to host\n", "error: no route to host"), ("\n", "exit 1")],
)
def test_a_failure_of_the_package_manager_is_quoted(one, monkeypatch, error, said):
    failed = subprocess.CompletedProcess([], 1, "", error)
    monkeypatch.setattr(wheels.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match=rf"toy-wheel==1\.0 \({said}\); check the network"):
        wheels.fetch(one)


def test_without_uv_the_interpreter_s_pip_is_used(monkeypatch):
    monkeypatch.setattr(wheels.shutil, "which", lambda name: "/somewhere/uv")
    assert wheels._installer()[:3] == ["/somewhere/uv", "pip", "install"]
    monkeypatch.setattr(wheels.shutil, "which", lambda name: None)
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: object())
    assert wheels._installer()[1:4] == ["-m", "pip", "install"]
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="neither uv nor pip"):
        wheels._installer()


def test_an_installed_package_is_found_and_not_imported(wheel, one, tmp_path, monkeypatch):
    assert wheels.installed(one) is None
    unpack(wheel, tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = wheels.installed(one)
    assert found == tmp_path / "site" / "toy_wheel" / "data" / "toy.bin"
    found.unlink()
    assert wheels.installed(one) is None
