"""What LSRGAN's printed tables say about themselves: changes, counts, and the wrapped L1."""

import numpy as np
import torch

from latentpapers import ledger
from latentpapers.metrics.full_reference import l1_y, l1_y_uint8wrap
from latentpapers.report import tables

BOOK = ledger.load("lsrgan")
SETS = ("Set14", "PIRM", "Urban100", "BSD")


def cells(table):
    return {(c.row, c.column): c.value for c in BOOK.table(table).cells}


def deviations(values):
    """Recomputed less printed changes of Table 1."""
    out = []
    for name in SETS:
        for what, unit in (("PI", " %"), ("SSIM", " %"), ("PSNR", "")):
            old, new = (values[row, f"{what} {name}"] for row in ("ESR", "LSR"))
            change = 100 * (new - old) / old if unit else new - old
            out.append(change - values["LSR against ESR", f"{what} change{unit} {name}"])
    return np.abs(out)


def test_printed_changes_follow_from_printed_values():
    assert deviations(cells("table_1")).max() < 0.0051  # half a unit of the last printed digit


def test_the_table_says_that_a_number_is_a_misprint():
    remarks = {(c.row, c.column): tables.note(None, c) for c in BOOK.table("table_4").cells}
    flagged = [place for place, text in remarks.items() if "24.73" in text]
    assert flagged == [("LSR (mu = 1e-3)", "PSNR Urban100")]
    assert remarks["LSR (mu = 1e-7)", "PSNR Urban100"] == "not run in this preset"  # control


def test_a_misprint_would_be_seen():
    """Control: Table 4's 25.73 in Table 1's place (lsrgan-e1)."""
    wrong = cells("table_1") | {("LSR", "PSNR Urban100"): 25.73}
    assert deviations(wrong).max() > 0.9


def wins(values):
    rows = ["LSR (mu = 0)", "LSR (mu = 1e-7)", "LSR (mu = 1e-3)"]
    columns = [f"{w} {s}" for w in ("PI", "PSNR", "SSIM") for s in (*SETS[:3], "BSD100")]
    sign = {"PI": -1}
    best = [max(rows, key=lambda r, c=c: sign.get(c.split()[0], 1) * values[r, c]) for c in columns]
    return best.count(rows[2])


def test_nine_of_twelve_under_both_readings():
    values = cells("table_4")
    assert values["LSR (mu = 1e-3)", "PSNR Urban100"] == 25.73  # as printed
    assert wins(values) == 9
    assert wins(values | {("LSR (mu = 1e-3)", "PSNR Urban100"): 24.73}) == 9
    assert wins(values | {("LSR (mu = 1e-3)", "PSNR Urban100"): 20.0}) == 8  # control


def test_only_bsd_is_the_exception_of_the_spreads():
    values = cells("table_2")
    rises = [s for s in SETS if values["CLSR", f"PSNR std {s}"] > values["CESR", f"PSNR std {s}"]]
    assert rises == ["BSD"]


def test_table_3_cannot_be_a_mean_absolute_error_but_can_be_a_wrapped_one():
    """Error at 25 dB: the true L1 is below 0.06, the wrapped one near the printed 0.42 to 0.46."""
    printed = list(cells("table_3").values())
    assert min(printed) > 10 ** (-25 / 20)  # the mean is at most the root mean square
    g = torch.Generator().manual_seed(0)
    target = torch.full((1, 1, 96, 96), 120.0)
    noise = 255 * 10 ** (-25 / 20) * torch.randn(target.shape, generator=g)
    images = [x.round().clamp(0, 255).byte().expand(1, 3, -1, -1) for x in (target + noise, target)]
    assert float(l1_y(*images)) < 0.06
    assert 0.40 < float(l1_y_uint8wrap(*images)) < 0.52
