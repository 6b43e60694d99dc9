"""Add RSAM by name to ``timm.optim.create_optimizer_v2``; importing this module adds the names.

=============== ===================================================
``"rsam"``      :class:`rsam.RSAM` over :class:`rsam.optim.RiemannianSGD`
``"rsamadam"``  :class:`rsam.RSAM` over :class:`rsam.optim.RiemannianAdam`
=============== ===================================================

Options of RSAM and of the base optimizer are passed on. timm takes what follows the last underscore of a name for the
optimizer, so that ``"rsam_adam"`` would be plain Adam.

Examples
--------
>>> import timm, torch, rsam
>>> import rsam.integrations.timm
>>> model = rsam.nn.constrain(torch.nn.Linear(4, 2), rsam.geometry.KernelSphere())
>>> optimizer = timm.optim.create_optimizer_v2(model, "rsam", lr=0.1, momentum=0.9, rho=0.05)
>>> type(optimizer).__name__, optimizer.param_groups[0]["momentum"]
('RSAM', 0.9)
"""

from rsam.integrations.frameworks import needs
from rsam.optim import RSAM, RiemannianAdam

with needs("timm"):
    from timm.optim._optim_factory import OptimInfo, default_registry

__all__: list[str] = []

default_registry.register(
    OptimInfo("rsam", RSAM, "Sharpness-aware minimisation over Riemannian SGD", has_eps=False, has_momentum=True)
)
default_registry.register(
    OptimInfo(
        "rsamadam",
        RSAM,
        "Sharpness-aware minimisation over Riemannian Adam",
        has_betas=True,
        defaults={"base_optimizer": RiemannianAdam},
    )
)
