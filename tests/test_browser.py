"""A real, headless browser opens each page with widgets and uses all of them: every slider is
moved, a pixel painted, a picture uploaded, and each time the picture on the page must change.

Asked for by `make test-browser`, which sets up an environment of its own (JupyterLab, Playwright;
the group `browser`) and starts the kernels in the project's. Everywhere else these tests are
skipped with the name of what is missing. Screenshots and times lie in `LATENTPAPERS_SHOTS`.
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from browser_bed import ROOT, browser, missing, shots

PAGES = [*sorted((ROOT / "notebooks").glob("*/5_explore.ipynb")),
         *(ROOT / "notebooks").glob("start_here.ipynb")]  # fmt: skip
CANVASES = {"lrc_i2i_5_explore": 1}
UPLOADS = {"avae_5_explore": 1, "lag_5_explore": 1}
TOKEN = "latentpapers"
# Each slider takes a step, goes to its far end, where a search takes longest, and some steps back.
MOVES = ("ArrowRight", "End", "ArrowLeft", "ArrowLeft", "ArrowRight")
BACK = {"ArrowRight": "ArrowLeft", "ArrowLeft": "ArrowRight", "End": "Home"}
# Seconds after which a page counts as hung, and a move as one without effect.
PATIENCE, SILENCE = 600, 8
LIMIT = float(os.environ.get("LATENTPAPERS_REACTION", "inf"))

if not missing():
    from playwright.sync_api import TimeoutError

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "runs")


# --- JupyterLab ----------------------------------------------------------------------------------


def settings(folder: Path) -> Path:
    """JupyterLab settings: every cell in the page at once, no question about news."""
    chosen = {
        "notebook-extension/tracker": {"windowingMode": "none"},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "docmanager-extension/plugin": {"autosave": False},
    }
    for name, values in chosen.items():
        file = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    return folder


def kernelspec(folder: Path) -> Path:
    """A kernel `python3` of the project's own interpreter."""
    python = os.environ.get("LATENTPAPERS_PYTHON", sys.executable)
    spec = folder / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    about = {"argv": argv, "display_name": "Python 3", "language": "python"}
    spec.write_text(json.dumps(about))
    return folder


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """JupyterLab on a copy of the notebooks, so that nothing here can change the committed ones."""
    work = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", work / "tree" / "notebooks")
    (work / "tree" / "results").symlink_to(ROOT / "results")
    env = os.environ | {
        "LATENTPAPERS_ROOT": str(ROOT), "LATENTPAPERS_OUT": str(work / "out"),
        "PYTHONPATH": str(ROOT / "lib"), "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(work / "ipy"),
        "JUPYTER_PATH": str(kernelspec(work / "share")), "JUPYTER_CONFIG_DIR": str(work / "conf"),
        "JUPYTERLAB_SETTINGS_DIR": str(settings(work / "settings")),
        "JUPYTERLAB_WORKSPACES_DIR": str(work / "spaces"), "JUPYTER_RUNTIME_DIR": str(work / "run"),
    }  # fmt: skip
    env.pop("LATENTPAPERS_BATCH", None)
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip",
               "127.0.0.1", "--port", str(port), f"--IdentityProvider.token={TOKEN}",
               f"--ServerApp.root_dir={work / 'tree'}"]  # fmt: skip
    with (work / "lab.log").open("wb") as log:
        running = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=work)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(address, running, work / "lab.log")
        yield address
    finally:
        running.terminate()
        running.wait(30)


def wait_for(address: str, running: subprocess.Popen, log: Path) -> None:
    for _ in range(480):
        assert running.poll() is None, log.read_text()[-2000:]
        try:
            ask(address, "api")
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-2000:])


def ask(address: str, what: str, method: str = "GET") -> bytes:
    """What the server answers."""
    order = urllib.request.Request(f"{address}/{what}?token={TOKEN}", method=method)
    return urllib.request.urlopen(order, timeout=20).read()


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


@pytest.fixture(scope="module", params=PAGES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def page(request, server, chromium):
    """A page whose cells have all run; `page.name` names its pictures, `page.kernel` its process
    (None where there is no /proc)."""
    tab = chromium.new_page(viewport={"width": 1280, "height": 1000})
    tab.set_default_timeout(1000 * PATIENCE)
    tab.asked = []
    tab.on("request", lambda r: tab.asked.append(r.url))
    place = request.param.relative_to(ROOT).as_posix()
    tab.goto(f"{server}/lab/tree/{place}?token={TOKEN}&reset")
    tab.name = "_".join(request.param.relative_to(ROOT / "notebooks").with_suffix("").parts)
    run_all(tab)
    sessions = json.loads(ask(server, "api/sessions"))
    session = next((s for s in sessions if s["path"] == place), None)
    assert session, sessions
    tab.kernel = process(session["kernel"]["id"])
    yield tab
    tab.close()
    ask(server, f"api/sessions/{session['id']}", "DELETE")


def process(kernel: str) -> Path | None:
    """/proc/<pid>/stat of a kernel."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"kernel-{kernel}.json" in file.read_text():
                return file.with_name("stat")
        except OSError:  # it has ended meanwhile
            continue
    return None


def cpu_seconds(stat: Path | None) -> float:
    """CPU time of a process and its threads so far; 0 where nobody can tell."""
    if stat is None:
        return 0.0
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def run_all(tab) -> None:
    """Clears old outputs and runs every cell; chooses the kernel where JupyterLab asks for it."""
    tab.wait_for_selector(".jp-Notebook .jp-CodeCell")
    last, deadline = tab.locator(".jp-CodeCell").last, time.monotonic() + PATIENCE
    while "recorded" not in last.inner_text():  # the committed output: the page is there
        assert time.monotonic() < deadline, "the page did not open"
        time.sleep(0.3)
    while "recorded" in last.inner_text():  # on a busy machine the menu comes before its commands
        time.sleep(2)  # a question about the kernel comes after the notebook
        accept(tab)
        menu(tab, "Edit", "Clear Outputs of All Cells")
        assert time.monotonic() < deadline, "the outputs could not be cleared"
    menu(tab, "Run", "Run All Cells")
    while "recorded" not in last.inner_text():
        accept(tab)
        errors = tab.locator(".jp-OutputArea-output[data-mime-type*='error']")
        assert errors.count() == 0, errors.first.inner_text()[-1500:]
        assert time.monotonic() < deadline, "the page did not run to its end"
        time.sleep(0.3)


def accept(tab) -> None:
    """Answers a dialogue of JupyterLab, if there is one, with its default."""
    dialogue = tab.locator(".jp-Dialog .jp-mod-accept")
    if dialogue.count():
        dialogue.first.click()


def menu(tab, bar: str, item: str) -> None:
    tab.locator(f".lm-MenuBar-itemLabel:text-is('{bar}')").click()
    tab.locator(f".lm-Menu-itemLabel:text-is('{item}')").click()


# --- using a widget ------------------------------------------------------------------------------

WATCH = """([image]) => {
  window.moved = 0; window.answered = 0;
  const start = () => { window.moved = performance.now(); window.answered = 0; };
  if (!window.watching)
    for (const kind of ['keydown', 'mousedown', 'change'])
      document.addEventListener(kind, start, true);
  window.watching = true;
  new MutationObserver(() => {
    const shown = () => { window.answered = performance.now(); };
    image.complete ? shown() : image.addEventListener('load', shown, {once: true});
  }).observe(image, {attributes: true, attributeFilter: ['src']});
}"""
PAUSE = 300  # milliseconds in which the answer to the last move is drawn


class Watched:
    """A widget: a box of controls and a picture; remembers how long each answer took."""

    def __init__(self, tab, box) -> None:
        self.tab, self.box, self.picture = tab, box, box.locator("img.widget-image")
        self.wall, self.cpu = {}, {}
        box.scroll_into_view_if_needed()
        tab.evaluate(WATCH, [self.picture.element_handle()])

    def reacts(self, name: str, act) -> bool:
        """Whether the picture changes after `act()`; its seconds are kept under `name`."""
        self.tab.wait_for_timeout(PAUSE)
        before = cpu_seconds(self.tab.kernel)
        act()
        try:
            answered = "window.answered > window.moved && window.moved > 0"
            self.tab.wait_for_function(answered, timeout=1000 * SILENCE)
        except TimeoutError:
            return False
        wall = self.tab.evaluate("(window.answered - window.moved) / 1000")
        self.tab.wait_for_timeout(PAUSE)
        self.wall.setdefault(name, []).append(wall)
        self.cpu.setdefault(name, []).append(cpu_seconds(self.tab.kernel) - before)
        return True

    def summary(self) -> dict:
        """By control: median and longest seconds, median CPU seconds of the kernel."""
        return {
            name: {"median_s": round(statistics.median(wall), 3), "most_s": round(max(wall), 3),
                   "cpu_s": round(statistics.median(self.cpu[name]), 3), "moves": len(wall)}
            for name, wall in self.wall.items()
        }  # fmt: skip


def sliders(watched: Watched) -> list[str]:
    """Moves every slider; the names of those that changed the picture."""
    handles = watched.box.locator(".noUi-handle")
    return [name for i in range(handles.count()) if (name := slide(watched, handles.nth(i)))]


def slide(watched: Watched, handle) -> str:
    """Moves one slider there and back and to its end, then puts it where it was; its name if the
    picture changed."""
    row = handle.locator("xpath=ancestor::*[contains(@class, 'widget-hslider')]")
    name = row.locator(".widget-label").inner_text()
    start, silent = row.inner_text(), 0
    for key in MOVES:
        handle.focus()
        turn = key if can_move(handle, key) else BACK[key]
        silent += not watched.reacts(name, lambda turn=turn: watched.tab.keyboard.press(turn))
        if silent > 2:  # a latent coordinate that does nothing, say
            break
    for key in ("ArrowLeft", "ArrowRight"):
        for _ in range(400):
            if row.inner_text() == start:
                break
            watched.tab.keyboard.press(key)
    watched.tab.wait_for_timeout(2 * PAUSE)
    return name if name in watched.wall else ""


def can_move(handle, key: str) -> bool:
    """Whether a slider has room in a key's direction."""
    now, low, high = (handle.get_attribute(f"aria-value{a}") for a in ("now", "min", "max"))
    return float(now) > float(low) if key == "ArrowLeft" else float(now) < float(high)


def boxes(tab, *, canvas: bool = False) -> list:
    """The widgets of a page: each box that holds a picture beside its sliders, or a canvas."""
    inside = "> .widget-hbox > img.widget-image" if canvas else "> img.widget-image"
    found = tab.locator(f".jp-OutputArea-output .widget-vbox:has({inside})")
    return [found.nth(i) for i in range(found.count())]


def keep(tab, what: str, watched: Watched) -> dict:
    """Saves a picture of a widget and what was measured."""
    watched.box.scroll_into_view_if_needed()
    watched.box.screenshot(path=shots() / f"{tab.name}_{what}.png")
    (shots() / f"{tab.name}_{what}.json").write_text(json.dumps(watched.summary(), indent=1))
    return watched.summary()


def test_every_slider_view_answers_with_another_picture(page):
    found = boxes(page)
    assert found, "no widget came to life"
    medians = {}
    for number, box in enumerate(found):
        watched = Watched(page, box)
        handles = box.locator(".noUi-handle").count()
        before, old = watched.picture.screenshot(), box.inner_text()
        moved = sliders(watched)
        assert moved, f"widget {number}: no slider changes the picture"
        # A coordinate may do nothing; most sliders do something.
        assert len(moved) > handles / 2, f"widget {number}: only {moved} change the picture"
        handle = box.locator(".noUi-handle").first
        handle.focus()
        page.keyboard.press("End" if can_move(handle, "End") else "Home")
        page.wait_for_timeout(5 * PAUSE)
        assert box.inner_text() != old, f"widget {number}: the slider's label stayed the same"
        assert watched.picture.screenshot() != before, f"widget {number}: the same picture"
        medians |= {f"{number} {k}": v for k, v in keep(page, str(number), watched).items()}
    boxes(page)[0].scroll_into_view_if_needed()
    page.screenshot(path=shots() / f"{page.name}.png")
    (shots() / f"{page.name}.json").write_text(json.dumps(medians, indent=1))
    print(page.name, json.dumps(medians))
    slow = {k: v for k, v in medians.items() if v["median_s"] >= LIMIT}
    assert not slow, slow


def test_a_stroke_changes_the_picture_and_undo_brings_it_back(page):
    found = boxes(page, canvas=True)
    assert len(found) == CANVASES.get(page.name, 0)
    for number, box in enumerate(found):
        watched = Watched(page, box)
        cells = box.locator(".widget-hbox .widget-vbox button")
        assert cells.count() == 64
        before = watched.picture.get_attribute("src"), watched.picture.screenshot()
        for cell in (18, 19, 26, 27, 45):
            assert watched.reacts("paint", cells.nth(cell).click), f"pixel {cell} does nothing"
        colour = "e => getComputedStyle(e).backgroundColor"
        assert cells.nth(18).evaluate(colour) == "rgb(193, 18, 31)"
        assert watched.picture.screenshot() != before[1]
        summary = keep(page, f"canvas{number}", watched)
        print(page.name, summary)
        assert watched.reacts("undo", box.locator("button:text-is('undo')").click)
        assert cells.nth(45).evaluate(colour) != "rgb(193, 18, 31)"
        assert watched.reacts("reset", box.locator("button:text-is('reset')").click)
        box.locator("button:text-is('reset')").blur()
        page.mouse.move(0, 0)
        page.wait_for_timeout(PAUSE)
        assert watched.picture.screenshot() == before[1]
        assert summary["paint"]["median_s"] < LIMIT, summary


def give(tab, button, file: Path) -> None:
    """Chooses a file as a reader would."""
    with tab.expect_file_chooser() as asked:
        button.click()
    asked.value.set_files(file)


def test_an_uploaded_picture_is_shown_and_another_file_is_refused_in_words(page, tmp_path):
    views = page.locator(".widget-vbox:has(> button.widget-upload)")
    assert views.count() == UPLOADS.get(page.name, 0)
    if not views.count():
        return
    watched, button = Watched(page, views.first), page.locator("button.widget-upload")
    before = watched.picture.screenshot()
    picture = ROOT / "results" / "quick" / "start" / "figures" / "avae.png"
    assert watched.reacts("upload", lambda: give(page, button, picture))
    assert watched.picture.screenshot() != before
    print(page.name, keep(page, "upload", watched))
    (tmp_path / "no.png").write_text("no picture")
    give(page, button, tmp_path / "no.png")
    refused = "box => box.innerText.includes('cannot read an image')"
    page.wait_for_function(refused, arg=views.first.element_handle(), timeout=1000 * SILENCE)


def test_a_page_asks_no_other_machine(page):
    outside = [u for u in page.asked if not u.startswith(("http://127.0.0.1", "ws://127.0.0.1",
                                                           "data:", "blob:"))]  # fmt: skip
    assert outside == []
