"""A real, headless browser opens each page with sliders, moves them and sees the pictures change.

Asked for by `make test-browser`, which sets up an environment of its own (JupyterLab, Playwright;
the group `browser`) and starts the kernels in the project's. Everywhere else these tests are
skipped with the name of what is missing. The screenshots lie in `LATENTPAPERS_SHOTS`.
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

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted((ROOT / "notebooks").glob("*/5_explore.ipynb")),
         *(ROOT / "notebooks").glob("start_here.ipynb")]  # fmt: skip
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
                os.environ.get("LATENTPAPERS_CHROMIUM"))  # fmt: skip
FLAGS = [f"--{flag}" for flag in (
    "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync")]  # fmt: skip
TOKEN = "latentpapers"
MOVES = 5
# Seconds after which a page counts as hung, and a slider as one without effect.
PATIENCE, SILENCE = 300, 10
LIMIT = float(os.environ.get("LATENTPAPERS_REACTION", "inf"))


def missing() -> str:
    """What keeps these tests from running, in words; empty if nothing does."""
    from importlib.util import find_spec

    if os.environ.get("LATENTPAPERS_BROWSER") != "1":
        return "the browser test runs on request: make test-browser"
    absent = [n for n in ("playwright", "jupyterlab") if find_spec(n) is None]
    if absent:
        return f"not installed here: {', '.join(absent)} (dependency group `browser`)"
    return "" if CHROMIUM else "no chromium on this machine (Debian: apt-get install chromium)"


if not missing():
    from playwright.sync_api import TimeoutError

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "runs")


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
    for _ in range(240):
        assert running.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=2)
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-2000:])


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=PAGES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def page(request, server, chromium):
    """A page whose cells have all run; `page.name` names its pictures."""
    tab = chromium.new_page(viewport={"width": 1280, "height": 1000})
    tab.set_default_timeout(1000 * PATIENCE)
    tab.asked = []
    tab.on("request", lambda r: tab.asked.append(r.url))
    place = request.param.relative_to(ROOT).as_posix()
    tab.goto(f"{server}/lab/tree/{place}?token={TOKEN}&reset")
    tab.name = "_".join(request.param.relative_to(ROOT / "notebooks").with_suffix("").parts)
    run_all(tab)
    yield tab
    tab.close()


def run_all(tab) -> None:
    """Clears old outputs and runs every cell; chooses the kernel where JupyterLab asks for it."""
    tab.wait_for_selector(".jp-Notebook .jp-CodeCell")
    time.sleep(2)  # a question about the kernel comes after the notebook
    accept(tab)
    menu(tab, "Edit", "Clear Outputs of All Cells")
    menu(tab, "Run", "Run All Cells")
    last = tab.locator(".jp-CodeCell").last
    deadline = time.monotonic() + PATIENCE
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


WATCH = """([image]) => {
  window.moved = 0; window.answered = 0;
  const start = () => { window.moved = performance.now(); window.answered = 0; };
  document.addEventListener('keydown', start, true);
  new MutationObserver(() => {
    const shown = () => { window.answered = performance.now(); };
    image.complete ? shown() : image.addEventListener('load', shown, {once: true});
  }).observe(image, {attributes: true, attributeFilter: ['src']});
}"""


def react(tab, handle, key: str) -> float | None:
    """Seconds from a key on a slider to the new picture; None if the picture stays as it is (a
    latent coordinate that does nothing)."""
    handle.focus()
    tab.wait_for_timeout(400)  # the answer to the last move is drawn by now
    tab.keyboard.press(key)
    try:
        tab.wait_for_function("window.answered > window.moved", timeout=1000 * SILENCE)
    except TimeoutError:
        return None
    return tab.evaluate("(window.answered - window.moved) / 1000")


def answers(tab, box) -> list[float]:
    """Reactions to some moves of the first slider of a widget that changes the picture."""
    handles = box.locator(".noUi-handle")
    for i in range(handles.count()):
        found = [react(tab, handles.nth(i), k) for k in ("ArrowRight",) * MOVES + ("ArrowLeft",)]
        if any(found):
            return [s for s in found if s]
    return []


def boxes(tab):
    """The widgets of a page: a box of sliders that holds a picture."""
    found = tab.locator(".jp-OutputArea-output .widget-vbox:has(img.widget-image)")
    assert found.count() > 0, "no widget came to life"
    return [found.nth(i) for i in range(found.count())]


def test_every_slider_view_answers_with_another_picture(page):
    shots = Path(os.environ.get("LATENTPAPERS_SHOTS", ".pytest-shots"))
    shots.mkdir(parents=True, exist_ok=True)
    medians = {}
    for number, box in enumerate(boxes(page)):
        box.scroll_into_view_if_needed()
        picture = box.locator("img.widget-image")
        before, old = picture.screenshot(), box.inner_text()
        page.evaluate(WATCH, [picture.element_handle()])
        seconds = answers(page, box)
        assert seconds, f"widget {number}: no slider changes the picture"
        assert picture.screenshot() != before, f"widget {number}: the picture stayed the same"
        assert box.inner_text() != old, f"widget {number}: the slider's label stayed the same"
        medians[number] = round(statistics.median(seconds), 3)
        box.screenshot(path=shots / f"{page.name}_{number}.png")
    boxes(page)[0].scroll_into_view_if_needed()
    page.screenshot(path=shots / f"{page.name}.png")
    (shots / f"{page.name}.json").write_text(json.dumps(medians))
    print(page.name, medians)
    assert max(medians.values()) < LIMIT, medians


def test_a_page_asks_no_other_machine(page):
    outside = [u for u in page.asked if not u.startswith(("http://127.0.0.1", "ws://127.0.0.1",
                                                           "data:", "blob:"))]  # fmt: skip
    assert outside == []
