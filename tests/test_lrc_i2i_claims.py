"""The claims of LRC-I2I that are about mathematics, and that its rules read rows that exist."""

import json
import re

import pytest
import torch

from latentpapers import config, ledger, paths
from latentpapers.latent import pulse
from latentpapers.ledger.schemas import CHECKS, refs
from latentpapers.losses import subspace
from latentpapers.nets import lrc_i2i
from latentpapers.papers import lrc_i2i as lrc


def real_and_low():
    real = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return real, subspace.reduce(real, 8)


def test_the_map_of_a_real_image_is_exactly_zero():
    """c29: the image's own reduction is its target, so the difference is zero in every value."""
    real, low = real_and_low()
    assert (subspace.difference(low, low) == 0).all()
    assert (subspace.seen(real, low, real=True)[1] == 0).all()
    other = subspace.difference(low, low.flip(0))
    assert other.max() > 0  # negative control: another image's target


def test_rounding_the_output_instead_leaves_real_images_a_map_of_up_to_half_a_step():
    """Reading `paper` rounds DS alone, so that even a perfect fit is off: half a step at most."""
    _, low = real_and_low()
    own = subspace.difference(low, low, reading="paper")
    assert 0.4 < own.max() <= 0.5 + 1e-4  # float32 on steps of 2/255
    grey = torch.arange(256.0).view(1, 1, 16, 16).expand(-1, 3, -1, -1) / 127.5 - 1
    level = subspace.difference(grey, grey, reading="paper")
    # 8-bit levels are odd multiples of 1/255, so each lies in the middle between two steps
    assert torch.allclose(level, torch.full_like(level, 0.5), atol=1e-3)


def test_one_pass_suffices_where_pulse_searches():
    """c24: calls of the generator for one image, ours and PULSE's."""
    net = lrc_i2i.Generator(16, 4, width=4, cap=8, spectral=False).eval()
    weight = torch.randn(2, 3 * 16 * 16, generator=torch.Generator().manual_seed(1)) / 2
    calls = {"ours": 0, "PULSE": 0}

    def ours(*_):
        calls["ours"] += 1

    def generate(codes):
        calls["PULSE"] += 1
        return torch.tanh(codes @ weight).view(-1, 3, 16, 16)

    net.to_rgb.register_forward_hook(ours)
    real, low = real_and_low()
    low = subspace.reduce(real, 4)[:1]
    with torch.no_grad():
        net(subspace.reduce(real, 16)[:1], low)
    space = pulse.of_codes(generate, 2)
    begin = pulse.start(space, 1, torch.Generator().manual_seed(2))
    found = [pulse.search(space, low, lambda v: subspace.reduce(v, 4), pulse.Plan(steps=k), begin)
             for k in (1, 10)]  # fmt: skip
    assert calls == {"ours": 1, "PULSE": 11}
    # negative control: the one-step search is no answer, the longer one comes nearer
    assert float(found[1].best) < float(found[0].best)


@pytest.mark.parametrize("preset", ["quick", "gpu", "paper"])
def test_every_rule_reads_a_row_that_a_notebook_records(preset):
    """Ids and columns of the rules occur in the notebooks' code, the preset's domain put in."""
    domain = lrc.PRESETS[preset].domain
    folder = paths.root() / "notebooks" / "lrc_i2i"
    code = ""
    for path in sorted(folder.glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        code += "".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    code = code.replace("{D}", domain)
    for claim in ledger.load("lrc_i2i").claims.claims:
        for ref in refs(claim.rules[preset]) if preset in claim.rules else ():
            if ref.id == CHECKS:
                continue
            assert re.search(rf'"{ref.id}"', code), (claim.id, ref.id)
            question, _, of = ref.column.rpartition(" ")
            known = question in code and (of == domain or f'"{of}"' in code)
            known |= preset == "paper" and (ref.id, ref.row, ref.column) in published()
            assert ref.column in code or known, (claim.id, ref.column)


def published():
    """Where preset `paper` records numbers of the published protocols (`lrc.as_published`)."""
    stands = {(i, of.row, column) for of in lrc.PRINTED.values() for i, column, _ in lrc.places(of)}
    for row, a, b in lrc.VERSUS:
        one, other = ({metric: column for _, column, metric in lrc.places(lrc.PRINTED[name])}
                      for name in (a, b))  # fmt: skip
        stands |= {("differences", row, one[metric]) for metric in one.keys() & other.keys()}
    return stands


def test_preset_paper_reads_published_numbers_where_the_paper_prints_them():
    """No rule of that preset decides a table's claim on stand-in features; none reads a column that
    two metrics share."""
    read = {}
    for claim in ledger.load("lrc_i2i").claims.claims:
        for ref in refs(claim.rules["paper"]) if "paper" in claim.rules else ():
            read.setdefault(claim.id.partition("-")[2], set()).add((ref.id, ref.row, ref.column))
    tables = {k: v for k, v in read.items() if any(i in ("differences", "table_4") for i, *_ in v)}
    assert set(tables) == {"c5", "c6", "c10", "c11", "c12", "c14", "c16"}
    assert set().union(*tables.values()) <= published()
    domains = {preset.domain for preset in lrc.PRESETS.values()}
    assert not any(column.endswith(tuple(domains)) for *_, column in published())  # the stand-ins'


def test_what_stands_in_for_celeba_is_said():
    scale = config.Scale("gpu", 1, None, "cats 8 to 128 px, width 32", "gpu", (0,))
    assert lrc.where_celeba(scale, "cats").standin == ("cats",)
    assert lrc.where_celeba(scale, "celeba-hq").standin == ()
    assert ledger.standin_kind("cats") == "data"
