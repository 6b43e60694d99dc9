from typing import Any

import torch

class RiemannianSGD(torch.optim.Optimizer):
    def __init__(self, params: Any, *args: Any, **options: Any) -> None: ...

class RiemannianAdam(torch.optim.Optimizer):
    def __init__(self, params: Any, *args: Any, **options: Any) -> None: ...

def __getattr__(name: str) -> Any: ...
