"""Minimise by RSAM and the Riemannian optimizers that it wraps, schedule its radius, and average weights."""

from rsam.optim import averaging
from rsam.optim.adam import RiemannianAdam
from rsam.optim.closures import partial_closures
from rsam.optim.distributed import average_gradients, check_replicas, keep_manifolds
from rsam.optim.hooks import PassHook
from rsam.optim.rsam import RSAM
from rsam.optim.schedules import LambdaRho, ProportionalRho, rho_scheduler
from rsam.optim.sgd import RiemannianSGD
from rsam.optim.weights import Weights

__all__ = [
    "RSAM",
    "LambdaRho",
    "PassHook",
    "ProportionalRho",
    "RiemannianAdam",
    "RiemannianSGD",
    "Weights",
    "average_gradients",
    "averaging",
    "check_replicas",
    "keep_manifolds",
    "partial_closures",
    "rho_scheduler",
]
