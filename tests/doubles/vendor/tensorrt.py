"""Stands for NVIDIA's module in a process that finds this folder first. Builds wait for the file DOUBLE_GATE."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.doubles.tensorrt_double import TensorrtDouble

double = TensorrtDouble()
if gate := os.environ.get("DOUBLE_GATE"):
    double.gate = Path(gate)
sys.modules[__name__] = double  # type: ignore[assignment]
