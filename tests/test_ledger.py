"""Ledgers: what they hold, and that every slip is refused with file, entry and field."""

import shutil
import subprocess
import sys

import pytest

from latentpapers import ledger, paths
from latentpapers.errors import UnknownName
from latentpapers.ledger import LedgerError, schemas
from latentpapers.ledger.completeness import broken_metrics


def cells(paper):
    return [cell for table in values(paper).tables for cell in table.cells]


def values(paper):
    return ledger.parse(ledger.files(paper)[0].read_bytes(), schemas.Values, "values.yaml")


def figures(paper):
    return ledger.parse(ledger.files(paper)[1].read_bytes(), schemas.Figures, "figures.yaml")


# --- the ledgers as they are -----------------------------------------------------------------


def test_papers_are_in_the_order_of_the_project():
    assert ledger.papers() == ["lag", "lsrgan", "lrc_i2i", "diamond", "avae"]


def test_every_ledger_is_valid():
    assert ledger.check_all() == []


def test_every_metric_that_names_a_function_has_it():
    assert broken_metrics() == []


@pytest.mark.parametrize(
    ("paper", "total", "numeric"),
    [("lag", 0, 0), ("lsrgan", 120, 120), ("lrc_i2i", 48, 42), ("diamond", 16, 13),
     ("avae", 11, 11)],
)  # fmt: skip
def test_number_of_cells(paper, total, numeric):
    # Counted in the papers' tables by hand.
    found = cells(paper)
    assert (len(found), sum(c.value is not None for c in found)) == (total, numeric)


def test_number_of_tables_and_figures():
    printed = sum(bool(t.cells) for paper in ledger.papers() for t in values(paper).tables)
    # S: a figure of our own, which the paper has not
    drawn = [
        sum(not f.id.startswith("fig_S") for f in figures(paper).figures)
        for paper in ledger.papers()
    ]
    assert (printed, drawn) == (10, [7, 6, 8, 12, 8])


@pytest.mark.parametrize("paper", ["lsrgan", "lrc_i2i", "diamond", "avae"])
def test_values_are_the_printed_ones(paper):
    for cell in cells(paper):
        digits = cell.printed.replace(",", ".").removesuffix("%").removesuffix("dB")
        assert cell.value == (None if cell.printed in "-–" else float(digits)), cell


def test_avae_own_rows():
    own = {c.row for c in cells("avae") if c.source == "own"}
    assert own == {"Ours (BEGAN* + LSM)", "Ours (VAE + BEGAN* + LSM)"}


def test_avae_equations_are_all_there():
    equations = ledger.load("avae").equations.equations
    assert [e.id for e in equations] == [str(n) for n in range(1, 16)]
    assert all(e.check == f"tests/test_avae_identities.py::test_eq_{e.id}" for e in equations)


def test_named_metrics_are_registered():
    named = """psnr_y_b4_u8 ssim_y_7x7_b4 l1_y l1_y_uint8wrap niqe_matlab niqe_pirm ma_pirm pi_pirm
        fid_tf2015_n10000 fid_tf2015_n50000 fid_torchvision_n20000 is_tf2015_50k_s10
        is_digitsnet_n5000 lpips_alex_pairs45 density_vgg16fc2_k5_n2000
        coverage_vgg16fc2_k5_n2000 lr_rmse fd_efficientnetlite0_n2000 recon_l1 recon_l1_gap
        gradient_energy_ratio equilibrium_ratio steady_state_error overshoot settling_steps
        attribute_hit_rate attribute_gain nn_distance_ratio"""
    assert set(named.split()) <= set(ledger.metrics())


def test_stand_ins_have_a_kind():
    assert ledger.standin_kind("digits") == "data"
    assert ledger.standin_kind("digitsnet (5,000 images)") == "features"
    assert ledger.standin_kind("digitsnets") is None


def test_no_metric_on_a_stand_in_is_comparable():
    assert not [m.id for m in ledger.metrics().values() if m.standin and m.comparable_with_paper]


def test_load_is_cached_by_content(checkout):
    first = ledger.load("avae")
    assert ledger.load("avae") is first
    checkout.replace("values.yaml", "title: Adv", "title: A changed title. Adv")
    assert ledger.load("avae").values.title.startswith("A changed title")


def test_ledger_does_not_import_torch():
    code = "import sys, latentpapers.ledger as l; l.check_all(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_lookups_name_what_is_known():
    book = ledger.load("avae")
    assert book.table("table_1").cells
    assert book.equation("12").kind == "operator"
    assert book.cell(schemas.Ref(id="table_1", row="BEGAN", column="IS CIFAR-10")).value == 5.62
    assert book.cell(schemas.Ref(id="table_1", row="BEGAN", column="IS digits")) is None
    for look, id in ((book.table, "table_9"), (book.equation, "99"), (book.claim, "avae-c99")):
        with pytest.raises(UnknownName, match=id):
            look(id)


def test_unknown_paper():
    with pytest.raises(UnknownName, match="unknown paper 'vae'; known: avae"):
        ledger.load("vae")


# --- slips -----------------------------------------------------------------------------------


class Checkout:
    """A copy of AVAE's ledger that a test may spoil."""

    def __init__(self, folder):
        self.folder = folder / "notebooks" / "avae" / "ledger"

    def replace(self, file, old, new):
        text = (self.folder / file).read_text()
        assert old in text, f"the test's {old!r} is not in {file}"
        (self.folder / file).write_text(text.replace(old, new, 1))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    source = paths.root() / "notebooks" / "avae" / "ledger"
    shutil.copytree(source, tmp_path / "notebooks" / "avae" / "ledger")
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setenv("LATENTPAPERS_ROOT", str(tmp_path))
    return Checkout(tmp_path)


SLIPS = {
    "unknown metric": (
        "values.yaml", "metric: is_tf2015_50k_s10", "metric: inception",
        ["values.yaml: table_1 DCGAN / IS CIFAR-10", "'metric'", "unknown metric 'inception'"],
    ),
    "direction against the metric": (
        "values.yaml", "direction: higher, value: 4.89", "direction: lower, value: 4.89",
        ["table_1 DCGAN", "'direction'", "is_tf2015_50k_s10 is 'higher'"],
    ),
    "a number as text": (
        "values.yaml", "value: 4.89", "value: '4.89'", ["table_1 DCGAN", "'value'", "'4.89'"],
    ),
    "not a number": (
        "values.yaml", "value: 4.89", "value: .nan", ["table_1 DCGAN", "'value'", "finite"],
    ),
    "printed text without quotes": (
        "values.yaml", "printed: '4.89'", "printed: 4.89", ["table_1 DCGAN", "'printed'", "4.89"],
    ),
    "a cell twice": (
        "values.yaml", "row: ALI,", "row: DCGAN,", ["table_1", "duplicate cell 'DCGAN / IS CIF"],
    ),
    "unknown field": (
        "values.yaml", "source: quoted}", "source: quoted, colour: red}",
        ["table_1 DCGAN", "'colour'", "not permitted"],
    ),
    "wrong paper": ("values.yaml", "paper: avae", "paper: lag", ["values.yaml", "'paper'", "avae"]),
    "a key twice": (
        "values.yaml", "paper: avae", "paper: avae\npaper: avae",
        ["'paper' appears twice, again at line 3"],
    ),
    "a key twice, deep down": (
        "errata.yaml", "    used: corrected", "    used: corrected\n    used: printed",
        ["errata.yaml", "'used' appears twice"],
    ),
    "no YAML": ("values.yaml", "tables:", "tables: [", ["values.yaml", "not readable as YAML"]),
    "a tag that would build an object": (
        "values.yaml", "paper: avae", "paper: !!python/name:os.system", ["not readable as YAML"],
    ),
    "figure id": ("figures.yaml", "id: fig_2", "id: fig2", ["figures.yaml: fig2", "'id'"]),
    "done figure without notebook": (
        "figures.yaml", "notebook: 1_derivation", "notebook: null", ["fig_1", "names no notebook"],
    ),
    "duplicate equation": (
        "equations.yaml", 'id: "2"', 'id: "1"', ["equations.yaml", "duplicate id '1'"],
    ),
    "equation id as a number": ("equations.yaml", 'id: "2"', "id: 2", ["2", "'id'", "string"]),
    "wrong kind": (
        "equations.yaml", "kind: definition", "kind: theorem", ["1 field 'kind'", "'theorem'"],
    ),
    "done loss without control": (
        "equations.yaml", "control: tests/test_avae_identities.py::test_eq_2_control",
        "control: null", ["equations.yaml: 2", "loss marked done without control"],
    ),
    "TeX with dollars": (
        "equations.yaml", "latex: '\\theta", "latex: '$\\theta", ["equations.yaml: 1", "plain"],
    ),
    "TeX with a tag": (
        "equations.yaml", "latex: '\\theta", "latex: '\\tag{1} \\theta", ["1", "no tag"],
    ),
    "claim on an unknown table": (
        "claims.yaml", "{id: table_1, row: BEGAN,", "{id: table_7, row: BEGAN,",
        ["claims.yaml: avae-c1", "'rules.quick'", "unknown id 'table_7'"],
    ),
    "duplicate claim": (
        "claims.yaml", "id: avae-c2", "id: avae-c1", ["claims.yaml", "duplicate id 'avae-c1'"],
    ),
    "claim of another paper": (
        "claims.yaml", "id: avae-c2", "id: lag-c2", ["lag-c2", "must begin with 'avae-'"],
    ),
    "unknown rule": (
        "claims.yaml", "type: ordering", "type: hunch", ["avae-c1", "rules.quick", "hunch"],
    ),
    "unknown preset": ("claims.yaml", "quick:", "fast:", ["avae-c1", "rules.fast"]),
    "negative margin": ("claims.yaml", "margin: 0.05", "margin: -0.05", ["avae-c1", "margin"]),
    "number rule on an ordering": (
        "claims.yaml", "kind: number", "kind: ordering", ["avae-c5", "number rule needs kind"],
    ),
    "number that the paper does not print": (
        "claims.yaml", "ref: {id: table_1, row: Ours (BEGAN* + LSM), column: IS CIFAR-10}",
        "ref: {id: table_1, row: Ours, column: IS}", ["avae-c5", "prints no number"],
    ),
    "bounds turned round": ("claims.yaml", "low: 0.45", "low: 0.65", ["avae-c10", "low must be"]),
    "nothing decides": (
        "claims.yaml", "missing: CelebA at 128", "note: CelebA at 128", ["avae-c20", "neither"],
    ),
    "unknown erratum": (
        "claims.yaml", "contradicted_by: avae-e11", "contradicted_by: avae-e77",
        ["avae-c7", "unknown erratum 'avae-e77'"],
    ),
    "reading that does not exist": (
        "errata.yaml", "used: corrected", "used: right", ["avae-e1", "'right' is none"],
    ),
    "duplicate erratum": ("errata.yaml", "id: avae-e2", "id: avae-e1", ["duplicate id 'avae-e1'"]),
    "empty text": ("errata.yaml", "where: Eq 11", "where: ' '", ["avae-e1", "'where'", "empty"]),
}  # fmt: skip


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_refused_in_one_sentence(checkout, slip):
    file, old, new, words = SLIPS[slip]
    checkout.replace(file, old, new)
    with pytest.raises(LedgerError) as caught:
        ledger.load("avae")
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert [word for word in words if word not in text] == [], text


def test_the_copy_itself_is_valid(checkout):
    # Control of the test above: the slips are refused, not the copy.
    assert ledger.load("avae").paper == "avae"


def test_a_missing_file_is_named(checkout):
    (checkout.folder / "errata.yaml").unlink()
    with pytest.raises(LedgerError, match=r"avae/ledger/errata\.yaml: the file is missing"):
        ledger.load("avae")


def test_check_all_reports_every_paper(checkout):
    problems = ledger.check_all()  # the copy holds AVAE alone
    assert [p.split("/")[0] for p in problems] == [p for p in ledger.papers() if p != "avae"]


def test_models_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        ledger.load("avae").claims.claims[0].text = "something else"
