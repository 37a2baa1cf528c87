"""The gallery in a real browser, from the file system and without a network: formulas and pictures
show, nothing is cut off on a wide or a narrow screen, filters filter, links lead there and back.

Asked for by `make test-browser`; screenshots lie in `LATENTPAPERS_SHOTS`.
"""

import os
import subprocess
import sys

import pytest
from browser_bed import ROOT, browser, missing, shots

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "runs")

PAGES = ["index", "start_here", "claims", "errata_measured", "known_gaps", "notation",
         "lag/index", "lsrgan/results_quick", "diamond/results_quick", "avae/results_quick",
         "avae/equations", "avae/errata", "avae/1_derivation", "lrc_i2i/5_explore",
         "across/4_matrix_and_claims", "source/latentpapers.losses.energy"]  # fmt: skip
WIDE, NARROW = 1280, 390

# What sticks out of the window without a scroll bar of its own.
CUT = """() => {
  const scrolls = (e) => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX);
  const cut = (e) => {
    for (let up = e; up && up.tagName !== 'ARTICLE'; up = up.parentElement)
      if (scrolls(up)) return up.getBoundingClientRect().right > innerWidth + 1;
    return e.getBoundingClientRect().right > innerWidth + 1;
  };
  const what = 'article table, article img, article pre, article math, article p, article select';
  return [...document.querySelectorAll(what)].filter(e => e.offsetParent && cut(e))
    .map(e => e.tagName + ' ' + e.textContent.trim().slice(0, 60));
}"""
SQUEEZED = """() => [...document.querySelectorAll('article td, article th')]
  .filter(e => e.offsetParent && e.textContent.trim().length > 12
          && e.clientWidth && e.clientWidth < 40)
  .map(e => e.textContent.trim().slice(0, 60))"""
PICTURES = """() => [...document.images].filter(i => i.offsetParent || i.complete)
  .filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.src)"""
FORMULAS = """() => [...document.querySelectorAll('math')].filter(m => m.checkVisibility())
  .filter(m => { const r = m.getBoundingClientRect(); return r.width < 3 || r.height < 5; })
  .map(m => m.textContent)"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A gallery built by the project's interpreter."""
    out = tmp_path_factory.mktemp("site") / "gallery"
    python = os.environ.get("LATENTPAPERS_PYTHON", sys.executable)
    env = os.environ | {"PYTHONPATH": str(ROOT / "lib")}
    subprocess.run([python, "-m", "latentpapers", "gallery", "--out", out], env=env, cwd=ROOT,
                   check=True)  # fmt: skip
    return out


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


@pytest.fixture
def tab(chromium):
    """A tab that notes what it asks for and what goes wrong."""
    page = chromium.new_page(viewport={"width": WIDE, "height": 1000})
    page.asked, page.wrong = [], []
    page.on("request", lambda r: page.asked.append(r.url))
    page.on("requestfailed", lambda r: page.wrong.append(r.url))
    page.on("console", lambda m: page.wrong.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: page.wrong.append(str(e)))
    yield page
    page.close()


def opened(tab, site, name: str, width: int = WIDE):
    tab.set_viewport_size({"width": width, "height": 1000})
    tab.goto((site / f"{name}.html").as_uri())
    # pictures of a notebook may wait until they are scrolled to
    tab.evaluate("document.querySelectorAll('img').forEach(i => { i.loading = 'eager'; })")
    tab.wait_for_load_state("load")
    tab.wait_for_timeout(200)
    return tab


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_page_shows_everything(tab, site, name, width):
    opened(tab, site, name, width)
    tab.screenshot(path=shots() / f"gallery_{name.replace('/', '_')}_{width}.png", full_page=True)
    assert tab.evaluate("document.scrollingElement.scrollWidth - innerWidth") <= 1
    assert tab.evaluate(CUT) == []
    assert tab.evaluate(SQUEEZED) == []
    assert tab.evaluate(PICTURES) == []
    assert tab.evaluate(FORMULAS) == []
    assert tab.wrong == []
    assert [u for u in tab.asked if not u.startswith(("file:", "data:", "blob:"))] == []


def test_control_what_is_cut_off_squeezed_or_missing_is_found(tab, site):
    opened(tab, site, "index", NARROW)
    tab.evaluate("""document.querySelector('article').insertAdjacentHTML('beforeend',
      '<table style="width:900px;overflow:hidden"><tr><td>wide</td></tr></table>'
      + '<img src="no.png" width="9" height="9"><math></math>'
      + '<table style="table-layout:fixed;width:60px"><tr><td>a longer text</td><td>b</td></tr>'
      + '</table>')""")
    tab.wait_for_timeout(300)
    assert any("wide" in text for text in tab.evaluate(CUT))
    assert any("longer" in text for text in tab.evaluate(SQUEEZED))
    assert any("no.png" in source for source in tab.evaluate(PICTURES))
    assert tab.evaluate(FORMULAS) == [""]
    assert tab.wrong


def test_filters_of_the_claims_work_together(tab, site):
    opened(tab, site, "claims")
    rows = tab.locator("table.ledger tbody tr")
    every = rows.count()

    def shown() -> int:
        visible = sum(rows.nth(i).is_visible() for i in range(every))
        assert tab.locator("#filter-count").inner_text() == f"{visible} of {every} claims"
        return visible

    assert shown() == every > 100
    tab.select_option("#filter-kind", "failed")
    failed = shown()
    assert failed == tab.locator('tr[data-kind="failed"]').count() > 0
    tab.select_option("#filter-paper", "lag")
    assert shown() == tab.locator('tr[data-kind="failed"][data-paper="lag"]').count() < failed
    tab.screenshot(path=shots() / "gallery_claims_filtered.png")
    tab.fill("#filter-text", "no claim has these words")
    assert shown() == 0
    tab.fill("#filter-text", "")
    for name in ("kind", "paper"):
        tab.select_option(f"#filter-{name}", "")
    assert shown() == every


# A page scrolls smoothly to its anchor: to be waited for.
SEEN = """id => { const r = document.getElementById(id).getBoundingClientRect();
  return r.top > -5 && r.top < innerHeight; }"""


@pytest.mark.parametrize("paper", ["lag", "lsrgan", "lrc_i2i", "diamond", "avae"])
def test_an_equation_leads_to_its_function_and_back(tab, site, paper):
    opened(tab, site, f"{paper}/1_derivation")
    link = tab.locator('article small a[href*="../source/"]').first
    assert len(link.get_attribute("title")) > 10  # what a hover says
    here = tab.url
    link.click()
    tab.wait_for_load_state("load")
    place, _, line = tab.url.partition("#")
    assert "/source/latentpapers." in place
    tab.wait_for_function(SEEN, arg=line)
    function = tab.locator(f'a.eq[href*="../{paper}/1_derivation.html#"]').first
    tab.screenshot(path=shots() / f"gallery_{paper}_function.png")
    function.click()
    tab.wait_for_load_state("load")
    assert tab.url.partition("#")[0] == here
    tab.wait_for_function(SEEN, arg=tab.url.partition("#")[2])


def test_solutions_are_folded_until_they_are_asked_for(tab, site):
    opened(tab, site, "avae/5_explore")
    fold = tab.locator("article details:has(summary:has-text('Solutions'))")
    assert fold.count() == 1
    words = fold.locator("li").first
    assert not words.is_visible()
    fold.locator("summary").click()
    assert words.is_visible()
    solution = tab.locator(".tag_solution details")
    assert solution.count() == 1
    assert not solution.locator("pre").is_visible()
    solution.locator("summary").click()
    assert solution.locator("pre").is_visible()


def test_provenance_of_a_number_is_one_click_away(tab, site):
    opened(tab, site, "avae/results_quick")
    tab.locator('section[id^="table-"] a[href="#provenance"]').first.click()
    tab.wait_for_function(SEEN, arg="provenance")
    assert tab.locator("#provenance td code").count() > 3
