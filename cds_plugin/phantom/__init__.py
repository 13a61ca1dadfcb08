"""Draws dermoscopy-like pictures with known truth, for demonstrations and tests; no picture of anybody."""

from __future__ import annotations

from cds_plugin.phantom.scene import Phantom, draw_phantom

__all__ = ["Phantom", "draw_phantom"]
