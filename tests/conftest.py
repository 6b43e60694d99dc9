"""Run the tests on one thread: their tensors are so tiny that several threads mostly wait."""

import torch

torch.set_num_threads(1)
