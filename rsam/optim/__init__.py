"""RSAM, its radius schedule, and the Riemannian optimizers that it wraps by default."""

from rsam.optim.adam import RiemannianAdam
from rsam.optim.ascent import Weights
from rsam.optim.closures import partial_closures
from rsam.optim.passes import PassHook
from rsam.optim.rsam import RSAM
from rsam.optim.schedules import LambdaRho
from rsam.optim.sgd import RiemannianSGD

__all__ = ["RSAM", "LambdaRho", "PassHook", "RiemannianAdam", "RiemannianSGD", "Weights", "partial_closures"]
