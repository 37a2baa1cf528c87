"""The gallery of the real checkout: no broken link, no machine path, no unlabelled figure."""

import html
import os
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from latentpapers import paths
from latentpapers.report import gallery, sources

pytestmark = pytest.mark.kernel  # half a minute of Sphinx: not for `make check`

_TARGET = re.compile(r"""<(?:a|link|img|script|source)\b[^>]*?\s(?:href|src)=["']([^"']*)["']""")
_ID = re.compile(r"""\s(?:id|name)=["']([^"']+)["']""")
# Of this machine, or of the places where such checkouts are tested.
MACHINE = tuple({str(paths.root()), str(Path.home()), os.path.realpath(paths.root())} - {"/"})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return gallery.build(tmp_path_factory.mktemp("whole") / "gallery").parent


@pytest.fixture(scope="module")
def pages(site):
    return {p.relative_to(site).as_posix(): p.read_text() for p in site.rglob("*.html")}


def broken(site: Path, pages: dict[str, str]) -> list[str]:
    """Links inside the site whose file or anchor does not exist."""
    ids = {name: set(_ID.findall(text)) for name, text in pages.items()}
    out = []
    for name, text in pages.items():
        for target in map(html.unescape, _TARGET.findall(text)):
            path, _, anchor = target.partition("#")
            if re.match(r"[a-z]+:", path):
                continue
            file = (site / name).parent.joinpath(unquote(path.partition("?")[0])).resolve()
            inside = file.relative_to(site.resolve()).as_posix() if path else name
            lost = anchor and inside in ids and unquote(anchor) not in ids[inside]
            if lost or (path and not file.is_file()):
                out.append(f"{name}: {target}")
    return sorted(set(out))


def test_no_link_is_broken(site, pages):
    assert len(pages) > 30
    assert broken(site, pages) == []


def test_control_a_broken_link_is_found(site, pages):
    damaged = pages["index.html"].replace("</body>", '<a href="no.html">x</a><a href="#no">y</a>')
    found = set(broken(site, pages | {"index.html": damaged})) - set(broken(site, pages))
    assert found == {"index.html: #no", "index.html: no.html"}


def naming(texts: dict[str, str]) -> list[str]:
    """Files that name a path of this machine."""
    return [name for name, text in texts.items() if any(m in text for m in MACHINE)]


def test_no_page_names_a_machine(site, pages):
    kinds = (".html", ".js", ".css", ".txt", ".csv")
    texts = {p.as_posix(): p.read_text() for p in site.rglob("*") if p.suffix in kinds}
    assert naming(texts) == []
    assert naming({"control": f"<p>see {paths.root()}/results</p>", "fine": "<p>results</p>"}) == [
        "control"
    ]


def unlabelled(pages: dict[str, str]) -> tuple[list[Path], int]:
    """Committed figures that their page shows without scale label or way to the provenance, and
    how many there are."""
    out, count = [], 0
    for paper in (*sources.papers(), *sources.others()):
        for preset in sources.presets(paper):
            page, found = pages[f"{paper}/results_{preset}.html"], sources.results(paper, preset)
            for figure in found.figures():
                count += 1
                own = anchor(figure.stem) + "-drawn" * figure.stem.startswith("table_")
                section = re.search(rf'<section id="{own}">.*?</section>', page,
                                    re.DOTALL)  # fmt: skip
                words = html.unescape(section[0]) if section else ""
                label = found.facts(figure)["label"]
                if label not in words or 'href="#provenance"' not in words:
                    out.append(figure)
    return out, count


def test_every_figure_of_the_results_has_its_label_and_its_provenance(pages):
    found, count = unlabelled(pages)
    assert found == []
    assert count > 20


def test_control_a_figure_without_label_or_provenance_is_found(pages):
    name = "avae/results_quick.html"
    first = sources.results("avae", "quick").figures()[0]
    label = html.escape(sources.results("avae", "quick").facts(first)["label"], quote=False)
    assert label in pages[name]
    assert first in unlabelled(pages | {name: pages[name].replace(label, "")})[0]
    gone = pages[name].replace('href="#provenance"', 'href="#"')
    assert first in unlabelled(pages | {name: gone})[0]


def anchor(stem: str) -> str:
    from latentpapers.report import tables

    return re.sub(r"[^a-z0-9]+", "-", tables.label(stem).lower()).strip("-")


def wordless(text: str) -> list[str]:
    """Pictures of a page that have no text for who cannot see them."""
    return [i for i in re.findall(r"<img\b[^>]*>", text) if not re.search(r'\salt="[^"]+"', i)]


def test_every_picture_has_a_text(pages):
    assert {name: found for name, text in pages.items() if (found := wordless(text))} == {}
    assert wordless('<img src="a.png" alt="a"><img src="b.png">') == ['<img src="b.png">']


def test_the_front_page_says_what_is_not_reproduced(pages):
    front = pages["index.html"]
    for paper in sources.papers():
        for judged in sources.judged(paper):
            if judged.kind in ("failed", "untestable"):
                assert judged.claim.id in front, judged.claim.id


def test_the_claims_page_holds_every_claim_once_with_its_filters(pages):
    page = pages["claims.html"]
    for paper in sources.papers():
        for judged in sources.judged(paper):
            row = re.findall(rf'<tr id="{judged.claim.id}"[^>]*>', page)
            assert len(row) == 1
            assert f'data-paper="{paper}"' in row[0]
            assert f'data-kind="{judged.kind}"' in row[0]


def test_equations_lead_to_code_and_code_back(pages):
    from latentpapers.ledger.implements import scan, section

    done = {(p, e.id) for p in sources.papers() if (book := sources.ledger(p))
            for e in book.equations.equations if e.status == "done"}  # fmt: skip
    assert done
    for (paper, eq), item in scan().items():
        if (paper, eq) not in done:
            continue
        module = item.target.partition(":")[0]
        place = section(paper, eq).replace(".ipynb", ".html")
        if f"{paper}/{place.partition('#')[0]}" not in pages:
            continue
        assert f'href="../{paper}/{place}"' in pages[f"source/{module}.html"], item.target
        assert f"../source/{module}.html#L-{item.line}" in pages[f"{paper}/equations.html"]
        assert f"../source/{module}.html#L-{item.line}" in pages[f"{paper}/1_derivation.html"]


def test_no_formula_is_left_as_tex(pages):
    shown = [n for n, t in pages.items() if 'class="tex"' in t or re.search(r"\$\$|\\\(", t)]
    assert [n for n in shown if not n.startswith("source/")] == []
