"""That models and data without margins are refused, with a reason."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import geoopt
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from rsam import NotFinite
from rsam.margins import (
    GapModel,
    distances,
    k_variance,
    kv_margins,
    margins,
    plot_margins,
    principal_components,
    total_variations,
)
from tests.margins.problems import classes, convolutional, images, loader, normal

X, Y = normal(6, 4, dtype=torch.float32), classes(6)


def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


class Calls(nn.Module):
    """Network that calls one part twice, one never, one without using its result, and one that returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.never, self.vain = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.recurrent, self.head = nn.GRU(4, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.vain(x)
        return self.head(self.recurrent(self.twice(self.twice(x))[:, None])[0][:, 0])


LAYERS = {
    "twice": (ValueError, "'twice' is called more than once"),
    "never": (ValueError, "'never' is never called"),
    "vain": (ValueError, "no gradient in layer 'vain': it does not depend on it"),
    "recurrent": (
        TypeError,
        "'recurrent' must put out one tensor of real or complex numbers, not a tuple; name a module inside or",
    ),
    "haed": (ValueError, "no layer 'haed'; there is 'head'"),
    "": (ValueError, "no layer ''"),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("measure", [margins, distances])
def test_that_a_layer_without_one_output_is_named(layer: str, measure: Any) -> None:
    kind, message = LAYERS[layer]
    with pytest.raises(kind, match=message):
        measure(Calls(), (X, Y), ["head", layer])


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(x)


def test_that_a_module_called_output_is_not_mistaken_for_the_output() -> None:
    with pytest.raises(ValueError, match=r"pass nn.Sequential\(model\), where that module is called '0.output'"):
        margins(Named(), (X, Y), ["output"])
    assert list(margins(nn.Sequential(Named()), (X, Y), ["0.output", "output"])) == ["0.output", "output"]


DATA: dict[str, tuple[Any, str]] = {
    "regression": ((X, X[:, 0]), "labels must be class indices.*margins are of classifiers"),
    "one-hot labels": ((X, torch.eye(3)[Y]), r"take argmax\(1\) of one-hot"),
    "ignored labels": ((X, torch.tensor([0, 1, 2, -100, 0, 0])), "from 0 to 2, got -100"),
    "unknown class": ([(X, Y), (X, Y + 1)], "from 0 to 2, got 3"),
    "labels of other examples": ((X, Y[:5]), "6 examples, but the batch has 5 labels"),
    "labels in a list": ([(X, Y.tolist())], "tensor of class indices, got list"),
    "three parts": ([(X, Y, Y)], "loader of pairs, but a batch is a tuple of 3"),
    "labels of numpy": ((X, Y.numpy()), "a pair of tensors"),
    "a data set": (TensorDataset(X, Y), "pass a loader of the data"),
    "no batches": ([], "data is empty"),
    "no examples": ((X[:0], Y[:0]), "data is empty"),
    "one example": ((X[:1], Y[:1]), "all 1 examples have the same representation at layer 'input'"),
    "integers": ((torch.ones(6, 4, dtype=torch.long), Y), "layer 'input' needs inputs"),
}


@pytest.mark.parametrize("kind", DATA)
def test_that_data_without_margins_are_refused(kind: str) -> None:
    data, message = DATA[kind]
    model = linear() if kind != "integers" else nn.Sequential(nn.Embedding(4, 4), nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(ValueError, match=message):
        margins(model, data)


class Returns(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.head, self.function = nn.Linear(4, 3), function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.head(x))


OUTPUTS: dict[str, tuple[Any, str]] = {
    "one number": (lambda f: f[:, :1], r"torch.cat\(\(torch.zeros_like\(z\), z\), 1\)"),
    "a vector": (lambda f: f[:, 0], r"logits of shape \(6,\).*of shape \(examples, 1\), return torch.cat"),
    "a tuple": (lambda f: (f, f), "not tuple; wrap it in a module"),
    "classes": (lambda f: f.argmax(1, keepdim=True), "of torch.int64"),
    "without a graph": (lambda f: f.detach(), "without a graph"),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_that_outputs_that_are_no_logits_are_refused(kind: str) -> None:
    function, message = OUTPUTS[kind]
    with pytest.raises(ValueError, match=message):
        margins(Returns(function), (X, Y))


@pytest.mark.parametrize(
    "function",
    [
        lambda f: f - f.mean(0),
        lambda f: f + f.flip(0),
        lambda f: f * f[1].detach() + f[1] * 0.1,
        lambda f: f - f[:1],
        lambda f: f + f.roll(2, 0),
        lambda f: f + f.roll(len(f) // 2, 0),
    ],
)
@pytest.mark.parametrize("measure", [margins, distances])
def test_that_models_whose_examples_interact_are_refused(function: Any, measure: Any) -> None:
    with pytest.raises(ValueError, match="depends on layer 'input' of other examples"):
        measure(Returns(function), (X, Y))


@pytest.mark.parametrize("measure", [margins, distances])
def test_that_interaction_is_found_in_the_first_batch_of_several_examples(measure: Any) -> None:
    with pytest.raises(ValueError, match="depends on layer 'input' of other examples"):
        measure(Returns(lambda f: f + f.mean(0)), loader((X, Y), 1, 5))


def test_that_batch_norm_without_running_statistics_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.ReLU(), nn.Linear(5, 3))
    with pytest.raises(ValueError, match=r"of other examples of the batch.*batch norm"):
        margins(model, (X, Y), ["2"])  # the layer is behind the norm, but inputs interact anyway


def test_that_numbers_that_are_not_finite_are_named() -> None:
    with pytest.raises(NotFinite, match=r"1 of 6 margins at layer 'input' are not finite \(first: example 2\)"):
        margins(linear(), (X.index_fill(0, torch.tensor([2]), torch.nan), Y), normalize=False)
    for measure in (margins, total_variations):
        for bad in (torch.nan, 1e30):  # the square of the latter overflows in single precision
            with pytest.raises(NotFinite, match="representations at layer 'input' are not finite, or their squares"):
                measure(linear(), (X.index_fill(0, torch.tensor([2]), bad), Y))
    flat = Returns(lambda f: torch.where(f > 0, 0 * f, 0 * f) + torch.tensor([1.0, 0.0, 0.0]))
    with pytest.raises(NotFinite, match=r"gradient vanishes.*eps"):
        margins(flat, (X, Y), normalize=False)
    assert torch.isfinite(margins(flat, (X, Y), normalize=False, eps=1e-6)["input"]).all()


def test_that_two_classes_that_are_one_have_no_boundary() -> None:
    doubled = Returns(lambda f: torch.stack((f[:, 0], f[:, 0], f[:, 1]), 1))
    with pytest.raises(NotFinite, match="6 of 6 margins at layer 'input'"):
        margins(doubled, (X, torch.zeros_like(Y)), nearest="any", normalize=False)


def test_that_a_layer_with_another_first_dimension_is_refused() -> None:
    model = nn.Sequential(nn.Unflatten(0, (2, 3)), nn.Flatten(0, 1), nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"layer '0' puts out shape \(2, 3, 4\) for 6 examples"):
        margins(model, (X, Y), ["0"])


def test_that_options_that_do_not_fit_are_refused() -> None:
    model = linear()
    with pytest.raises(ValueError, match="list of names"):
        margins(model, (X, Y), "input")
    with pytest.raises(ValueError, match="twice"):
        margins(model, (X, Y), ["0", "0"])
    with pytest.raises(ValueError, match="empty"):
        margins(model, (X, Y), [])
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, got function"):
        margins(lambda x: x, (X, Y))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nearest must be"):
        margins(model, (X, Y), nearest="all")  # type: ignore[arg-type]
    for eps in (-1e-6, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="eps must not be negative"):
            margins(model, (X, Y), eps=eps)
    components = principal_components(model, (X, Y), 2)
    with pytest.raises(TypeError, match=r"must be a tensor, such as the directions of .* got PrincipalComponents"):
        margins(model, (X, Y), subspaces={"input": components})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="manifolds names the layer '1'"):
        margins(model, (X, Y), manifolds={"1": geoopt.Sphere()})
    with pytest.raises(ValueError, match="cannot have a subspace as well"):
        margins(model, (X, Y), manifolds={"input": geoopt.Sphere()}, subspaces={"input": torch.eye(4)})
    with pytest.raises(ValueError, match="orthonormal"):
        margins(model, (X, Y), subspaces={"input": torch.ones(4, 2)})
    for directions in (torch.ones(4), torch.ones(4, 0)):
        with pytest.raises(ValueError, match="matrix with its directions as columns"):
            margins(model, (X, Y), subspaces={"input": directions})
    with pytest.raises(ValueError, match="'input' has complex directions, but the layer real numbers"):
        margins(model, (X, Y), subspaces={"input": torch.eye(4, dtype=torch.complex64)})
    with pytest.raises(ValueError, match=r"shape \(6, 4\), which is no batch of points"):
        margins(model, (X, Y), manifolds={"input": geoopt.EuclideanStiefel()})
    with pytest.raises(ValueError, match="directions of size 5, but an example has 4"):
        margins(model, (X, Y), subspaces={"input": torch.eye(5)})
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        principal_components(model, (X, Y), 0)
    with pytest.raises(ValueError, match="name the last module instead of 'output'"):
        principal_components(model, (X, Y), 1, "output")
    with pytest.raises(NotFinite, match="representations at layer 'input' are not finite"):
        principal_components(model, (X / 0, Y), 1)
    wide = torch.zeros(6, 16385)
    with pytest.raises(ValueError, match=r"has 16385 numbers for each example; .* not more than 16384"):
        principal_components(nn.Linear(16385, 3), (wide, Y), 1)
    with pytest.raises(ValueError, match="rank 5 must not be larger"):
        principal_components(model, (X, Y), 5)
    with pytest.raises(ValueError, match="needs more than 3 examples"):
        principal_components(model, (X[:3], Y[:3]), 3)
    with pytest.raises(ValueError, match="'output'"):
        total_variations(model, (X, Y), ["output"])
    with pytest.raises(ValueError, match="'output'"):
        distances(model, (X, Y), ["output"])
    with pytest.raises(ValueError, match="steps"):
        distances(model, (X, Y), steps=0)


@pytest.mark.parametrize("value", [2.0, True])
def test_that_what_is_no_integer_is_refused(value: Any) -> None:
    model, data = linear(), (X, Y)
    gaps = GapModel().fit(normal(8, 2).numpy(), normal(8, seed=1).numpy())
    checkpoints = {epoch: margins(model, data, ["input"]) for epoch in (0, 1)}
    for name, call in (
        ("rank", lambda: principal_components(model, data, value)),
        ("steps", lambda: distances(model, data, steps=value)),
        ("k", lambda: k_variance(X, value)),
        ("k", lambda: kv_margins(model, data, ["input"], k=value)),
        ("repeats", lambda: k_variance(X, repeats=value)),
        ("seed", lambda: k_variance(X, seed=value)),
        ("columns", lambda: plot_margins(checkpoints, columns=value)),
        ("folds", lambda: gaps.k_fold_r2(value)),
        ("samples", lambda: gaps.coefficients(method="bootstrap", samples=value)),
        ("seed", lambda: gaps.coefficients(method="bootstrap", seed=value)),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be an integer, got {value}$"):
            call()


def test_that_a_compiled_model_is_evaluated_uncompiled() -> None:
    model, batch = convolutional(), images()
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(margins(compiled, batch, ["2"]), margins(model, batch, ["2"]))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no layer '_orig_mod.2'; there is '2' .* before torch.compile"):
        margins(compiled, batch, ["_orig_mod.2"])  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="before torch 2.6 compiled parts are refused")
@pytest.mark.parametrize("way", ["compile", "forward", "part"])
def test_that_compiled_parts_are_evaluated_uncompiled(way: str) -> None:
    model, batch = nn.Sequential(convolutional()), images()
    expected = margins(model, batch, ["input", "0.2"])
    if way == "compile":
        model.compile(backend="aot_eager")
    elif way == "forward":
        model.forward = torch.compile(model.forward, backend="aot_eager")  # type: ignore[method-assign]
    else:
        model[0].compile(backend="aot_eager")
    model.eval()(batch[0])  # compiled without the hooks
    torch.testing.assert_close(margins(model, batch, ["input", "0.2"]), expected)


def test_that_a_layer_of_a_wrapped_model_is_found_by_the_end_of_its_name() -> None:
    with pytest.raises(ValueError, match=r"no layer 'head'; there is '0.head'"):
        margins(nn.Sequential(Returns(lambda f: f)), (X, Y), ["head"])


@pytest.mark.parametrize("count", [3, 37, 1000])
@pytest.mark.parametrize("layer", ["input", "0", "1"])
def test_that_equal_examples_have_no_variation_but_their_rounding(count: int, layer: str) -> None:
    equal = X[:1].expand(count, 4) + 100.0  # sums of 37 equal numbers are rounded, so that their mean is another one
    with pytest.raises(ValueError, match=f"all {count} examples have the same representation at layer '{layer}'"):
        margins(linear(), (equal, classes(count)), [layer], eps=1e-6)


def test_that_a_small_variation_is_measured() -> None:
    exact = 100 + torch.tensor([[0.0], [2**-12]]).expand(2, 4)  # 32 units in the last place of single precision
    assert float(total_variations(linear(), (exact, Y[:2]))["input"]) == pytest.approx(4 * 2**-26, rel=1e-6)


def test_that_batches_of_different_sizes_have_no_common_variation() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.mean(1))

    batches = [(normal(6, length, 4, dtype=torch.float32), Y) for length in (5, 7)]
    apart = r"'input' puts out shape \(7, 4\) after \(5, 4\).*pad all batches"
    with pytest.raises(ValueError, match=apart + r".*normalize=False"):
        margins(Mean(), batches)
    assert len(margins(Mean(), batches, normalize=False)["input"]) == 12
    points = [(nn.functional.normalize(x, dim=-1), y) for x, y in batches]
    with pytest.raises(ValueError, match=apart):
        margins(Mean(), points, manifolds={"input": geoopt.Sphere()})
    for measure in (lambda: principal_components(Mean(), batches, 1), lambda: kv_margins(Mean(), batches, ["input"])):
        with pytest.raises(ValueError, match=apart):
            measure()
    turned = [(normal(6, *shape, dtype=torch.float32), Y) for shape in ((2, 4), (4, 2))]  # of as many numbers
    with pytest.raises(ValueError, match=r"puts out shape \(4, 2\) after \(2, 4\)"):
        principal_components(nn.Sequential(nn.Flatten(), nn.Linear(8, 3)), turned, 1)


def test_that_the_extra_is_named_where_scikit_learn_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "rsam.margins")
    with pytest.raises(ImportError, match=r"pip install 'rsam\[margins\]'"):
        importlib.import_module("rsam.margins")
