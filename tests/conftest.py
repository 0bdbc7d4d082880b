"""What all tests share: one thread a process, since several processes share the machine."""

from __future__ import annotations

import os

import torch

os.environ["OMP_NUM_THREADS"] = "1"  # For the processes that tests start.
torch.set_num_threads(1)
