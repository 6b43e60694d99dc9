"""Test tensors are tiny: on several threads linear algebra spends its time waiting for them."""

import torch

torch.set_num_threads(1)
