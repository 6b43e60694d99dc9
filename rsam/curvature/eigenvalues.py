"""Find extreme eigenvalues of an operator, with a bound on their error."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rsam.curvature.estimate import generator_of
from rsam.curvature.linear import LinearOperator
from rsam.curvature.operator import one_call
from rsam.evaluation.optional import optional, progress
from rsam.evaluation.parameters import as_integer

__all__ = ["Eigenpairs", "top_eigenvalues"]

# Largest size of an operator that may be written out as a dense matrix.
_DENSE = 4096


@dataclass(frozen=True)
class Eigenpairs:
    """Some eigenvalues of a symmetric operator.

    Attributes
    ----------
    values : Tensor
        Shape ``(k,)``, the most extreme first.
    vectors : Tensor
        Shape ``(size, k)``: orthonormal coordinates; ``operator.tangents(vectors[:, 0])`` are the first as tangents.
    residuals : Tensor
        Shape ``(k,)``: norms of ``A v - value v``. A true eigenvalue lies within this distance of each value.
    products : int
        Number of matrix-vector products taken.

    Examples
    --------
    >>> import torch, rsam
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> x, y = torch.tensor([[3.0, 4.0]]), torch.zeros(1, 1)
    >>> hessian = rsam.curvature.RiemannianHessian(model, torch.nn.MSELoss(), model.parameters(), (x, y))
    >>> pairs = rsam.curvature.top_eigenvalues(hessian, k=2)
    >>> pairs.values.round(decimals=3).abs(), pairs.vectors[:, 0].abs()
    (tensor([50.,  0.]), tensor([0.6000, 0.8000]))
    """

    values: Tensor
    vectors: Tensor = field(repr=False)  # one row per number of the model
    residuals: Tensor
    products: int


def top_eigenvalues(
    operator: LinearOperator,
    k: int = 1,
    *,
    which: Literal["largest", "smallest", "magnitude"] = "largest",
    rtol: float | None = None,
    max_products: int | None = None,
    seed: int | torch.Generator = 0,
    progressbar: bool = False,
) -> Eigenpairs:
    """Find extreme eigenvalues by the implicitly restarted Lanczos method (:func:`scipy.sparse.linalg.eigsh`).

    Operators of at most 20 columns, or ``2 k + 1``, are solved densely. In larger ones an eigenvalue that occurs
    several times, as in a network with symmetries, may be found fewer times, and smaller ones take the places of its
    copies: one vector of each eigenspace is in the Krylov space of the first vector, and only rounding adds others.

    Parameters
    ----------
    operator : LinearOperator, or an operator of curvlinops
        Square and symmetric, such as a :class:`RiemannianHessian`.
    k : int
        Number of eigenvalues to find.
    which : {"largest", "smallest", "magnitude"}
        The largest or smallest (most negative) ones, or those of largest modulus.
    rtol : float, optional
        Accuracy relative to the largest modulus of an eigenvalue; by default half the digits of the operator's dtype.
    max_products : int, optional
        Give up after about so many products; by default after as many as the operator has columns.
    seed : int or torch.Generator
        Source of the first vector.
    progressbar : bool
        Show a bar that counts products.

    Returns
    -------
    Eigenpairs
        Values, vectors and residuals.

    Raises
    ------
    ValueError
        For an operator that is not square, or bad ``k``, ``which`` or ``max_products``.
    RuntimeError
        If it does not converge.
    ImportError
        Without SciPy, unless the operator is so small that all eigenvalues are computed at once.

    Examples
    --------
    >>> import torch, rsam
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> x, y = torch.tensor([[3.0, 4.0]]), torch.zeros(1, 1)
    >>> hessian = rsam.curvature.RiemannianHessian(model, torch.nn.MSELoss(), model.parameters(), (x, y))
    >>> rsam.curvature.top_eigenvalues(hessian).values
    tensor([50.])
    """
    size, columns = operator.shape
    code = {"largest": "LA", "smallest": "SA", "magnitude": "LM"}.get(which)
    if size != columns:
        raise ValueError(f"operator must be square, but its shape is {tuple(operator.shape)}")
    k = as_integer("k", k)
    max_products = None if max_products is None else as_integer("max_products", max_products, 1)
    if not 1 <= k <= size:
        raise ValueError(f"k must be from 1 to the operator's size {size}, got {k}")
    if code is None:
        raise ValueError(f"which must be 'largest', 'smallest' or 'magnitude', got {which!r}")
    lanczos = min(size, max(2 * k + 1, 20))  # eigsh's own choice of basis
    with progress(show=progressbar, desc="eigenvalues", unit="product") as bar, one_call(operator):
        if lanczos == size:  # a dense solution is as cheap, and exact
            values, vectors, products = _dense(operator)
        else:
            values, vectors, products = _sparse(operator, k, code, rtol, max_products, seed, bar)
        order = {"LA": -values, "SA": values, "LM": -values.abs()}[code].argsort()[:k]
        values, vectors = values[order], vectors[:, order]
        # in double precision, in which the squares of small numbers do not vanish
        differences = (operator @ vectors).double() - vectors.double() * values.double()
        residuals = torch.linalg.vector_norm(differences, dim=0).to(operator.dtype)
    return Eigenpairs(values, vectors, residuals, products + k)


def _dense(operator: LinearOperator) -> tuple[Tensor, Tensor, int]:
    size = operator.shape[0]
    matrix = operator @ torch.eye(size, dtype=operator.dtype, device=operator.device)
    values, vectors = torch.linalg.eigh((matrix + matrix.mT).double() / 2)
    return values.to(operator.dtype), vectors.to(operator.dtype), size


def _sparse(
    operator: LinearOperator,
    k: int,
    code: str,
    rtol: float | None,
    max_products: int | None,
    seed: int | torch.Generator,
    bar: Any,
) -> tuple[Tensor, Tensor, int]:
    arpack = optional("scipy.sparse.linalg", "top_eigenvalues")
    size = operator.shape[0]
    as_tensor: dict[str, Any] = {"dtype": operator.dtype, "device": operator.device}
    generator = generator_of(seed, operator.device)
    first = torch.randn(size, dtype=operator.dtype, device=operator.device, generator=generator).double().cpu().numpy()
    scipy_operator = operator.to_scipy()
    products, scale, shift = 0, 1.0, 0.0

    def product(v: Any) -> Any:
        nonlocal products
        bar.update()
        products += 1
        return scipy_operator @ v / scale + shift * v

    # ARPACK's tolerance is relative to each eigenvalue, which is out of reach for an eigenvalue of zero, such as the
    # smallest of a Gauss-Newton matrix; and to 4e-11 at least, which is more than all eigenvalues of a loss that is
    # small. So the operator is divided by about its norm, estimated by three power steps, and shifted by one.
    power, norm = first, 0.0
    for _ in range(3):
        power = product(power / np.linalg.norm(power))
        norm = float(np.linalg.norm(power))
        if norm == 0:  # an operator that maps a random vector to zero is zero
            return torch.zeros(k, **as_tensor), torch.eye(size, k, **as_tensor), products
    scale, shift = norm, {"LA": 1.0, "SA": -1.0, "LM": 0.0}[code]
    counted = arpack.LinearOperator(operator.shape, matvec=product, dtype=first.dtype)
    basis = max(2 * k + 1, 20)
    restarts = max(1, (size if max_products is None else max_products) // (basis - k))
    tolerance = torch.finfo(operator.dtype).eps ** 0.5 if rtol is None else rtol
    tolerance /= 2 if shift else 1  # the tolerance is relative to the norm, which the shift may have doubled
    try:
        values, vectors = arpack.eigsh(counted, k, which=code, v0=first, tol=tolerance, ncv=basis, maxiter=restarts)
    except arpack.ArpackNoConvergence as error:
        if max_products is None and size <= _DENSE:  # a dense solution takes no more products than were spent already
            values, vectors, more = _dense(operator)
            return values, vectors, products + more
        raise RuntimeError(
            f"{len(error.eigenvalues)} of {k} eigenvalues converged in {products} products; raise rtol or max_products"
        ) from error
    return (
        torch.as_tensor((values - shift) * scale, **as_tensor),
        torch.as_tensor(vectors.copy(), **as_tensor),
        products,
    )
