"""Compute one RSAM step from the formulas in numpy, without code of the package.

Every retraction below is an analytic expression, so that complex steps give its derivative exactly to rounding.
Tangents are transported in other ways than by the package: dense matrices, logarithms, the other hyperbolic model.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

RHO, LR = 0.3, 0.2


class Euclidean:
    def inner(self, x, u, v):
        return np.sum(u * v)

    def raised(self, x, g):
        """Solve in a basis of tangents for the tangent whose inner products are the pairings with g."""
        basis = self.basis(x)
        gram = np.array([[self.inner(x, a, b) for b in basis] for a in basis])
        coefficients = np.linalg.solve(gram, [np.sum(g * a) for a in basis])
        return sum(c * a for c, a in zip(coefficients, basis, strict=True))

    def basis(self, x):
        """Return a basis of the tangent space: the range of the projector, by its singular vectors."""
        columns = np.stack([self.project(x, e).ravel() for e in _units(x)], 1)
        left, values, _ = np.linalg.svd(columns)
        return [left[:, i].reshape(x.shape) for i in range(int(np.sum(values > 1e-9)))]

    def lowered(self, x, t):
        """Return a covector with the pairing <t, .>, which determines it on tangents."""
        basis = self.basis(x)
        rows = np.stack([a.ravel() for a in basis])
        return np.linalg.lstsq(rows, np.array([self.inner(x, t, a) for a in basis]), rcond=None)[0].reshape(x.shape)

    def project(self, x, u):
        return u

    def retract(self, x, u):
        return x + u

    def exponential(self, x, u):
        return x + u

    def back(self, x, u, y, v, exact):
        return v

    def pullback(self, x, u, c, exact):
        h, curve = 1e-30, self.exponential if exact else self.retract
        derivatives = [curve(x, u + 1j * h * e).imag / h for e in _units(x)]
        return np.array([np.sum(c * d) for d in derivatives]).reshape(x.shape)


class Sphere(Euclidean):
    def project(self, x, u):
        return u - x * np.sum(x * u)

    def retract(self, x, u):
        return (x + u) / np.sqrt(np.sum((x + u) ** 2))

    def exponential(self, x, u):
        angle = np.sqrt(np.sum(u**2))
        return np.cos(angle) * x + np.sin(angle) / angle * u

    def back(self, x, u, y, v, exact):
        angle = np.arccos(x @ y)
        to_x = (x - y * (x @ y)) / np.sin(angle)
        return scipy.linalg.expm(angle * (np.outer(to_x, y) - np.outer(y, to_x))) @ v


class EuclideanStiefel(Euclidean):
    def project(self, x, u):
        s = x.T @ u
        return u - x @ (s + s.T) / 2

    def retract(self, x, u):
        columns = []  # Gram-Schmidt without conjugates, for complex steps
        for a in (x + u).T:
            for q in columns:
                a = a - q * np.sum(q * a)
            columns.append(a / np.sqrt(np.sum(a**2)))
        return np.stack(columns, 1)

    def exponential(self, x, u):
        """Solve the geodesic equation, linear in a frame that turns with the geodesic (Edelman et al. 1998)."""
        a, s, one = x.T @ u, u.T @ u, np.eye(x.shape[1])
        turning = scipy.linalg.expm(np.block([[a, -s], [one, a]]))
        return np.hstack([x, u]) @ turning[:, : x.shape[1]] @ scipy.linalg.expm(-a)

    def back(self, x, u, y, v, exact):
        n = x.shape[0]
        pairs = [(i, j) for i in range(n) for j in range(i)]
        skew = []
        for i, j in pairs:
            e = np.zeros((n, n))
            e[i, j], e[j, i] = 1, -1
            skew.append(e)
        system = np.stack([(e @ (x + y) / 2).ravel() for e in skew], 1)
        coefficients = np.linalg.lstsq(system, (x - y).ravel(), rcond=None)[0]  # the solution of least norm
        w = sum(c * e for c, e in zip(coefficients, skew, strict=True))
        return np.linalg.solve(np.eye(n) - w / 2, (np.eye(n) + w / 2) @ v)


class CanonicalStiefel(EuclideanStiefel):
    def inner(self, x, u, v):
        return np.trace(u.T @ (np.eye(len(x)) - x @ x.T / 2) @ v)

    def skew(self, x, u):
        p = np.eye(len(x)) - x @ x.T / 2
        return p @ u @ x.T - x @ u.T @ p

    def cayley(self, x, u):
        w = self.skew(x, u)
        return np.linalg.solve(np.eye(len(x)) - w / 2, np.eye(len(x)) + w / 2)

    def retract(self, x, u):
        return self.cayley(x, u) @ x

    def exponential(self, x, u):
        return scipy.linalg.expm(self.skew(x, u)) @ x

    def back(self, x, u, y, v, exact):
        return (scipy.linalg.expm(self.skew(x, u)) if exact else self.cayley(x, u)).T @ v


class Lorentz(Euclidean):
    def inner(self, x, u, v):
        return np.sum(u * v) - 2 * u[0] * v[0]

    def project(self, x, u):
        return u + x * self.inner(x, x, u)

    def retract(self, x, u):
        # the derivative is used in tangent directions only, so that this need not stay on the manifold
        r = np.sqrt(self.inner(x, u, u))
        return np.cosh(r) * x + np.sinh(r) / r * u

    exponential = retract

    def log(self, x, y):
        d = np.arccosh(-self.inner(x, x, y))
        z = y + self.inner(x, x, y) * x
        return d * z / np.sqrt(self.inner(x, z, z)), d

    def back(self, x, u, y, v, exact):
        to_x, d = self.log(y, x)
        return v - self.inner(y, to_x, v) / d**2 * (to_x + self.log(x, y)[0])


class PoincareBall(Euclidean):
    def inner(self, x, u, v):
        return 4 / (1 - np.sum(x**2)) ** 2 * np.sum(u * v)

    def lift(self, x):
        s = np.sum(x**2)
        return np.concatenate([[1 + s], 2 * x]) / (1 - s)

    def exponential(self, x, u):
        """Follow the geodesic by Moebius addition (Ganea et al. 2018, Lemma 2)."""
        r = np.sqrt(np.sum(u**2))
        w = np.tanh(r / (1 - np.sum(x**2))) / r * u
        xx, xw, ww = np.sum(x**2), np.sum(x * w), np.sum(w**2)
        return ((1 + 2 * xw + ww) * x + (1 - xx) * w) / (1 + 2 * xw + xx * ww)

    def back(self, x, u, y, v, exact):
        """Transport back via the hyperboloid."""
        h = 1e-30
        lorentz = Lorentz()
        carried = lorentz.back(self.lift(x), None, self.lift(y), self.lift(y + 1j * h * v).imag / h, exact)
        jacobian = np.stack([self.lift(x + 1j * h * e).imag / h for e in _units(x)], 1)
        return np.linalg.lstsq(jacobian, carried, rcond=None)[0]


class SPD(Euclidean):
    def inner(self, x, u, v):
        return np.trace(np.linalg.solve(x, u) @ np.linalg.solve(x, v))

    def project(self, x, u):
        return (u + u.T) / 2

    def retract(self, x, u):
        return x + u + u @ np.linalg.solve(x, u) / 2

    def exponential(self, x, u):
        return x @ scipy.linalg.expm(np.linalg.solve(x, u))

    def back(self, x, u, y, v, exact):
        e = scipy.linalg.sqrtm(x @ np.linalg.inv(y)).real
        return e @ v @ e.T


def _units(x):
    return np.eye(x.size).reshape(-1, *x.shape)


def step(parts, xs, gradient, transport, ascent="retraction"):
    """Take an RSAM step on the product of ``parts``, with Riemannian gradient descent as base."""
    gs = gradient(xs)
    rs = [m.raised(x, g) for m, x, g in zip(parts, xs, gs, strict=True)]
    norm = np.sqrt(sum(m.inner(x, r, r) for m, x, r in zip(parts, xs, rs, strict=True)))
    es = [RHO * r / norm for r in rs]
    exact = ascent == "exponential"
    ys = [(m.exponential if exact else m.retract)(x, e) for m, x, e in zip(parts, xs, es, strict=True)]
    news = []
    for m, x, e, y, g in zip(parts, xs, es, ys, gradient(ys), strict=True):
        if transport == "vector":
            r = m.back(x, e, y, m.raised(y, g), exact)
        elif transport == "pullback":
            r = m.raised(x, m.pullback(x, e, g, exact))
        else:
            r = m.raised(x, g)
        news.append(m.retract(x, -LR * r))
    return news
