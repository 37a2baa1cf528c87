"""The floors of docs/architecture.md, read from the source: who may import whom, what an import
costs, and the form of public functions."""

import ast
import graphlib
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import latentpapers
from latentpapers.papers import BUILT

LIBRARY = Path(latentpapers.__file__).parent

# Floors of docs/architecture.md, top first. A room may import every lower floor.
FLOORS = (
    {"cli", "notebook", "widgets", "runner", "__main__"},
    {"report"},
    {"papers"},
    {"train"},
    {"nets", "losses", "latent", "metrics", "data", "weights", "models"},
    {"ledger", "config", "seeds", "shapes", "precision", "storage", "tensorfile", "paths", "check",
     "errors", "transfer", "archives", "wheels"},
)  # fmt: skip
TOP, GROUND = FLOORS[0], FLOORS[-1]
# On one floor: the top and the ground among themselves, and what is named here.
SIDEWAYS = {
    "models": {"nets"},
    "metrics": {"nets", "data", "models", "weights"},
    "weights": {"nets"},
}
BANNED_ON_IMPORT = ("torchvision", "torch._dynamo", "matplotlib.pyplot", "sympy", "IPython")


def floor(room):
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def allowed(room, other):
    if room == other or floor(room) < floor(other):
        return True
    if floor(room) > floor(other):
        return False
    return room in TOP or room in GROUND or other in SIDEWAYS.get(room, ())


def module_of(path):
    parts = ["latentpapers", *path.relative_to(LIBRARY).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree, module, package):
    """Full names of what a module imports from this project: anywhere, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*parents] * bool(node.level) + [node.module] * bool(node.module))
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and dynamic(node):
            names = [text_of(node.args[0], module)]
        else:
            continue
        yield from ((n, node.lineno) for n in names if n.split(".")[0] == "latentpapers")


def dynamic(call):
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    return name in {"import_module", "__import__"}


def text_of(node, module):
    """The literal beginning of a dynamic import's name."""
    if isinstance(node, ast.Constant):
        return node.value
    assert isinstance(node, ast.JoinedStr), f"{module}: a dynamic import without a literal start"
    head = node.values[0]
    start = head.value if isinstance(head, ast.Constant) else module
    own = isinstance(head, ast.Constant) or getattr(head.value, "id", "") == "__name__"
    assert own, f"{module}: a dynamic import without a literal start"
    return start.rstrip(".")


def sources():
    return {module_of(p): (p, ast.parse(p.read_text())) for p in sorted(LIBRARY.rglob("*.py"))}


def edges(everything):
    for module, (path, tree) in everything.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for name, line in imports(tree, module, package):
            yield module, name, line


SOURCES = sources()


def room_of(name):
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else None


def test_every_room_has_a_floor():
    rooms = {room_of(m) for m in SOURCES} - {None}
    assert rooms <= set().union(*FLOORS)


def test_the_page_names_every_room():
    page = (LIBRARY.parents[1] / "docs" / "architecture.md").read_text()
    table = "\n".join(line for line in page.splitlines() if line.startswith("| "))
    missing = [r for r in set().union(*FLOORS) - {"__main__"} if r not in table]
    assert not missing, f"docs/architecture.md's table of floors lacks {missing}"


def upward(found):
    return [
        f"{module}:{line} imports {name}"
        for module, name, line in found
        if room_of(module) and room_of(name) and not allowed(room_of(module), room_of(name))
    ]


def test_imports_go_down():
    found = list(edges(SOURCES))
    assert len(found) > 100  # the reader of imports reads something
    assert upward(found) == []


def test_the_front_door_imports_only_on_access():
    _, tree = SOURCES["latentpapers"]
    assert [n for n, _ in imports(tree, "latentpapers", "latentpapers")] == ["latentpapers"] * 2


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("latentpapers.losses.new", "from latentpapers.nets import began"),
        ("latentpapers.losses.new", "def f():\n    from latentpapers import data"),
        ("latentpapers.train.new", "import latentpapers.papers.avae"),
        ("latentpapers.nets.new", "from ..train import engine"),
        (
            "latentpapers.models",
            "import importlib\nimportlib.import_module(f'latentpapers.papers.{x}')",
        ),
        ("latentpapers.seeds", "from latentpapers.models import load"),
        ("latentpapers.report.new", "from latentpapers.notebook import begin"),
        ("latentpapers.data.new", "from latentpapers.metrics import images"),
        ("latentpapers.papers.avae.step", "from latentpapers.report import figures"),
        ("latentpapers.papers.avae.step", "from ...runner import plan"),
    ],
)
def test_control_an_upward_import_is_seen(module, text):
    package = module.rpartition(".")[0]
    found = [(module, name, line) for name, line in imports(ast.parse(text), module, package)]
    assert len(upward(found)) == 1


def paper_of(name):
    """The paper whose room a module or a name in it belongs to, else None."""
    parts = name.split(".")
    return parts[2] if parts[1:2] == ["papers"] and len(parts) > 2 else None


def across(found):
    return [
        f"{module}:{line} imports {name}"
        for module, name, line in found
        if paper_of(module) and paper_of(name) and paper_of(module) != paper_of(name)
    ]


def test_no_paper_imports_another():
    assert across(edges(SOURCES)) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("latentpapers.papers.avae", "from latentpapers.papers import lag"),
        ("latentpapers.papers.avae.step", "def f():\n    import latentpapers.papers.lag"),
        ("latentpapers.papers.avae.step", "from latentpapers.papers.lag.step import Step"),
        ("latentpapers.papers.avae.step", "from ..lag.step import Step"),
    ],
)
def test_control_an_import_of_another_paper_is_seen(module, text):
    package = module.rpartition(".")[0]
    found = [(module, name, line) for name, line in imports(ast.parse(text), module, package)]
    assert len(across(found)) == 1


def inside(found, modules):
    """Of a room that is a package: file -> files of the same room that it imports. A name that
    only `__init__.py` has stands as the package itself."""
    out = {}
    for module, name, _ in found:
        if paper_of(module) and paper_of(module) == paper_of(name):
            file = ".".join(name.split(".")[:4])
            package = ".".join(name.split(".")[:3])
            out.setdefault(module, set()).add(file if file in modules else package)
    return out


def tangled(found, modules):
    """What is wrong inside rooms: files that import their own package, and cycles of files."""
    files = {m: to for m, to in inside(found, modules).items() if m.count(".") == 3}
    own = {m: m.rpartition(".")[0] for m in files}
    wrong = [f"{m} imports its own package" for m, to in files.items() if own[m] in to]
    try:
        graphlib.TopologicalSorter(files).prepare()
    except graphlib.CycleError as error:
        wrong.append(f"a cycle: {error.args[1]}")
    return wrong


def test_files_of_a_room_import_each_other_in_one_order():
    """From its package a file would import what may not be there yet, and all of it."""
    assert len(inside(edges(SOURCES), SOURCES)["latentpapers.papers.avae.step"]) > 1
    assert tangled(edges(SOURCES), SOURCES) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("training", "from latentpapers.papers.avae import METHODS"),
        ("training", "def f():\n    from latentpapers.papers import avae"),
        ("training", "import latentpapers.papers.avae"),
        ("training", "from . import METHODS"),
        ("training", "from latentpapers.papers.avae.step import Step"),
        ("training", "def f():\n    from latentpapers.papers.avae import runs"),
        ("baselines", "import latentpapers.papers.avae.networks"),
    ],
)
def test_control_a_tangle_inside_a_room_is_seen(module, text):
    package = "latentpapers.papers.avae"
    module = f"{package}.{module}"
    more = [(module, name, line) for name, line in imports(ast.parse(text), module, package)]
    assert len(tangled([*edges(SOURCES), *more], SOURCES)) == 1


def told(source):
    """(files that a room's front lists in its docstring, names that it binds, names it offers)."""
    tree = ast.parse(source)
    listed = re.findall(r"^`(\w+)\.py`", ast.get_docstring(tree), re.MULTILINE)
    bound, offered = set(), set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            bound |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            offered = set(ast.literal_eval(node.value))
        elif isinstance(node, ast.Assign):
            bound.add(node.targets[0].id)
    return listed, bound, offered


def unlike_its_front(paper, source, found):
    """Where a room's front is wrong about its files, their order, or what it offers."""
    listed, bound, offered = told(source)
    package = f"latentpapers.papers.{paper}"
    files = {m.rpartition(".")[2] for m in SOURCES if m.startswith(f"{package}.")}
    wrong = [f"{name} is not listed once" for name in files if listed.count(name) != 1]
    wrong += [f"{name} is no file" for name in {*listed} - files]
    wrong += [f"{name} is missing, which every room has" for name in HOUSE - files]
    wrong += [f"{name} is offered or bound, not both" for name in bound ^ offered]
    wrong += [f"{name} is a name and a file" for name in offered & files]
    for module, to in inside(found, SOURCES).items():
        here = [m.rpartition(".")[2] for m in (module, *to) if m.startswith(f"{package}.")]
        if module.startswith(f"{package}.") and {*here} <= {*listed}:
            later = [f for f in here[1:] if listed.index(f) >= listed.index(here[0])]
            wrong += [f"{here[0]} imports {f}, which stands below it" for f in later]
    return wrong


HOUSE = {"training", "step", "presets", "outputs", "measuring", "runs"}  # docs/architecture.md


@pytest.mark.parametrize("paper", BUILT)
def test_a_rooms_front_lists_its_files_in_order_and_offers_what_it_binds(paper):
    source = (LIBRARY / "papers" / paper / "__init__.py").read_text()
    assert unlike_its_front(paper, source, edges(SOURCES)) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("`step.py` ", "`steps.py`"),  # not listed, and no file
        ("`outputs.py` ", "`presets.py` "),  # twice, and not listed
        ('"Step", ', ""),  # bound, not offered
        ('"Step", ', '"Step", "outputs", '),  # offered, not bound, and a file
    ],
)
def test_control_a_wrong_front_is_seen(old, new):
    source = (LIBRARY / "papers" / "avae" / "__init__.py").read_text()
    assert source.count(old) == 1
    assert unlike_its_front("avae", source.replace(old, new), edges(SOURCES))


def test_control_a_front_in_another_order_is_seen():
    source = (LIBRARY / "papers" / "avae" / "__init__.py").read_text()
    swapped = source.replace("`step.py`", "`?`").replace("`runs.py`", "`step.py`")
    wrong = unlike_its_front("avae", swapped.replace("`?`", "`runs.py`"), edges(SOURCES))
    assert any("stands below it" in one for one in wrong)


@pytest.mark.parametrize("paper", BUILT)
def test_files_of_a_room_take_no_private_names_of_each_other(paper):
    found = [(m, n) for m, n, _ in edges(SOURCES) if paper_of(m) == paper_of(n) == paper]
    assert found
    assert [(m, n) for m, n in found if n.rpartition(".")[2].startswith("_")] == []


# --- what an import loads --------------------------------------------------------------------

LOADED = f"""
import importlib, json, sys
watched = ("torch", *{BANNED_ON_IMPORT!r})
out = {{}}
for name in ("latentpapers", *sys.argv[1:]):
    importlib.import_module(name)
    out[name] = [w for w in watched if w in sys.modules]
import latentpapers
out["dir"] = dir(latentpapers)
print(json.dumps(out))
"""
# In this order; torch comes in with the first that needs it.
TORCHLESS = ["latentpapers.ledger", "latentpapers.config", "latentpapers.seeds",
             "latentpapers.check", "latentpapers.report", "latentpapers.cli",
             "latentpapers.notebook", "latentpapers.runner.plan",
             "latentpapers.transfer", "latentpapers.wheels", "latentpapers.papers",
             "latentpapers.weights"]  # fmt: skip
LIGHT = ["latentpapers.models", "latentpapers.data", "latentpapers.losses.energy",
         "latentpapers.nets.began", "latentpapers.latent.paths", "latentpapers.metrics.images",
         "latentpapers.train.checkpoint", "latentpapers.papers.avae"]  # fmt: skip


@pytest.fixture(scope="module")
def loaded():
    command = [sys.executable, "-c", LOADED, *TORCHLESS, *LIGHT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["latentpapers", *TORCHLESS])
def test_what_needs_no_tensors_loads_no_torch(loaded, name):
    assert loaded[name] == []


@pytest.mark.parametrize("name", LIGHT)
def test_nothing_heavy_comes_with_an_import(loaded, name):
    assert set(loaded[name]) <= {"torch"}


def test_the_front_door_offers_the_rooms(loaded):
    assert {"models", "data", "report", "begin", "check", "papers"} <= set(loaded["dir"])
    with pytest.raises(AttributeError, match="nothing_here"):
        latentpapers.nothing_here  # noqa: B018


# --- the form of functions -------------------------------------------------------------------

# Documented where they are declared: `train.engine.Task`, `torch.nn.Module`.
INHERITED = {"forward", "optimizers", "updates", "before_step", "after_step", "state_dict",
             "load_state_dict"}  # fmt: skip


def functions(node, prefix="", public=True, outer=True):
    """(qualified name, node, public?) of all functions, nested ones included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            shown = public and not child.name.startswith("_")
            yield from functions(child, f"{prefix}{child.name}.", shown, outer)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            shown = public and outer and not child.name.startswith("_")
            yield f"{prefix}{child.name}", child, shown
            yield from functions(child, f"{prefix}{child.name}.", False, False)
        else:
            yield from functions(child, prefix, public, outer)


ALL = [(m, *found) for m, (_, tree) in SOURCES.items() for found in functions(tree)]
PUBLIC = [(m, name, node) for m, name, node, public in ALL if public]


def test_public_functions_have_docstrings():
    bare = [
        f"{m}:{node.lineno} {name}"
        for m, name, node in PUBLIC
        if not ast.get_docstring(node) and name.split(".")[-1] not in INHERITED
    ]
    assert len(PUBLIC) > 100
    assert bare == []


def unannotated(node):
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    stars = [a for a in (node.args.vararg, node.args.kwarg) if a]
    bare = [a.arg for a in (*arguments, *stars) if a.annotation is None]
    return [a for a in bare if a not in ("self", "cls")] + ["return"] * (node.returns is None)


def test_public_functions_are_annotated():
    assert [
        f"{m}:{n.lineno} {name}: {unannotated(n)}" for m, name, n in PUBLIC if unannotated(n)
    ] == []


def test_modules_have_docstrings():
    """Empty `__init__.py` files aside."""
    bare = [m for m, (_, tree) in SOURCES.items() if tree.body and not ast.get_docstring(tree)]
    assert bare == []


def length(node):
    """Lines of a function from `def` to its end, without its docstring."""
    lines = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node):
        text = node.body[0]
        lines -= text.end_lineno - text.lineno + 1
    return lines


def test_no_function_is_longer_than_sixty_lines():
    """Docstrings included: the limit is what one can see at once."""
    spans = {f"{m}:{n.lineno} {name}": n.end_lineno - n.lineno + 1 for m, name, n, _ in ALL}
    assert {k: v for k, v in spans.items() if v > 60} == {}


def test_half_of_the_functions_have_ten_lines_or_fewer():
    assert statistics.median(length(n) for _, _, n, _ in ALL) <= 10
    assert statistics.median(length(n) for _, _, n in PUBLIC) <= 10
