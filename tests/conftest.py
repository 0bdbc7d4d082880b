"""What all tests share: one thread a process, since several processes share the machine."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
