"""Which library files a piece of code can import, read from its source alone.

Follows import statements (lazy ones too) and attribute chains on names bound to modules
(`lp.losses.energy.energy`). It may name too much, never too little: what a kernel really imported
is checked against it after every run.
"""

import ast
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

from latentpapers.errors import UserError

PACKAGE = "latentpapers"
LIBRARY = Path(__file__).resolve().parent.parent
_CODE = (".py", ".pyc", ".pyi")


def closure(
    sources: Iterable[str], extra: Iterable[str] = (), library: Path = LIBRARY,
    without: Iterable[Path] = (),
) -> set[str]:  # fmt: skip
    """Files below `library` that `sources` can import, as relative paths, data files included.

    Args:
        sources: Python source texts (notebook cells).
        extra: dotted modules known to be imported by name (`latentpapers.papers.avae`).
        library: the folder of the package.
        without: files that are left out, with what they alone import.

    Raises:
        UserError: source that does not parse.
    """
    found: set[Path] = set()
    left = {*without}
    queue = [m for source in sources for m in _modules(source, PACKAGE, library)] + list(extra)
    done: set[str] = set()
    while queue:
        name = queue.pop()
        if name in done:
            continue
        done.add(name)
        for file, dotted in _files(name, library):
            if file not in found | left:
                found.add(file)
                queue += _modules_of(file, dotted, library)
    found |= {d for f in found if f.name == "__init__.py" for d in _data_files(f.parent)}
    return {f.relative_to(library).as_posix() for f in found}


def _files(name: str, library: Path) -> Iterator[tuple[Path, str]]:
    """(file, package that its relative imports start from) of a module and its parents."""
    folder, dotted = library, PACKAGE
    yield library / "__init__.py", PACKAGE
    for part in name.split(".")[1:]:
        if (folder / f"{part}.py").is_file():
            yield folder / f"{part}.py", dotted
            return
        folder, dotted = folder / part, f"{dotted}.{part}"
        if not (folder / "__init__.py").is_file():
            return
        yield folder / "__init__.py", dotted


def _data_files(folder: Path) -> list[Path]:
    """What a package carries besides code, in folders that are no packages of their own too."""
    found: list[Path] = []
    for entry in folder.iterdir():
        if entry.is_file() and entry.suffix not in _CODE:
            found.append(entry)
        elif (
            entry.is_dir() and entry.name != "__pycache__" and not (entry / "__init__.py").exists()
        ):
            found += _data_files(entry)
    return found


def behind(package: Path, words: set[str]) -> set[str]:
    """Modules from which the `__init__.py` of a package takes the names among `words`."""
    tree = ast.parse(package.read_text())
    taken = (n for n in tree.body if isinstance(n, ast.ImportFrom) and not n.level)
    return {n.module or "" for n in taken if words & {a.asname or a.name for a in n.names}}


def _modules_of(file: Path, package: str, library: Path) -> tuple[str, ...]:
    state = file.stat()
    return _cached(file, package, library, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=4096)
def _cached(file: Path, package: str, library: Path, *state: int) -> tuple[str, ...]:
    return tuple(_modules(file.read_text(), package, library, file.name))


def _modules(source: str, package: str, library: Path, name: str = "a code cell") -> set[str]:
    """Dotted modules of this package that `source` names; `package` resolves relative imports."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise UserError(f"{name} does not parse: line {error.lineno}: {error.msg}.") from error
    bound: dict[str, str] = {}
    out: set[str] = set()
    for node in ast.walk(tree):
        for target, local in _imported(node, package):
            out |= _resolve(target, library)
            if local:
                bound[local] = target
    bound |= _renamed(tree, bound)
    chains = (_chain(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    for root, attributes in filter(None, chains):
        if root in bound:
            out |= _resolve(".".join([bound[root], *attributes]), library)
    return out


def _renamed(tree: ast.AST, bound: dict[str, str]) -> dict[str, str]:
    """Names given to modules by assignment: `losses = lp.losses`, pairwise for tuples."""
    out: dict[str, str] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        left, right = node.targets[0], node.value
        both = isinstance(left, ast.Tuple) and isinstance(right, ast.Tuple)
        pairs = zip(left.elts, right.elts) if both else [(left, right)]  # type: ignore[attr-defined]
        for target, value in pairs:
            chain = _chain(value) if isinstance(value, ast.Attribute) else None
            if isinstance(target, ast.Name) and chain and chain[0] in bound:
                out[target.id] = ".".join([bound[chain[0]], *chain[1]])
    return out


def _imported(node: ast.AST, package: str) -> Iterator[tuple[str, str]]:
    """(dotted target, local name or "") of an import of this package, `import_module` included."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.split(".")[0] == PACKAGE:
                yield alias.name, alias.asname or ""
                if not alias.asname:
                    yield PACKAGE, PACKAGE
    elif isinstance(node, ast.ImportFrom):
        base = _base(node, package)
        if base.split(".")[0] == PACKAGE:
            for alias in node.names:
                yield f"{base}.{alias.name}", alias.asname or alias.name
    elif isinstance(node, ast.Call) and _called(node) == "import_module" and node.args:
        text = getattr(node.args[0], "value", None)
        if isinstance(text, str) and text.split(".")[0] == PACKAGE:
            yield text, ""


def _base(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def _chain(node: ast.AST) -> tuple[str, list[str]] | None:
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.insert(0, node.attr)
        node = node.value
    return (node.id, attributes) if isinstance(node, ast.Name) else None


def _resolve(target: str, library: Path) -> set[str]:
    """The modules behind `latentpapers.a.b.c`, whose tail may be attributes."""
    folder, name = library, PACKAGE
    for part in target.split(".")[1:]:
        if (folder / f"{part}.py").is_file():
            return {f"{name}.{part}"}
        if not (folder / part / "__init__.py").is_file():
            return {name} | _lazy(folder, name, part)
        folder, name = folder / part, f"{name}.{part}"
    return {name}


def _lazy(folder: Path, package: str, attribute: str) -> set[str]:
    """Modules that a package's own `__getattr__` may import for `attribute`.

    The root names them in `_FUNCTIONS`; of any other package with a `__getattr__` all modules
    and packages are taken.
    """
    state = (folder / "__init__.py").stat()
    table, dynamic = _lazy_table(folder / "__init__.py", state.st_mtime_ns, state.st_size)
    if attribute in table:
        return {f"{package}.{table[attribute]}"}
    if not dynamic or package == PACKAGE:
        return set()
    modules = {f.stem for f in folder.glob("*.py")} - {"__init__"}
    packages = {f.parent.name for f in folder.glob("*/__init__.py")}
    return {f"{package}.{name}" for name in modules | packages}


@functools.lru_cache(maxsize=256)
def _lazy_table(file: Path, *state: int) -> tuple[dict[str, str], bool]:
    body = ast.parse(file.read_text()).body
    table: dict[str, str] = {}
    for node in body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_FUNCTIONS":
            table = ast.literal_eval(node.value)
    return table, any(getattr(node, "name", "") == "__getattr__" for node in body)
