"""Copies between host and device that nobody waits for.

What comes to the host may be read once the device has been waited for, as by `tolist` of what
was computed later. On the CPU nothing is copied.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def to_device(values: Any, device: torch.device) -> Tensor:
    """Nested lists of numbers, or a tensor on the host."""
    tensor = torch.as_tensor(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(tensor: Tensor) -> Tensor:
    return tensor.to("cpu", non_blocking=tensor.is_cuda)
