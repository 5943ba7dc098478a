"""What the tests of the formats share; alike.py can be imported by each of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def mnist() -> tuple[np.ndarray, np.ndarray]:
    """MNIST's 10,000 test pictures, uint8 (N, 1, 28, 28), and their classes; NETDSL_MNIST names
    the folder of its idx files."""
    folder = os.environ.get("NETDSL_MNIST")
    if not folder:
        pytest.skip("NETDSL_MNIST does not say where MNIST lies")
    pictures = np.fromfile(Path(folder) / "t10k-images-idx3-ubyte", np.uint8)[16:]
    labels = np.fromfile(Path(folder) / "t10k-labels-idx1-ubyte", np.uint8)[8:]
    return pictures.reshape(-1, 1, 28, 28), labels
