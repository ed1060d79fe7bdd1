"""Memory: given back between stages, and batches that become smaller when it runs out.

What counts as out of memory is `accelerate`'s list, which knows CUDA, Apple's MPS and the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from .errors import CourseError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def free() -> None:
    """Give back what nothing refers to any more: objects in cycles, then the device's cache.

    A trainer, its model and its callbacks refer to each other, so without this a finished one
    keeps its optimiser on the GPU until Python happens to look for cycles.
    """
    from accelerate.utils import release_memory

    release_memory()


def alone() -> bool:
    """Whether no other process trains with this one."""
    from torch import distributed

    return not (distributed.is_available() and distributed.is_initialized())


def fitting(work: Callable[[int], T], size: int, *, whole: int | None = None, note: str = "") -> T:
    """`work(size)`; whenever memory runs out, the same again with at most half the size.

    Args:
        work: does the same each time it is called, however far it came before.
        size: examples at a time.
        whole: a number that the size has to divide.
        note: what else to tell the reader when the size changes.

    Raises:
        CourseError: not even one example at a time fits, or this is one of several processes,
            which have to agree on the size.
    """
    from accelerate.utils.memory import should_reduce_batch_size

    while True:
        try:
            return work(size)
        except Exception as error:
            if not should_reduce_batch_size(error):
                raise
        # Only out here: as long as the error is known, its traceback holds on to the tensors.
        free()
        size = _smaller(size, whole, note)


def in_batches(work: Callable[[slice], None], count: int, size: int) -> int:
    """Call `work` with slices that cover range(count); returns how long the last full one was.

    Args:
        work: has no effect when it fails.
        size: length of a slice; it becomes smaller for good where memory runs out.
    """
    start = 0
    while start < count:
        asked = min(size, count - start)
        done = fitting(partial(_piece, work, start), asked)
        size = size if done == asked else done
        start += done
    return size


def _piece(work: Callable[[slice], None], start: int, size: int) -> int:
    work(slice(start, start + size))
    return size


def _smaller(size: int, whole: int | None, note: str) -> int:
    """Half of `size`, or the largest divisor of `whole` up to there; says so."""
    if not alone():
        raise CourseError(
            f"Out of memory with {size} examples at a time in one of several processes: begin "
            "again with a smaller batch_size and more accumulation."
        )
    if size == 1:
        raise CourseError(
            "Out of memory with a single example at a time: choose a shorter max_length, a smaller "
            "model or a larger GPU, and restart the kernel, which frees what other models hold."
        )
    fewer = next(n for n in range(size // 2, 0, -1) if not whole or whole % n == 0)
    print(f"Out of memory with {size} examples at a time: going on with {fewer}{note}.")
    return fewer


def remember(model: torch.nn.Module, weights: bool) -> Callable[[], None]:
    """A function that puts a model back as it is now, to begin a training again.

    Adapters replace layers in place; the layers underneath, which are frozen, come back. Torch's
    random numbers come back, too: they decide the weights of a new adapter.

    Args:
        weights: training changes the model's own weights, so a copy of them is kept, off the GPU.
    """
    import torch

    layers = [(module, dict(module._modules)) for module in model.modules()]
    learnt = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    names = set(vars(model))
    values = model.state_dict() if weights else {}
    values = {name: value.detach().to("cpu", copy=True) for name, value in values.items()}
    generator = torch.get_rng_state()

    def restore() -> None:
        for module, own in layers:
            module._modules.clear()
            module._modules.update(own)
        for name in set(vars(model)) - names:
            delattr(model, name)
        for parameter, learns in learnt:
            parameter.grad = None
            parameter.requires_grad_(learns)
        model.load_state_dict(values, strict=False)
        torch.set_rng_state(generator)

    return restore
