"""Pickles of others, read without running what they name.

A pickle can call any function of any module. Here it can only build tensors, numpy arrays and
plain containers; every other class or function that it names becomes a `Stub`, which remembers
what it was given and does nothing. So a file whose weights sit inside an object of an unknown
class (the GAN zoo's configuration, NVIDIA's networks) still gives up its arrays.
"""

import io
import pickle
import struct
import warnings
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from latentpapers.errors import Corrupt, Missing, UserError

_ARRAYS = {("numpy._core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "scalar"),
           ("numpy._core.numeric", "_frombuffer")}  # fmt: skip
_PLAIN = {("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict"),
          ("_codecs", "encode"), ("builtins", "set"), ("builtins", "frozenset"),
          ("builtins", "bytearray"), ("builtins", "complex"), ("builtins", "slice")}  # fmt: skip
_TENSORS = {("torch._utils", f"_rebuild_{name}")
            for name in ("tensor", "tensor_v2", "parameter", "parameter_with_state")}  # fmt: skip
_TENSORS |= {("torch", "Size"), ("torch.nn.parameter", "Parameter"), ("torch", "device")}
ALLOWED = frozenset(_ARRAYS | _PLAIN | _TENSORS)
"""(module, name) of everything that is really looked up; storages of torch come on top."""

_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_DAMAGE = (pickle.UnpicklingError, EOFError, RuntimeError, AttributeError, ValueError, KeyError,
           IndexError, TypeError, AssertionError, OverflowError, zipfile.BadZipFile, zlib.error,
           struct.error)  # fmt: skip


class Stub:
    """Stands for an object of a class that is not loaded.

    Attributes:
        args: what it was made with.
        state: what would have been its state: its attributes, as a rule.
        items: what would have been put into it, if it is a list or a dict.
    """

    path = "?"

    def __init__(self, *args: Any, **named: Any) -> None:
        self.args, self.named = args, named
        self.state: Any = None
        self.items: list[Any] = []

    def __new__(cls, *args: Any, **named: Any) -> "Stub":
        made = object.__new__(cls)
        Stub.__init__(made, *args, **named)  # pickle may call __new__ alone
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, value: Any) -> None:
        """What a list would take."""
        self.items.append(value)

    def __hash__(self) -> int:  # it may stand as a key
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<stub of {type(self).path}>"


def load(path: Path, *, allow_pickle_stub: bool = False) -> Any:
    """What a file of `torch.save` or `pickle.dump` holds.

    Args:
        allow_pickle_stub: read a file that names foreign classes, with stubs in their place.

    Raises:
        UserError: it names foreign classes and stubs are not allowed.
        Missing: no such file.
        Corrupt: truncated, or no pickle.
    """
    path = Path(path)
    if not path.is_file():
        raise Missing(f"no file {path}.")
    try:
        if _is_torch(path):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        pass  # foreign classes, or damage: the reader below tells which
    except _DAMAGE as error:
        raise _corrupt(path, error) from error
    content, names = _read(path)
    if names and not allow_pickle_stub:
        some = ", ".join(sorted(names)[:3])
        raise UserError(
            f"{path} asks to load {some}, which could run anything; to read its numbers alone, "
            "allow stubs: --allow-pickle-stub (allow_pickle_stub=True)."
        )
    return content


def foreign(path: Path) -> list[str]:
    """The classes and functions that a file names and that are never loaded, sorted.

    Raises:
        Corrupt: truncated, or no pickle.
    """
    return sorted(_read(Path(path))[1])


def _read(path: Path) -> tuple[Any, set[str]]:
    names: set[str] = set()
    reader = _Reader(names)
    try:
        if not _is_torch(path):
            return reader.load(io.BytesIO(path.read_bytes())), names
        with warnings.catch_warnings():  # torch misses the source code of stubs
            warnings.simplefilter("ignore")
            options = {"map_location": "cpu", "weights_only": False, "pickle_module": reader}
            return torch.load(path, **options), names
    except _DAMAGE as error:
        raise _corrupt(path, error) from error


def _is_torch(path: Path) -> bool:
    """Whether `torch.save` wrote it, in either of its two forms."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            parts = [name.rpartition("/")[2] for name in archive.namelist()]
        if "data.pkl" not in parts or "constants.pkl" in parts:
            raise pickle.UnpicklingError("a zip file, but no saved tensors")  # or a program
        return True
    with path.open("rb") as file:
        head = file.read(16)
    # the old form begins with the pickle of a magic number
    return torch.serialization.MAGIC_NUMBER.to_bytes(10, "little") in head


class _Reader:
    """What torch and we use in place of the module `pickle`; collects foreign names."""

    UnpicklingError = pickle.UnpicklingError

    def __init__(self, names: set[str]) -> None:
        class Unpickler(pickle.Unpickler):
            def find_class(self, module: str, name: str) -> Any:
                return _looked_up(_PYTHON_2.get(module, module), name, names)

        self.Unpickler = Unpickler
        self.__name__ = __name__

    def load(self, file: Any, **options: Any) -> Any:
        """As `pickle.load`; texts of Python 2 become latin-1, which keeps their bytes."""
        return self.Unpickler(file, **{"encoding": "latin1", **options}).load()


def _looked_up(module: str, name: str, names: set[str]) -> Any:
    if module == "torch" and name.endswith("Storage") and name.isidentifier():
        return getattr(torch, name)
    if (module, name) == ("collections", "OrderedDict"):
        return OrderedDict
    module = module.replace("numpy.core.", "numpy._core.")  # its name since numpy 2
    if (module, name) in ALLOWED:
        return pickle.Unpickler(io.BytesIO()).find_class(module, name)
    names.add(f"{module}.{name}")
    return type(name.rpartition(".")[2], (Stub,), {"path": f"{module}.{name}"})


def _corrupt(path: Path, error: Exception) -> Corrupt:
    reason = " ".join(str(error).split())[:120].rstrip(".") or type(error).__name__
    return Corrupt(f"{path} cannot be read ({reason}).")
