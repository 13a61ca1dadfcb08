"""Weights as they are shipped: half-precision safetensors, read back in float32. Nothing here unpickles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

READABLE = 0o644
"""Mode of a weights file: safetensors makes it private, but whoever installs the wheel must read it."""


def save_half(path: Path, state_dict: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Writes `state_dict` to `path` with floats in half precision; `metadata` becomes the file's header."""
    tensors = {
        name: (value.half() if value.is_floating_point() else value).detach().cpu().contiguous().clone()
        for name, value in state_dict.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".new")
    save_file(tensors, scratch, metadata=dict(metadata))
    scratch.chmod(READABLE)
    scratch.replace(path)


def load_half(path: Path, module: torch.nn.Module) -> torch.nn.Module:
    """`module` with the weights of `path` as float32, in evaluation mode; every name must match."""
    tensors = load_file(Path(path))
    module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    return module.eval()


def weights_metadata(path: Path) -> dict[str, str]:
    """The text header that `save_half` was given."""
    with safe_open(path, framework="pt") as stream:
        return dict(stream.metadata() or {})
