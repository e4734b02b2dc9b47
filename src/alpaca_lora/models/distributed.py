"""This process among its peers: rank, number, device; values and tensors that ranks hand each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    import torch


def processes() -> Any:
    """accelerate's state of this process among its peers: rank, number, device.

    Without a GPU accelerate must be told so, or each process started by torchrun takes itself for the only one.

    Raises:
        ConfigError: the environment says that there are several processes, and they cannot be joined.
    """
    import torch
    from accelerate import PartialState

    try:
        return PartialState(cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()))
    except ValueError as error:
        raise ConfigError(
            f"several processes cannot be joined: {' '.join(str(error).split())[:200]}. Start them with torchrun; for "
            "one process, unset WORLD_SIZE, RANK and LOCAL_RANK."
        ) from error


def nodes() -> int:
    """Machines that take part in this run; all ranks must call this."""
    import torch
    from accelerate.utils import reduce

    state = processes()
    first_there = torch.tensor(int(state.local_process_index == 0), device=state.device)
    return int(reduce(first_there, "sum"))


def from_first_rank(value: Any) -> Any:
    """What rank 0 has for `value`, on every rank; all of them must call this."""
    if processes().num_processes == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


BUCKET = 2**24
"""Elements that are sent together: 64 MiB in float32."""


def average(tensors: Iterable[torch.Tensor]) -> None:
    """Replace each tensor by its mean over processes, which walk through the same ones together."""
    bucket: list[torch.Tensor] = []
    for tensor in tensors:
        if bucket and sum(each.numel() for each in bucket) + tensor.numel() > BUCKET:
            _average(bucket)
            bucket = []
        bucket.append(tensor)
    if bucket:
        _average(bucket)


def _average(bucket: list[torch.Tensor]) -> None:
    import torch

    flat = torch.cat([tensor.flatten() for tensor in bucket]).div_(processes().num_processes)
    torch.distributed.all_reduce(flat)
    for tensor, mean in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def whole(tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Named tensors, gathered from their shards one after the other onto the CPU; all ranks must walk this together."""
    from torch.distributed.tensor import DTensor

    device = processes().device
    for name, tensor in tensors:
        full = tensor.detach()
        if isinstance(full, DTensor):
            full = full.to(device).full_tensor()  # type: ignore[attr-defined]  # shards offloaded to the host are gathered on the device
        yield name, full.cpu()
