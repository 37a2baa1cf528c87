"""Verdicts: each word and suffix, two-sided decisions, and numbers against SciPy's."""

import math

import numpy as np
import pytest
from scipy import stats

from latentpapers import ledger
from latentpapers.ledger import LedgerError, verdicts
from latentpapers.ledger.schemas import Claim, Ref
from latentpapers.ledger.verdicts import Interval, decide

TIGHT = 1e-12  # float64 round-off of a few operations
AVAE, BEGAN = "Ours (VAE + BEGAN* + LSM)", "BEGAN"


def row(name=AVAE, value=1.0, lo=None, hi=None, *, seed=0, preset="quick", standin=(), **more):
    scale = {"preset": preset, "images": 1000, "budget": None, "data": "digits", "device": "cpu",
             "seeds": [seed], "standin": list(standin)}  # fmt: skip
    base = {
        "paper": "avae", "id": "table_1", "row": name, "column": "IS CIFAR-10",
        "metric": "is_tf2015_50k_s10", "value": value, "lo": lo, "hi": hi,
        "interval": "bootstrap over images, 95 %" if lo is not None else "none: not resampled",
        "n": 5000, "unit": "", "direction": "higher", "seed": seed, "scale": scale,
    }  # fmt: skip
    return base | more


def seeds(name, values, **more):
    return [row(name, v, v - 0.01, v + 0.01, seed=s, **more) for s, v in enumerate(values)]


def claim(rule, *, kind="ordering", about="training_method", **more):
    return Claim(id="avae-c900", text="t", where="w", kind=kind, about=about, status="active",
                 rules={"quick": rule}, **more)  # fmt: skip


def ref(name):
    return {"id": "table_1", "row": name, "column": "IS CIFAR-10"}


def ordering(margin=0.0, **more):
    rule = {"type": "ordering", "better": ref(AVAE), "worse": ref(BEGAN), "margin": margin}
    return claim(rule, **more)


def single(**rule):
    return {"ref": ref(AVAE)} | rule


# --- intervals against SciPy -----------------------------------------------------------------

SAMPLES = [([6.8, 6.7, 7.0], [5.6, 5.9, 5.5]), ([1.0, 2.0], [1.5, 1.4, 1.6, 1.7])]


@pytest.mark.parametrize(("a", "b"), SAMPLES)
def test_welch_interval_is_scipys(a, b):
    ours = verdicts.welch_interval(a, b)
    theirs = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose([ours.lo, ours.hi], [theirs.low, theirs.high], rtol=TIGHT)
    assert ours.value == pytest.approx(np.mean(a) - np.mean(b), rel=TIGHT)


@pytest.mark.parametrize(("a", "b"), SAMPLES)
def test_welch_is_not_students(a, b):
    # Control: the pooled-variance interval is another one for these samples.
    ours = verdicts.welch_interval(a, b)
    pooled = stats.ttest_ind(a, b, equal_var=True).confidence_interval(0.95)
    assert abs(ours.lo - pooled.low) > 1e-3


@pytest.mark.parametrize("values", [[1.0, 2.0], [6.8, 6.7, 7.0, 6.9]])
def test_t_interval_is_scipys(values):
    ours = verdicts.t_interval(values)
    theirs = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    np.testing.assert_allclose([ours.lo, ours.hi], theirs, rtol=TIGHT)


def test_one_value_has_no_interval():
    assert verdicts.t_interval([1.0]) == Interval(1.0, None, None)


def test_equal_values_have_an_interval_of_no_width():
    assert verdicts.welch_interval([2.0, 2.0], [1.0, 1.0]) == Interval(1.0, 1.0, 1.0)


def test_difference_adds_half_widths_in_squares_each_side_with_its_own():
    gap = verdicts.difference(Interval(5, 2, 6), Interval(1, 0.5, 5))
    assert (gap.value, gap.lo, gap.hi) == (4, 4 - 5, 4 + math.hypot(1, 0.5))


def test_difference_has_the_coverage_of_a_normal_interval():
    # Two independent normal estimates: the width is that of the difference's own 95 % interval.
    half = 1.959963984540054
    gap = verdicts.difference(Interval(0, -half, half), Interval(0, -2 * half, 2 * half))
    assert gap.hi == pytest.approx(stats.norm.ppf(0.975, scale=math.sqrt(1 + 4)), rel=1e-9)


def test_minimal_detectable_difference():
    a, b = SAMPLES[0]
    sd = math.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2)
    expected = stats.t.ppf(0.975, 4) * sd * math.sqrt(2 / 3)
    assert verdicts.minimal_detectable(a, b) == pytest.approx(expected, rel=TIGHT)
    # At exactly that difference Student's test has p = 0.05.
    shifted = np.array(b) - np.mean(b) + np.mean(a) - expected
    assert stats.ttest_ind(a, shifted).pvalue == pytest.approx(0.05, rel=1e-9)


# --- ordering of training methods ------------------------------------------------------------


def test_ordering_over_seeds():
    rows = seeds(AVAE, [6.8, 6.7, 7.0]) + seeds(BEGAN, [5.6, 5.9, 5.5])
    found = decide(ordering(), rows, "quick")
    assert found.text == "reproduced at reduced scale"
    assert found.mdd == pytest.approx(verdicts.minimal_detectable(*SAMPLES[0]), rel=TIGHT)
    interval = verdicts.welch_interval(*SAMPLES[0])
    assert f"[{interval.lo:.4g}, {interval.hi:.4g}]" in found.sentence
    assert "Welch t interval, 3 and 3 seeds" in found.sentence
    told = f"Smallest difference that this could tell: {found.mdd:.4g}."
    assert found.sentence.endswith(f"quick scale. {told}")
    assert [e["n"] for e in found.evidence] == [3, 3]


def test_ordering_turned_round_is_not_reproduced():
    rows = seeds(BEGAN, [6.8, 6.7, 7.0]) + seeds(AVAE, [5.6, 5.9, 5.5])
    assert decide(ordering(), rows, "quick").verdict == "not reproduced"


def test_ordering_follows_the_direction_of_the_rows():
    rows = seeds(AVAE, [6.8, 6.7, 7.0], direction="lower")
    rows += seeds(BEGAN, [5.6, 5.9, 5.5], direction="lower")
    assert decide(ordering(), rows, "quick").verdict == "not reproduced"


def test_overlapping_seeds_leave_it_undecided():
    rows = seeds(AVAE, [6.8, 5.0]) + seeds(BEGAN, [5.6, 5.9])
    assert decide(ordering(), rows, "quick").verdict == "undecided"


@pytest.mark.parametrize(
    ("margin", "verdict"),
    [(0.0, "reproduced at reduced scale"), (1.0, "undecided"), (3.0, "not reproduced")],
)
def test_the_margin_counts_on_both_sides(margin, verdict):
    rows = seeds(AVAE, [6.8, 6.7, 7.0]) + seeds(BEGAN, [5.6, 5.9, 5.5])
    assert decide(ordering(margin), rows, "quick").verdict == verdict


def test_pooled_rows_do_not_count_twice():
    rows = seeds(AVAE, [6.8, 6.7, 7.0]) + seeds(BEGAN, [5.6, 5.9, 5.5])
    pooled = [row(AVAE, 6.83, 6.5, 7.2, seed=None, n=3), row(BEGAN, 5.67, 5.2, 6.2, seed=None, n=3)]
    assert decide(ordering(), rows + pooled, "quick") == decide(ordering(), rows, "quick")


def test_pooled_rows_alone_are_used():
    rows = [row(AVAE, 6.8, 6.5, 7.1, seed=None, n=3), row(BEGAN, 5.6, 5.4, 5.8, seed=None, n=3)]
    assert decide(ordering(), rows, "quick").text == "reproduced at reduced scale"


def test_one_seed_is_a_single_run():
    rows = [row(AVAE, 6.8, 6.7, 6.9), row(BEGAN, 5.6, 5.5, 5.7)]
    found = decide(ordering(), rows, "quick")
    assert found.text == "reproduced at reduced scale (single run)"
    assert found.mdd == pytest.approx(math.hypot(0.1, 0.1), rel=1e-9)


def test_one_seed_with_overlap_is_undecided():
    rows = [row(AVAE, 6.8, 6.0, 7.6), row(BEGAN, 6.5, 5.7, 7.3)]
    assert decide(ordering(), rows, "quick").text == "undecided (single run)"


def test_one_seed_without_interval_is_undecided():
    rows = [row(AVAE, 6.8), row(BEGAN, 5.6)]
    assert decide(ordering(), rows, "quick").verdict == "undecided"


def test_full_scale_is_reproduced():
    rows = seeds(AVAE, [6.8, 6.7, 7.0], preset="paper")
    rows += seeds(BEGAN, [5.6, 5.9, 5.5], preset="paper")
    found = decide(ordering(), rows, "quick")
    assert found.text == "reproduced"
    assert "scale" not in found.sentence


def test_one_reduced_row_reduces_the_verdict():
    rows = seeds(AVAE, [6.8, 6.7, 7.0], preset="paper") + seeds(BEGAN, [5.6, 5.9, 5.5])
    assert decide(ordering(), rows, "quick").verdict == "reproduced at reduced scale"


def test_a_trained_model_is_judged_by_its_own_interval():
    rows = seeds(AVAE, [6.8, 1.0, 1.0]) + seeds(BEGAN, [5.6, 9.0, 9.0])
    found = decide(ordering(about="trained_model"), rows, "quick")
    assert found.text == "reproduced at reduced scale"
    assert [e["seeds"] for e in found.evidence] == [[0], [0]]


# --- stand-ins -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "suffixes"),
    [
        (["digits"], ("stand-in data",)),
        (["efficientnetlite0"], ("stand-in features",)),
        (["digits", "vgg16hed"], ("stand-in features", "stand-in data")),
        (["something new"], ("stand-in",)),
    ],
)
def test_stand_ins_of_the_rows_are_named(names, suffixes):
    rows = seeds(AVAE, [6.8, 6.7], standin=names) + seeds(BEGAN, [5.6, 5.5])
    assert decide(ordering(), rows, "quick").suffixes == suffixes


def test_stand_ins_of_claim_and_metric_are_named():
    rows = [row(AVAE, 6.8, 6.7, 6.9, metric="is_digitsnet_n5000"),
            row(BEGAN, 5.6, 5.5, 5.7, metric="is_digitsnet_n5000")]  # fmt: skip
    found = decide(ordering(standin=("digits",)), rows, "quick")
    assert found.text == (
        "reproduced at reduced scale (stand-in features, stand-in data, single run)"
    )


@pytest.mark.parametrize(("preset", "suffixes"), [("gpu", ("stand-in data",)), ("paper", ())])
def test_a_stand_in_of_one_preset_is_named_there_alone(preset, suffixes):
    claim = ordering(standin_at={"gpu": ("cats in place of CelebA-HQ",)})
    claim = claim.model_copy(
        update={"rules": dict.fromkeys(("gpu", "paper"), claim.rules["quick"])}
    )
    rows = [r | {"scale": r["scale"] | {"preset": preset}}
            for r in seeds(AVAE, [6.8, 6.7]) + seeds(BEGAN, [5.6, 5.5])]  # fmt: skip
    assert decide(claim, rows, preset).suffixes == suffixes


# --- other rules -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "interval", "verdict"),
    [
        (">", (0.2, 0.1, 0.3), "reproduced at reduced scale"),
        (">", (-0.2, -0.3, -0.1), "not reproduced"),
        (">", (0.0, -0.1, 0.1), "undecided"),
        ("<", (-0.2, -0.3, -0.1), "reproduced at reduced scale"),
        ("<", (0.2, 0.1, 0.3), "not reproduced"),
        ("<", (0.0, -0.1, 0.1), "undecided"),
    ],
)
def test_bound(op, interval, verdict):
    rule = single(type="bound", op=op, limit=0.0)
    found = decide(claim(rule, about="trained_model"), [row(AVAE, *interval)], "quick")
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((0.5, 0.46, 0.54), "reproduced at reduced scale"),
        ((0.5, 0.44, 0.54), "undecided"),
        ((0.7, 0.6, 0.8), "not reproduced"),
        ((0.2, 0.1, 0.3), "not reproduced"),
        ((0.5, None, None), "undecided"),
    ],
)
def test_within(interval, verdict):
    rule = single(type="within", low=0.45, high=0.55)
    held = claim(rule, kind="number", about="trained_model")
    assert decide(held, [row(AVAE, *interval)], "quick").verdict == verdict


def test_within_over_seeds_uses_their_spread():
    rule = single(type="within", low=0.45, high=0.55)
    held = claim(rule, kind="number")
    assert decide(held, seeds(AVAE, [0.49, 0.5, 0.51]), "quick").text.endswith("reduced scale")
    assert decide(held, seeds(AVAE, [0.46, 0.5, 0.54]), "quick").verdict == "undecided"


@pytest.mark.parametrize(
    ("values", "direction", "verdict"),
    [
        ([1, 2, 3], "increasing", "reproduced at reduced scale"),
        ([1, 2, 3], "decreasing", "not reproduced"),
        ([3, 2, 1], "decreasing", "reproduced at reduced scale"),
        ([1, 3, 2], "increasing", "not reproduced"),
        ([1, 2, 2.05], "increasing", "undecided"),
    ],
)
def test_trend(values, direction, verdict):
    names = ["a", "b", "c"]
    rule = {"type": "trend", "refs": [ref(n) for n in names], "direction": direction}
    rows = [row(n, v, v - 0.1, v + 0.1) for n, v in zip(names, values, strict=True)]
    found = decide(claim(rule, kind="trend", about="trained_model"), rows, "quick")
    assert found.verdict == verdict


def number(tolerance=0.0, **more):
    return claim(single(type="number", tolerance=tolerance, **more), kind="number")


@pytest.mark.parametrize(
    ("values", "tolerance", "verdict"),
    [
        ([6.7, 6.8, 6.9], 0.0, "reproduced at reduced scale"),  # the paper prints 6.80
        ([4.0, 4.1, 4.2], 0.0, "not reproduced"),
        ([4.0, 4.1, 4.2], 3.0, "reproduced at reduced scale"),
        ([9.0, 9.1, 9.2], 0.0, "not reproduced"),
    ],
)
def test_number(values, tolerance, verdict):
    found = decide(number(tolerance), seeds(AVAE, values), "quick")
    assert found.verdict == verdict
    assert "the paper's 6.8" in found.sentence


def test_number_may_come_from_the_text():
    assert decide(number(value=4.1), seeds(AVAE, [4.0, 4.1, 4.2]), "quick").verdict != (
        "not reproduced"
    )


def test_number_on_a_stand_in_is_not_testable():
    found = decide(number(), seeds(AVAE, [6.7, 6.8], standin=["cifar10-jpeg"]), "quick")
    assert found.verdict == "not testable here"
    assert "cifar10-jpeg" in found.sentence


def test_number_of_another_protocol_is_not_testable():
    found = decide(number(), seeds(AVAE, [6.7, 6.8], metric="psnr_y_b4_u8"), "quick")
    assert found.verdict == "not testable here"
    assert "TF Inception-2015 weights" in found.sentence


def test_check_rule():
    test = "tests/test_avae_identities.py::test_eq_5"
    identity = claim({"type": "check", "test": test}, kind="identity", about="mathematics")
    outcome = {"id": "checks", "column": "passed", "metric": "check_passed", "direction": "none"}
    passed, failed = (row(test, v, **outcome) for v in (1, 0))
    assert decide(identity, [passed], "quick").text == "reproduced"
    assert decide(identity, [failed], "quick").text == "not reproduced"
    assert decide(identity, [], "quick").text == "undecided"


def test_mathematics_needs_no_interval_and_no_scale():
    rule = single(type="bound", op="<", limit=0.01)
    exact = claim(rule, about="mathematics")
    found = decide(exact, [row(AVAE, 0.0)], "quick")
    assert found.text == "reproduced"
    assert "0 (exact)" in found.sentence
    assert decide(exact, [row(AVAE, 0.01)], "quick").text == "not reproduced"


# --- claims that no rows decide --------------------------------------------------------------


def test_missing_thing_is_named():
    for id in ("avae-c6", "avae-c20"):
        entry = ledger.load("avae").claim(id)
        found = decide(entry, [], "quick")
        assert found.text == "not testable here"
        assert entry.missing in found.sentence


def test_preset_without_rule_names_the_one_that_decides():
    found = decide(ordering(), [], "gpu")
    assert (found.text, "quick does" in found.sentence) == ("not testable here", True)


def test_cpu_decides_by_the_rule_of_quick_unless_it_has_its_own():
    assert decide(ordering(), [], "cpu").text == decide(ordering(), [], "quick").text == "undecided"
    own = ordering().model_copy(update={"rules": {"gpu": ordering().rules["quick"]}})
    assert decide(own, [], "cpu").text == "not testable here"


def test_contradiction_of_the_paper_is_named():
    found = decide(ledger.load("avae").claim("avae-c7"), [], "quick")
    assert found.text == "paper inconsistent"
    assert "avae-e11" in found.sentence


def test_todo_claim_is_undecided():
    entry = ordering().model_copy(update={"status": "todo"})
    assert decide(entry, [], "quick").text == "undecided"
    hopeless = entry.model_copy(update={"rules": {}, "missing": "the weights"})
    assert decide(hopeless, [], "quick").text == "not testable here"


def test_rows_that_are_not_there_are_named():
    found = decide(ordering(), [row(AVAE, 6.8, 6.7, 6.9)], "quick")
    assert found.text == "undecided"
    assert f"table_1 ({BEGAN}, IS CIFAR-10)" in found.sentence


def test_rows_of_another_paper_are_ignored():
    rows = [row(AVAE, 6.8, 6.7, 6.9, paper="lag"), row(BEGAN, 5.6, 5.5, 5.7)]
    assert decide(ordering(), rows, "quick").text == "undecided"


# --- rows that must not decide ---------------------------------------------------------------

GOOD = row(BEGAN, 5.6, 5.5, 5.7)
BAD = {
    "NaN": ([row(AVAE, math.nan, 6.7, 6.9), GOOD], "finite numbers"),
    "infinity": ([row(AVAE, 6.8, 6.7, math.inf), GOOD], "finite numbers"),
    "text": ([row(AVAE, "6.8", 6.7, 6.9), GOOD], "finite numbers"),
    "interval turned round": ([row(AVAE, 6.8, 6.9, 6.7), GOOD], "do not form an interval"),
    "half an interval": ([row(AVAE, 6.8, 6.7, None), GOOD], "do not form an interval"),
    "unknown metric": ([row(AVAE, 6.8, 6.7, 6.9, metric="taste"), GOOD], "unknown metric 'taste'"),
    "a seed twice": ([row(AVAE, 6.8, 6.7, 6.9)] * 2 + [GOOD], "two rows of one seed"),
    "two protocols": (
        [row(AVAE, 6.8, 6.7, 6.9, metric="is_digitsnet_n5000"), GOOD], "cannot be compared",
    ),
    "no direction": (
        [row(AVAE, 6.8, 6.7, 6.9, direction="none"), row(BEGAN, 5, 4, 6, direction="none")],
        "cannot be ordered",
    ),
    "two directions": ([row(AVAE, 6.8, 6.7, 6.9, direction="lower"), GOOD], "cannot be ordered"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_refused(name):
    rows, words = BAD[name]
    with pytest.raises(LedgerError, match=words):
        decide(ordering(), rows, "quick")


def test_verdicts_are_plain_data_and_depend_on_no_order():
    rows = seeds(AVAE, [6.8, 6.7, 7.0]) + seeds(BEGAN, [5.6, 5.9, 5.5])
    found = decide(ordering(), rows, "quick")
    assert decide(ordering(), iter(rows[::-1]), "quick") == found
    from latentpapers.storage import dumps

    assert '"mdd"' in dumps(found.as_dict())


@pytest.mark.parametrize("paper", ledger.papers())
def test_every_ordering_and_trend_names_the_run_that_could_decide_it(paper):
    """Or what no run here could make up for, or the erratum that contradicts it."""
    for claim in ledger.load(paper).claims.claims:
        if claim.kind in ("ordering", "trend"):
            assert claim.mdd_run or claim.missing or claim.contradicted_by, claim.id


def test_every_claim_of_avae_gets_a_verdict():
    book = ledger.load("avae")
    found = verdicts.decide_all([], "quick", book)
    assert [v.claim for v in found] == [c.id for c in book.claims.claims]
    assert all(v.verdict in verdicts.WORDS and v.sentence.endswith(".") for v in found)


def test_the_ref_of_a_number_is_the_paper_cell():
    assert ledger.load("avae").cell(Ref(**ref(AVAE))).value == 6.8


def test_a_narrow_interval_shows_on_which_side_of_the_limit_it_ends():
    """Four digits would print 1.0002 as 1, the limit itself."""
    assert verdicts.Interval(0.99974, 0.99922, 1.00024).text() == "0.99974 [0.99922, 1.0002]"
    assert verdicts.Interval(0.03503, -0.1173, 0.1874).text() == "0.03503 [-0.1173, 0.1874]"
    assert verdicts.Interval(-0.0, -1.0, 5.0).text() == "0 [-1, 5]"
