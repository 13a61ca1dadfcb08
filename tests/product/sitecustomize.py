"""Processes that tests start see the product without what only training and development install.

MONAI imports these packages where it finds them, which takes longer than everything that it is needed for.
Python imports this file at its start; the tests put its folder into PYTHONPATH.
"""

from __future__ import annotations

import sys

NOT_OF_THE_PRODUCT = (
    "imblearn",
    "jsonschema",
    "matplotlib",
    "mpl_toolkits",
    "scipy",
    "sklearn",
    "tensorboard",
)

sys.modules.update(dict.fromkeys(NOT_OF_THE_PRODUCT))  # type: ignore[arg-type]
