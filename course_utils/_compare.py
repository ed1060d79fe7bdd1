"""Comparing and copying results of any kind, without importing torch or numpy."""

from __future__ import annotations

import copy
import math
import random
import sys
from typing import Any


def _torch_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _numpy_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray | numpy.generic)


def _plain(value: Any) -> Any:
    """Tensors and arrays as nested lists of Python numbers; tuples as lists."""
    if _torch_tensor(value):
        return value.detach().cpu().tolist()
    if _numpy_array(value):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def _flat(value: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Shape and leaves of nested lists; a ragged list raises ValueError."""
    if not isinstance(value, list):
        return (), [value]
    inner = [_flat(part) for part in value]
    shapes = {shape for shape, _ in inner}
    if len(shapes) > 1:
        raise ValueError("ragged")
    leaves = [leaf for _, part in inner for leaf in part]
    return (len(value), *(shapes.pop() if shapes else ())), leaves


def close(a: Any, b: Any, tol: float = 1e-4) -> bool:
    """Whether two results agree: Python numbers, lists, numpy arrays or torch tensors, any dtype.

    Shapes must agree, except that one number equals an array that holds just that number.
    The tolerance is absolute for values below 1 and relative above. None, text and ragged
    lists agree with nothing; NaN agrees with NaN and an infinity with itself.
    """
    try:
        (shape_a, flat_a), (shape_b, flat_b) = _flat(_plain(a)), _flat(_plain(b))
    except ValueError:
        return False
    if shape_a != shape_b and not (len(flat_a) == len(flat_b) == 1):
        return False
    return all(_close_numbers(x, y, tol) for x, y in zip(flat_a, flat_b, strict=True))


def _close_numbers(x: Any, y: Any, tol: float) -> bool:
    if not all(isinstance(value, bool | int | float) for value in (x, y)):
        return False
    if x != x or y != y:
        return x != x and y != y
    if math.isinf(x) or math.isinf(y):
        return bool(x == y)
    return bool(abs(x - y) <= tol * max(1.0, abs(y)))


def randn(rng: random.Random, *shape: int) -> Any:
    """A float32 tensor of normal numbers drawn from the check's own generator."""
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(rng.getrandbits(31)))


def snapshot(value: Any) -> Any:
    if _torch_tensor(value):
        return value.detach().clone()
    if _numpy_array(value):
        return value.copy()
    if isinstance(value, dict):
        return {key: snapshot(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(snapshot, value)) if type(value) in (list, tuple) else value
    if isinstance(value, set):
        return copy.copy(value)
    return value


def unchanged(before: Any, now: Any) -> bool:
    if _torch_tensor(now):
        same_kind = _torch_tensor(before) and before.dtype == now.dtype
        return same_kind and close(before, now, tol=0.0)
    if _numpy_array(now):
        return _numpy_array(before) and before.dtype == now.dtype and close(before, now, tol=0.0)
    if isinstance(now, dict) and isinstance(before, dict):
        return before.keys() == now.keys() and all(unchanged(before[k], now[k]) for k in now)
    if isinstance(now, list | tuple) and isinstance(before, list | tuple):
        return len(before) == len(now) and all(map(unchanged, before, now))
    if isinstance(now, set | bool | int | float | complex | str | bytes):
        same = type(before) is type(now) and (before == now or (before != before and now != now))
        return bool(same)
    return before is now
