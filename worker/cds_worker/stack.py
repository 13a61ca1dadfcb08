"""torch, torchvision and MONAI, imported in one place: late, so that `--help` stays fast, and as a pair.

A CPU wheel of torch beside a CUDA wheel of torchvision dies while importing; here that is a `Refused` which
names both versions. Every other module of this room works on arrays and callables alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cds_plugin.errors import Refused

AUTOMATIC = "auto"
CPU = "cpu"
EXTRA = "install cds-plugin[worker]"


@dataclass(frozen=True, slots=True)
class Stack:
    """The imported libraries."""

    torch: Any
    config_parser: Any
    """`monai.bundle.ConfigParser`."""


def import_stack() -> Stack:
    """Return the imported libraries, CUDA untouched; raises Refused naming what is missing or mismatched.

    The first variable makes `torch.cuda.is_available` ask NVML: a process that initialised CUDA must not
    fork. The second lets OpenMP's threads sleep while they wait for each other: spinning on two busy cores,
    one picture took 45 s instead of one.
    """
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        torch = import_module("torch")
        import_module("torchvision")
        return Stack(torch, import_module("monai.bundle.config_parser").ConfigParser)
    except ModuleNotFoundError as error:
        raise Refused("models_not_installed", f"The package {error.name} is missing.", EXTRA) from error
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise Refused(
            "torch_pairing",
            f"{_installed('torch')} and {_installed('torchvision')} do not work together: {error}",
            "Install both from one index, CPU builds or CUDA builds, as requirements/product.lock pins them.",
        ) from error


def _installed(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


def devices(stack: Stack, wanted: str) -> tuple[str, ...]:
    """Return one device name per worker process for the setting `worker.device`.

    "auto" is every GPU, else the CPU. Raises Refused for a GPU that is not here. Counting goes through NVML
    and does not initialise CUDA.
    """
    count = int(stack.torch.cuda.device_count())
    if wanted == AUTOMATIC:
        return tuple(f"cuda:{index}" for index in range(count)) or (CPU,)
    if wanted == CPU:
        return (CPU,)
    index = int(wanted.partition(":")[2] or 0)
    if index >= count:
        raise Refused(
            "no_such_device",
            f"worker.device is {wanted!r} but {count} GPUs are visible.",
            'Set worker.device to "auto", "cpu" or a visible GPU.',
        )
    return (f"cuda:{index}",)
