"""A pretended GPU: what would fail on a real one, found on a machine that has none.

Tensors put on `cuda` are ordinary tensors that know where they should be. They refuse to meet
tensors of the CPU, NumPy or a generator of the CPU just where torch refuses on a real GPU, and the
numbers are the CPU's, so a run here must equal the run on `cpu` bit for bit. What it cannot show:
the GPU's own kernels, memory and speed.

`with pretended(): ...` in a test; a process with `tests/pretended` on its path sees one from its
start (`rehearsal.py`).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

HOME, AWAY = torch.device("cpu"), torch.device("cuda:0")
_GENERATORS: set[int] = set()  # ids of those that were made for the pretended GPU


class Away(Tensor):
    """A tensor on the pretended GPU."""

    @property
    def device(self) -> torch.device:
        return AWAY

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy (pretended).")

    __array__ = numpy

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.ndim == 0 else super().__format__(spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            made = self.detach().clone()
            learnt = isinstance(self, nn.Parameter)
            memo[id(self)] = nn.Parameter(made, self.requires_grad) if learnt else made
        return memo[id(self)]

    def __reduce_ex__(self, protocol: int) -> Any:
        raise TypeError("a tensor of the pretended GPU is not pickled")

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:  # fmt: skip
        kwargs = kwargs or {}
        if func in _PLAIN:
            return super().__torch_function__(func, types, args, kwargs)
        _refuse_mixture(func, args, kwargs)
        where = args[0].device if func is Tensor.__getitem__ else AWAY
        with torch._C.DisableTorchFunctionSubclass():
            return _placed(func(*args, **kwargs), where)


_PLAIN = torch.overrides.get_default_nowrap_functions() - {Tensor.grad.__get__}
# these take tensors of two devices on a real GPU, too
_MEET = {Tensor.copy_, Tensor.to, Tensor.cpu, Tensor.cuda, Tensor.grad.__set__,
         Tensor.data.__set__, torch._has_compatible_shallow_copy_type}  # fmt: skip


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _refuse_mixture(func: Callable, args: tuple, kwargs: dict) -> None:
    """As torch does: numbers (0-d) of the CPU may meet any device, an index may be on the CPU."""
    if func in _MEET or torch._C._current_autograd_node() is not None:
        return
    if func in (Tensor.__getitem__, Tensor.__setitem__):
        return _refuse_indices(*args)
    found = list(_tensors((args, kwargs)))
    if any(isinstance(t, Away) for t in found):
        stray = [t for t in found if not isinstance(t, Away) and t.ndim]
        if stray:
            name = getattr(func, "__name__", func)
            raise RuntimeError(
                f"expected all tensors to be on the same device, found cuda:0 and cpu in {name}: "
                f"{[(type(t).__name__, tuple(t.shape)) for t in found]} (pretended)"
            )


def _refuse_indices(tensor: Tensor, key: Any, value: Any = None) -> None:
    """A tensor of the CPU takes no index from the GPU. Slices are copied between devices, what is
    picked by a tensor of indices is not. A single index (0-d) counts as a number."""
    picked = [t for t in _tensors(key) if t.ndim or t.dtype == torch.bool]
    there = isinstance(tensor, Away)
    if not there and any(isinstance(t, Away) for t in picked):
        raise RuntimeError("indices should be either on cpu or on the same device (pretended)")
    if picked and isinstance(value, Tensor) and value.ndim and isinstance(value, Away) != there:
        raise RuntimeError("expected all tensors to be on the same device in index_put (pretended)")


def _placed(value: Any, where: torch.device) -> Any:
    if isinstance(value, Tensor):
        if where != AWAY:
            return value.as_subclass(Tensor) if isinstance(value, Away) else value
        if isinstance(value, nn.Parameter | Away):
            return value
        if value.requires_grad or value._is_view():
            return value.as_subclass(Away)
        # `as_subclass` makes a view, and autocast keeps no bf16 copy of a view's weights
        return Tensor._make_subclass(Away, value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_placed(one, where) for one in value))
    if type(value) in (list, tuple) or "return_types" in type(value).__module__:
        return type(value)([_placed(one, where) for one in value])
    return value


def _device_of(value: Any) -> torch.device | None:
    if isinstance(value, str | torch.device | int):
        found = torch.device("cuda", value) if isinstance(value, int) else torch.device(value)
        return AWAY if found.type == "cuda" else found
    return None


def _moved(func: Callable, args: tuple, kwargs: dict) -> Any:
    """`to`, `cpu`, `cuda`: asks for a place, as keyword, first argument or another tensor's."""
    tensor, rest = args[0], list(args[1:])
    where = AWAY if func is Tensor.cuda else HOME if func is Tensor.cpu else None
    if func is Tensor.cuda:
        rest = []
    if where is None and "device" in kwargs:
        where = _device_of(kwargs.pop("device"))
    if where is None and rest:
        if isinstance(rest[0], Tensor):
            where = rest[0].device
            rest[0] = rest[0].dtype
        elif not isinstance(rest[0], torch.dtype):
            where = _device_of(rest.pop(0))
    if rest and rest[0] is None:
        rest[0] = tensor.dtype
    before = tensor.device
    where = where or before
    with torch._C.DisableTorchFunctionSubclass():
        value = Tensor.to(tensor, *rest, **kwargs) if rest or kwargs else tensor
        if where.type == before.type:
            return _placed(value, before)
        # a copy, as between devices: changing one must not change the other
        return _placed(value.clone() if value is tensor else value, where)


class Placing(TorchFunctionMode):
    """Takes `device="cuda"` from what makes or moves tensors, and marks what comes back."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:  # fmt: skip
        kwargs = dict(kwargs or {})
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return _moved(func, args, kwargs)
        if kwargs.get("generator") is not None:
            _refuse_other_stream(func, args, kwargs)
        if "device" not in kwargs or kwargs["device"] is None:
            return func(*args, **kwargs)
        where = _device_of(kwargs["device"])
        kwargs["device"] = HOME if where == AWAY else where
        with torch._C.DisableTorchFunctionSubclass():
            return _placed(func(*args, **kwargs), where or HOME)


class Waits(TorchFunctionMode):
    """Notes in `found` what makes the CPU wait for a GPU: numbers and tensors that are fetched, and
    tensors sent without `non_blocking`."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:  # fmt: skip
        kwargs = kwargs or {}
        value, there = func(*args, **kwargs), bool(args) and isinstance(args[0], Away)
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            sent = not there and isinstance(value, Away) and not kwargs.get("non_blocking")
            waits = sent or (there and not isinstance(value, Away))
        elif func in (Tensor.__getitem__, Tensor.__setitem__):
            waits = there and any(t.dtype == torch.bool for t in _tensors(args[1]))
        else:
            waits = there and func in _FETCHED
        if waits:
            self.found.append(f"{func.__name__} of {tuple(args[0].shape)}")
        return value


_FETCHED = {Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__float__, Tensor.__int__,
            Tensor.__index__, Tensor.nonzero, torch.nonzero, Tensor.masked_select,
            torch.masked_select, Tensor.unique, torch.unique, Tensor.equal, torch.equal,
            torch.allclose, Tensor.allclose}  # fmt: skip


def _refuse_other_stream(func: Callable, args: tuple, kwargs: dict) -> None:
    place = _device_of(kwargs.get("device"))
    if place is None:
        found = list(_tensors(args))
        place = found[0].device if found else HOME
    stream = AWAY if id(kwargs["generator"]) in _GENERATORS else HOME
    if stream.type != place.type:
        raise RuntimeError(
            f"expected a {place.type!r} generator, found {stream.type!r} in {func} (pretended)"
        )


_generator = torch.Generator


class _Generator(_generator):
    """`torch.Generator(device)` that remembers a pretended place; its numbers are the CPU's."""

    def __new__(cls, device: Any = "cpu") -> torch.Generator:
        made = _generator.__new__(cls)
        if _device_of(device) == AWAY:
            _GENERATORS.add(id(made))
            _KEPT.append(made)  # an id is reused once its owner is gone
        return made


_group = torch.optim.Optimizer._group_tensors_by_device_and_dtype


def _grouped(lists: list[list[Tensor]], with_indices: bool = False) -> dict[Any, Any]:
    """Optimisers ask, below Python, where their parameters are: on the pretended GPU, too."""
    away = any(isinstance(t, Away) for t in lists[0])
    found = _group(lists, with_indices)
    return {(AWAY if away else device, kind): rest for (device, kind), rest in found.items()}


_KEPT: list[torch.Generator] = []
_autocast = torch.autocast


class _Autocast(_autocast):
    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


def _patches() -> dict[str, Any]:
    return {
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.device_count": lambda: 1,
        "torch.cuda.current_device": lambda: 0,
        "torch.cuda.get_device_name": lambda *_: "pretended GPU",
        "torch.cuda.manual_seed": lambda *_: None,
        "torch.cuda.manual_seed_all": lambda *_: None,
        "torch.cuda.synchronize": lambda *_: None,
        "torch.cuda.empty_cache": lambda: None,
        "torch.cuda.reset_peak_memory_stats": lambda *_: None,
        "torch.cuda.max_memory_allocated": lambda *_: 0,
        "torch.cuda.set_device": lambda *_: None,
        "torch.cuda.get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
        "torch.cuda.set_rng_state": lambda *_: None,
        "torch.cuda.is_bf16_supported": lambda *_: True,
        "torch.cuda.is_current_stream_capturing": lambda: False,
        "torch.accelerator.current_stream": lambda *_: mock.Mock(is_capturing=lambda: False),
        "torch.optim.Optimizer._group_tensors_by_device_and_dtype": staticmethod(_grouped),
        "torch.Generator": _Generator,
        "torch.autocast": _Autocast,
    }


@contextlib.contextmanager
def pretended() -> Iterator[None]:
    """A machine with one GPU, for as long as the block lasts."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with contextlib.ExitStack() as stack:
            for name, value in _patches().items():
                stack.enter_context(mock.patch(name, value))
            stack.enter_context(Placing())
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def switch_on() -> None:
    """For the rest of this process."""
    _LASTING.enter_context(pretended())


_LASTING = contextlib.ExitStack()
