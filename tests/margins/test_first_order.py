"""That margins follow their definition, at every layer and for any form of data."""

from __future__ import annotations

import types
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from rsam.margins import distances, margins, principal_components, total_variations
from rsam.margins.network import Network
from tests.margins.problems import DOUBLE, classes, convolutional, generator, images, loader, normal, one_by_one, split

#: Rounding error of a quotient of sums of a hundred terms.
TOLERANCE = {torch.float32: 1e-5, DOUBLE: 1e-10}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("nearest", ["runner_up", "any"])
def test_that_margins_of_a_linear_classifier_are_distances_to_its_hyperplanes(dtype: torch.dtype, nearest: str) -> None:
    model = nn.Linear(5, 4).to(dtype)
    x, y = normal(20, 5, dtype=dtype), classes(20, 4)
    with torch.no_grad():
        f, w = model(x), model.weight.detach()
    expected = []
    for row, label in zip(f, y, strict=True):
        signed = {j: float((row[label] - row[j]) / (w[label] - w[j]).norm()) for j in range(4) if j != label}
        runner_up = max(signed, key=lambda j: float(row[j]))
        expected.append(signed[runner_up] if nearest == "runner_up" else min(signed.values()))
    actual = margins(model, (x, y), nearest=nearest, normalize=False)["input"]  # type: ignore[arg-type]
    torch.testing.assert_close(
        actual, torch.tensor(expected, dtype=dtype), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_that_margins_equal_a_loop_over_examples_at_each_layer(dtype: torch.dtype) -> None:
    model, batch = convolutional(dtype), images(dtype=dtype)
    actual = margins(model, batch, ["input", "0", "2", "5", "7"])
    for layer, margin in actual.items():
        before, after = split(model, -1 if layer == "input" else int(layer))
        h = before(batch[0]).detach().flatten(1).to(DOUBLE)
        variation = torch.cov(h.T, correction=0).trace()
        expected = one_by_one(before, after, batch) / variation.sqrt()
        torch.testing.assert_close(margin.to(DOUBLE), expected.to(DOUBLE), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_that_the_nearest_boundary_is_the_least_over_classes() -> None:
    model, (x, y) = convolutional(), images()
    actual = margins(model, (x, y), ["4"], nearest="any", normalize=False)["4"]
    before, after = split(model, 4)
    h = before(x).detach().requires_grad_()
    f = after(h)
    quotients = torch.full((len(x), 3), torch.inf, dtype=DOUBLE)
    for i in range(len(x)):
        for j in set(range(3)) - {int(y[i])}:
            d = f[i, y[i]] - f[i, j]
            (g,) = torch.autograd.grad(d, h, retain_graph=True)
            quotients[i, j] = d.detach() / g.norm()
    torch.testing.assert_close(actual, quotients.min(1).values)


def test_that_the_sign_says_whether_an_example_is_classified_rightly() -> None:
    model, (x, y) = convolutional(), images(40)
    right = model.eval()(x).argmax(1) == y
    assert right.any() and not right.all()
    for nearest in ("runner_up", "any"):
        for margin in margins(model, (x, y), ["input", "4", "output"], nearest=nearest).values():  # type: ignore[arg-type]
            assert torch.equal(margin > 0, right)


def test_that_margins_do_not_depend_on_how_the_data_are_cut() -> None:
    model, batch = convolutional(), images(12)
    whole = margins(model, batch, ["input", "2", "output"])
    for sizes in ((7, 5), (1, 10, 1), (1,) * 12):
        parts = margins(model, loader(batch, *sizes), ["input", "2", "output"])
        torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-13)


def test_that_eps_is_added_to_the_squared_norm_of_a_gradient_and_to_nothing_else() -> None:
    model, (x, y) = nn.Linear(5, 2).double(), (normal(20, 5), classes(20, 2))
    (one, other), w = model(x).detach().T, model.weight.detach()
    difference = torch.where(y == 0, one - other, other - one)
    actual = margins(model, (x, y), ["input", "output"], eps=0.01, normalize=False)
    torch.testing.assert_close(actual["input"], difference / ((w[0] - w[1]).square().sum() + 0.01).sqrt())
    torch.testing.assert_close(actual["output"], difference)


def test_that_the_nearest_boundary_is_the_least_quotient_with_eps() -> None:
    # for the example (1, 0) of class 0: differences of 0.1 and 2, whose gradients have the squared norms 0.01 and 5
    model = nn.Linear(2, 3, bias=False).double()
    model.weight.data = torch.tensor([[1.0, 0.0], [0.9, 0.0], [-1.0, 1.0]], dtype=DOUBLE)
    data = torch.tensor([[1.0, 0.0]], dtype=DOUBLE), torch.tensor([0])
    for eps, expected in ((0.0, 2 / 5**0.5), (1.0, 0.1 / 1.01**0.5)):
        actual = margins(model, data, nearest="any", normalize=False, eps=eps)["input"]
        assert float(actual) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.uint64], ids=str)
def test_that_labels_may_be_integers_of_any_size(dtype: torch.dtype) -> None:
    model, (x, y) = nn.Linear(5, 3).double(), (normal(20, 5), classes(20))
    assert torch.equal(margins(model, (x, y.to(dtype)))["input"], margins(model, (x, y))["input"])


def test_that_the_output_margin_is_the_plain_difference_of_logits() -> None:
    model, (x, y) = convolutional(), images()
    f = model.eval()(x).detach()
    others = f.scatter(1, y[:, None], -torch.inf).amax(1)
    torch.testing.assert_close(margins(model, (x, y), ["output"])["output"], f.gather(1, y[:, None])[:, 0] - others)


def test_that_margins_do_not_depend_on_the_scale_of_a_layer() -> None:
    model, batch = convolutional(), images()
    before = margins(model, batch, ["0"])["0"]
    with torch.no_grad():  # scale the layer by a thousand, which the batch norm behind it undoes
        for t in (model[0].weight, model[0].bias, model[1].running_mean):
            t.mul_(1000)
        model[1].eps *= 1e6
        model[1].running_var.mul_(1e6)
    torch.testing.assert_close(margins(model, batch, ["0"])["0"], before)


def test_that_total_variation_over_unequal_batches_is_that_of_one() -> None:
    # so far from the origin that a difference of mean squares would lose all digits in single precision
    x = normal(50, 3, 2, dtype=torch.float32) + 1e4
    y = classes(50)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    expected = x.double().var(0, correction=0).sum()
    for data in ((x, y), loader((x, y), 1, 30, 19)):
        actual = total_variations(model, data)["input"]  # type: ignore[arg-type]
        torch.testing.assert_close(actual.double(), expected, rtol=2e-4, atol=0)  # x is rounded to 1e-3
    double = total_variations(model.double(), loader((x.double(), y), 1, 30, 19))["input"]
    torch.testing.assert_close(double, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_that_half_precision_is_accumulated_in_single(dtype: torch.dtype) -> None:
    model, (x, y) = nn.Linear(8, 3).to(dtype), images(60)
    x = x.flatten(1)[:, :8].to(dtype)
    actual = margins(model, (x, y), ["input"])["input"]
    assert actual.dtype == torch.float32
    # the same numbers in double precision, so that only the rounding of logits differs
    expected = margins(model.double(), (x.double(), y), ["input"])["input"]
    torch.testing.assert_close(actual.double(), expected, rtol=0.05, atol=4 * torch.finfo(dtype).eps)
    # a difference of logits that overflows in half precision
    identity = nn.Linear(2, 2, bias=False).to(dtype)
    identity.weight.data.copy_(torch.eye(2))
    x = torch.tensor([[4096.0, 0.75]], dtype=dtype)
    assert margins(identity, (x, torch.tensor([0])), ["output"])["output"].item() == 4095.25


def test_that_a_subspace_confines_the_gradient() -> None:
    model, (x, y) = nn.Linear(5, 3).double(), (normal(20, 5), classes(20))
    basis = torch.linalg.qr(normal(5, 2, seed=3))[0]
    w = model.weight.detach()
    # the same classifier as a function of two coordinates of the input
    reduced = nn.Linear(2, 3).double()
    reduced.weight.data = w @ basis
    f = model(x).detach()
    actual = margins(model, (x, y), subspaces={"input": basis}, normalize=False)["input"]
    for i in range(20):
        j = int(f[i].scatter(0, y[i], -torch.inf).argmax())
        expected = (f[i, y[i]] - f[i, j]) / (reduced.weight[y[i]] - reduced.weight[j]).detach().norm()
        assert float(actual[i]) == pytest.approx(float(expected), rel=1e-10)


def test_that_principal_components_are_those_of_the_covariance_matrix() -> None:
    x, y = normal(30, 2, 3) * torch.tensor([3.0, 1.0, 0.5]) + 7, classes(30)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)).double()
    actual = principal_components(model, loader((x, y), 11, 19), 2)
    values, vectors = torch.linalg.eigh(torch.cov(x.flatten(1).T, correction=0))
    torch.testing.assert_close(actual.variances, values.flip(0)[:2])
    torch.testing.assert_close(actual.total_variation, values.sum())
    torch.testing.assert_close((actual.directions.T @ vectors.flip(1)[:, :2]).abs(), torch.eye(2, dtype=DOUBLE))


def test_that_examples_that_are_numbers_have_one_principal_component() -> None:
    x, head = normal(30), nn.Linear(1, 3).double()
    model = nn.Sequential(nn.Unflatten(0, (-1, 1)), head)
    actual, whole = principal_components(model, (x, classes(30)), 1), {"input": torch.eye(1, dtype=DOUBLE)}
    assert actual.directions.abs().tolist() == [[1]]
    torch.testing.assert_close(actual.variances[0], x.var(correction=0))
    confined = margins(model, (x, classes(30)), subspaces=whole)
    torch.testing.assert_close(confined, margins(head, (x[:, None], classes(30))))


class Embedded(nn.Module):
    """Model of a mapping with integers that has a frozen embedding and returns an object with logits."""

    def __init__(self, as_mapping: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4).requires_grad_(False)
        self.head = nn.Linear(4, 3).requires_grad_(False)
        self.as_mapping = as_mapping

    def forward(self, inputs: dict[str, Tensor]) -> object:
        logits = self.head(self.embedding(inputs["ids"]).mean(1))
        return {"logits": logits} if self.as_mapping else types.SimpleNamespace(logits=logits)


class Pair(NamedTuple):
    one: Tensor
    other: list[Any]


def test_that_inputs_of_any_structure_are_moved_to_the_device_of_the_model() -> None:
    network = Network(nn.Linear(4, 3, device="meta"), ["input"])
    batch = {"pair": Pair(torch.ones(2), [torch.ones(2), "text"])}, torch.tensor([0, 1])
    ((inputs, labels),) = network.batches([batch], "margins", False)
    pair = inputs["pair"]
    assert type(pair) is Pair and pair.one.is_meta and pair.other[0].is_meta and pair.other[1] == "text"
    assert labels is batch[1] and not batch[0]["pair"].one.is_meta
    packed = nn.utils.rnn.pack_sequence([torch.ones(2, 4), torch.ones(3, 4)], enforce_sorted=False)
    ((moved, _),) = network.batches([(packed, labels)], "margins", False)
    assert moved.data.is_meta and moved.sorted_indices.is_meta and moved.batch_sizes is packed.batch_sizes


@pytest.mark.parametrize("as_mapping", [True, False])
def test_that_frozen_models_of_integers_have_margins_at_hidden_layers(as_mapping: bool) -> None:
    model = Embedded(as_mapping).double()
    ids, y = torch.randint(10, (6, 5), generator=generator(4)), classes(6)
    actual = margins(model, [({"ids": ids}, y)], ["embedding"], normalize=False)["embedding"]
    expected = one_by_one(model.embedding, lambda h: model.head(h.mean(1)), (ids, y))
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("frozen", [True, False])
def test_that_models_of_integers_have_margins_at_the_output(frozen: bool) -> None:
    model, ids, y = Embedded(True).double().requires_grad_(not frozen), torch.arange(12).reshape(6, 2) % 10, classes(6)
    f = model({"ids": ids})["logits"].detach()  # type: ignore[index]
    expected = f.gather(1, y[:, None])[:, 0] - f.scatter(1, y[:, None], -torch.inf).amax(1)
    torch.testing.assert_close(margins(model, [({"ids": ids}, y)], ["output"])["output"], expected)


class OfComplex(nn.Module):
    """Classifier of complex numbers, with a layer that only passes them on."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.head = nn.Identity(), nn.Linear(6, 3).double()

    def forward(self, z: Tensor) -> Tensor:
        return self.head(torch.tanh(torch.view_as_real(self.same(z)).flatten(1)))


def test_that_a_complex_number_is_a_pair_of_real_ones() -> None:
    model, (z, y) = OfComplex(), (normal(20, 3, dtype=torch.complex128), classes(20))
    pairs = nn.Sequential(nn.Flatten(), nn.Tanh(), model.head), (torch.view_as_real(z), y)
    for measure in (margins, total_variations, distances):
        (expected,) = measure(*pairs).values()
        for actual in measure(model, (z, y), ["input", "same"]).values():
            torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


def test_that_complex_directions_confine_the_gradient_and_are_found() -> None:
    model, (z, y) = OfComplex(), (normal(20, 3, dtype=torch.complex128), classes(20))
    basis = torch.linalg.qr(normal(3, 2, seed=3, dtype=torch.complex128))[0]
    h = z.clone().requires_grad_()
    f = model(h)
    others = f.detach().scatter(1, y[:, None], -torch.inf).argmax(1)
    difference = (f.gather(1, y[:, None]) - f.gather(1, others[:, None])).squeeze(1)
    (gradient,) = torch.autograd.grad(difference.sum(), h)
    # the slope along a combination of the columns is at most the norm of the gradient's products with these
    expected = difference.detach() / (gradient @ basis.conj()).norm(dim=1)
    torch.testing.assert_close(
        margins(model, (z, y), subspaces={"input": basis}, normalize=False)["input"], expected, rtol=1e-10, atol=0
    )
    found = principal_components(model, loader((z, y), 7, 13), 2)
    values, vectors = torch.linalg.eigh(torch.cov(z.T, correction=0))
    torch.testing.assert_close(found.variances, values.flip(0)[:2])
    phases = found.directions.mH @ vectors.flip(1)[:, :2]  # the vectors of a matrix are known up to these
    torch.testing.assert_close(phases.abs(), torch.eye(2, dtype=DOUBLE))


def test_that_no_grad_and_inference_mode_around_a_call_do_not_matter() -> None:
    model, batch = convolutional(), images()
    expected = margins(model, batch, ["input", "2"])
    with torch.no_grad():
        torch.testing.assert_close(margins(model, batch, ["input", "2"]), expected)
    with torch.inference_mode():
        torch.testing.assert_close(margins(model, batch, ["input", "2"]), expected)
        made_there = batch[0].clone(), batch[1].clone()  # as what another network puts out
    torch.testing.assert_close(margins(model, made_there, ["input", "2"]), expected)


def test_that_the_variation_of_many_numbers_keeps_its_digits() -> None:
    x, y = torch.rand(500, 6000, generator=generator()), classes(500)
    actual = total_variations(nn.Linear(6000, 3), (x, y))["input"]
    torch.testing.assert_close(actual.double(), x.double().var(0, correction=0).sum(), rtol=1e-6, atol=0)


class Skip(nn.Module):
    """Network with a branch beside a connection that passes its input on."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch, self.head = branch, nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.branch(x) + x)


@pytest.mark.parametrize("branch", [nn.Identity(), nn.Dropout(0.5), nn.Flatten()], ids=repr)
def test_that_a_layer_that_returns_its_input_is_told_from_its_input(branch: nn.Module) -> None:
    model, data = Skip(branch).double(), (normal(20, 5), classes(20))
    actual = margins(model, data, ["branch"], normalize=False)["branch"]
    # of the input both parts depend, on which the head is linear
    torch.testing.assert_close(actual, 2 * margins(model, data, normalize=False)["input"])


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.embedding, self.head = nn.Embedding(10, 8), nn.Linear(8, 3)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(x), src_key_padding_mask=x == 0).mean(1))


@pytest.mark.parametrize("layer", ["encoder", "encoder.layers.1", "encoder.layers.1.linear1"])
def test_that_an_encoder_with_padded_tokens_is_the_same_function_with_and_without_gradients(layer: str) -> None:
    model, tokens, labels = Tokens().double(), torch.randint(1, 10, (6, 5)), classes(6)
    tokens[:3, 3:] = 0
    values = []
    handle = model.get_submodule(layer).register_forward_hook(lambda *args: values.append(args[2].detach()))
    model.eval()(tokens)  # with gradients
    handle.remove()
    expected = values[0].flatten(1).var(0, correction=0).sum()
    torch.testing.assert_close(total_variations(model, (tokens, labels), [layer])[layer], expected)
    actual = margins(model, (tokens, labels), [layer])
    torch.testing.assert_close(margins(model.requires_grad_(False), (tokens, labels), [layer]), actual)
    assert torch.backends.mha.get_fastpath_enabled()
