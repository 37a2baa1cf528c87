"""`@implements`, its static finder, and completeness between ledger, code, notebooks and tests."""

import json
import shutil
import subprocess
import sys

import pytest

from latentpapers import ledger, paths
from latentpapers.errors import UnknownName
from latentpapers.ledger import LedgerError, completeness, implements
from latentpapers.ledger.implements import Implementation, registered, scan
from latentpapers.ledger.schemas import NUMERIC_KINDS


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(sys.modules["latentpapers.ledger.implements"], "_REGISTRY", {})


# --- the decorator ---------------------------------------------------------------------------


def test_the_mark_leaves_the_function_as_it_is(clean_registry):
    def double(x):
        return 2 * x

    marked = implements("avae", eq="99")(double)
    assert marked is double
    assert double(3) == 6
    assert double.__implements__ == (("avae", "99"),)
    assert registered() == {("avae", "99"): f"{__name__}:{double.__qualname__}"}


def test_a_function_may_carry_several_marks(clean_registry):
    @implements("lag", eq="5")
    @implements("lrc_i2i", eq="6")
    def penalty():
        pass

    assert set(penalty.__implements__) == {("lag", "5"), ("lrc_i2i", "6")}


def test_a_second_function_is_refused(clean_registry):
    implements("avae", eq="99")(lambda: 1)
    with pytest.raises(LedgerError, match=r"equation 99 of avae is implemented by .* again by"):

        @implements("avae", eq="99")
        def another():
            pass


def test_reloading_a_module_is_no_second_function(clean_registry):
    def once():
        pass

    implements("avae", eq="99")(once)
    implements("avae", eq="99")(once)
    assert len(registered()) == 1


def test_unknown_paper_is_refused(clean_registry):
    with pytest.raises(UnknownName, match="unknown paper 'vae'"):
        implements("vae", eq="1")


def test_the_decorator_needs_no_torch():
    code = "import sys; from latentpapers.ledger.implements import scan; scan(); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the static finder -----------------------------------------------------------------------

SOURCE = """
from latentpapers.ledger import implements
import latentpapers.ledger as book

@implements("avae", eq="1")
def plain(): ...

class Net:
    @book.implements(paper="avae", eq="2")
    def method(self): ...

@other("avae", eq="3")
def stranger(): ...
"""


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "latentpapers" / "losses"
    folder.mkdir(parents=True)
    (folder / "energy.py").write_text(SOURCE)
    return tmp_path / "latentpapers"


def test_scan_finds_functions_and_methods(package):
    file, module = "latentpapers/losses/energy.py", "latentpapers.losses.energy"
    assert scan(package) == {
        ("avae", "1"): Implementation(f"{module}:plain", file, 6),
        ("avae", "2"): Implementation(f"{module}:Net.method", file, 10),
    }


def test_scan_refuses_a_second_function(package):
    (package / "again.py").write_text(SOURCE)
    with pytest.raises(LedgerError, match=r"again:plain and again by .*energy:plain"):
        scan(package)


def test_scan_refuses_what_it_cannot_read(package):
    text = 'N = "4"\n@implements("avae", eq=N)\ndef f(): ...\n'
    (package / "again.py").write_text(text)
    with pytest.raises(LedgerError, match=r"latentpapers/again.py:2: write @implements"):
        scan(package)


def test_scan_agrees_with_the_registry():
    # The independent way: import the modules and look at what the decorator registered.
    import latentpapers.losses.energy
    import latentpapers.losses.equilibrium
    import latentpapers.losses.variational  # noqa: F401

    static = {key: item.target for key, item in scan().items()}
    imported = {k: v for k, v in registered().items() if k[0] == "avae"}
    assert {k: v for k, v in static.items() if k[0] == "avae"} == imported


# --- completeness ----------------------------------------------------------------------------


@pytest.mark.parametrize("paper", ledger.papers())
def test_nothing_is_missing(paper):
    assert completeness.incomplete(paper) == []


def test_numeric_equations_of_avae_name_what_is_marked():
    marks = {eq: item.target for (paper, eq), item in scan().items() if paper == "avae"}
    book = ledger.load("avae").equations.equations
    assert {e.id: e.implements for e in book if e.implements} == marks
    assert all(e.implements for e in book if e.kind in NUMERIC_KINDS)


@pytest.fixture
def complete(tmp_path, monkeypatch):
    """A checkout whose AVAE equations have anchors, tests and notebooks; the library is ours."""
    source = paths.root() / "notebooks" / "avae" / "ledger"
    folder = tmp_path / "notebooks" / "avae"
    shutil.copytree(source, folder / "ledger")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "tests").mkdir()
    ids = [e.id for e in ledger.load("avae").equations.equations]
    anchors = [f'<a id="eq-{i}"></a>\n' for i in ids]
    cells = [{"cell_type": "markdown", "source": anchors}]
    (folder / "1_derivation.ipynb").write_text(json.dumps({"cells": cells}))
    (folder / "4_figures.ipynb").write_text(json.dumps({"cells": []}))
    tests = [f"def test_eq_{i}(): ...\ndef test_eq_{i}_control(): ...\n" for i in ids]
    (tmp_path / "tests" / "test_avae_identities.py").write_text("".join(tests))
    monkeypatch.setenv("LATENTPAPERS_ROOT", str(tmp_path))
    return tmp_path


def test_a_complete_checkout_has_no_gaps(complete):
    assert completeness.incomplete("avae") == []


GAPS = {
    "anchor": (
        "notebooks/avae/1_derivation.ipynb", 'id=\\"eq-5\\"', 'id=\\"eq-55\\"',
        "avae equation 5: notebook anchor 1_derivation#eq-5 does not exist.",
    ),
    "anchor in code": (
        "notebooks/avae/1_derivation.ipynb", '"cell_type": "markdown"', '"cell_type": "code"',
        "avae equation 1: notebook anchor 1_derivation#eq-1 does not exist.",
    ),
    "check": (
        "tests/test_avae_identities.py", "def test_eq_7()", "def test_eq_seven()",
        "avae equation 7: tests/test_avae_identities.py::test_eq_7 does not exist.",
    ),
    "control": (
        "tests/test_avae_identities.py", "def test_eq_7_control", "def test_7_control",
        "avae equation 7: tests/test_avae_identities.py::test_eq_7_control does not exist.",
    ),
    "another function": (
        "notebooks/avae/ledger/equations.yaml", "energy:autoencode", "energy:autoencoder",
        "avae equation 8: latentpapers.losses.energy:autoencode is marked, but the ledger names "
        "latentpapers.losses.energy:autoencoder.",
    ),
    "mark without equation": (
        "notebooks/avae/ledger/equations.yaml", 'id: "12"', 'id: "12b"',
        "latentpapers.losses.equilibrium:gain_update implements equation 12 of avae, which the "
        "ledger does not list.",
    ),
    "equation without mark": (
        "notebooks/avae/ledger/equations.yaml", 'id: "12"', 'id: "12b"',
        "avae equation 12b: no function is marked; the ledger names "
        "latentpapers.losses.equilibrium:gain_update.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("gap", GAPS)
def test_a_gap_is_found(complete, gap):
    file, old, new, expected = GAPS[gap]
    text = (complete / file).read_text()
    assert old in text
    (complete / file).write_text(text.replace(old, new, 1))
    assert any(expected in problem for problem in completeness.incomplete("avae"))


def test_a_missing_notebook_is_found(complete):
    (complete / "notebooks" / "avae" / "1_derivation.ipynb").unlink()
    (complete / "notebooks" / "avae" / "4_figures.ipynb").unlink()
    problems = completeness.incomplete("avae")
    assert sum("notebook anchor" in p for p in problems) == 15
    assert "avae fig_2: notebook 4_figures does not exist." in problems


def test_functions_are_found_without_import():
    assert completeness.has_function("latentpapers.losses.energy:energy")
    assert not completeness.has_function("latentpapers.losses.energy:enemy")
    assert not completeness.has_function("latentpapers.losses.nowhere:energy")


def test_tests_inside_classes_and_with_parameters(complete):
    text = "class TestA:\n    def test_b(self): ...\n"
    (complete / "tests" / "test_x.py").write_text(text)
    assert completeness.has_test("tests/test_x.py::TestA::test_b[lag]")
    assert not completeness.has_test("tests/test_x.py::test_b")
