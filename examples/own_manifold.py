"""
Find the error in a manifold of your own
========================================

A manifold has laws: a step stays on it, begins along its tangent, and so on. ``check_manifold`` tries them all on drawn
points and shrinks each failure to the simplest case. Here is a sphere whose steps are wrong.
"""

import geoopt
import matplotlib.pyplot as plt
import torch

import rsam.testing


class Wrong(geoopt.Sphere):
    """The unit sphere, with an error in its retraction."""

    def retr(self, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        angle = u.norm(dim=-1, keepdim=True)
        return x * angle.cos() + u * angle.sin()  # should be u / angle * angle.sin()


# %%
# At an angle of one radian the formula is right, so that a test by unit vectors would pass. The check draws others:
stays = rsam.testing.properties.a_step_stays_on_the_manifold
try:
    rsam.testing.check_manifold(Wrong(), (2,), properties=[stays])
except rsam.errors.PropertyError as error:
    print(error)
    case = error.case

# %%
# Draw this case. Put ``check_manifold(manifold, shape)`` into a test of your project; without ``properties`` it checks
# all laws.
x, u = case["x"], case["u"]
t = torch.linspace(0, 1, 50, dtype=x.dtype).unsqueeze(1)
figure, panel = plt.subplots(figsize=(7, 5), layout="constrained")
panel.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.6"))
panel.plot(*geoopt.SphereExact().retr(x, t * u).T, color="C2", label="the geodesic")
panel.plot(*Wrong().retr(x, t * u).T, color="C3", label=r"its steps along $t u$, $0 \leq t \leq 1$")
panel.plot(*x, "ko", label=f"$x$ = {x.tolist()}")
panel.annotate("", (x + u).tolist(), x.tolist(), arrowprops={"arrowstyle": "->"})
panel.annotate(f"$u$ = {u.tolist()}", (x + u).tolist(), ha="center", va="bottom")
panel.set(title="The simplest failing case", xlabel="first coordinate", ylabel="second coordinate", aspect="equal")
panel.set(xlim=(0.2, 1.5), ylim=(-0.3, 0.7))
figure.legend(loc="outside lower center", ncols=3)
plt.show()
