"""RSAM, its radius schedule, and the Riemannian optimizers that it wraps by default."""

from rsam.optim.adam import RiemannianAdam
from rsam.optim.hooks import PassHook
from rsam.optim.rho import LambdaRho
from rsam.optim.rsam import RSAM
from rsam.optim.sgd import RiemannianSGD

__all__ = ["RSAM", "LambdaRho", "PassHook", "RiemannianAdam", "RiemannianSGD"]
