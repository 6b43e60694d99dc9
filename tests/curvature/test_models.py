"""That models may take and return mappings, pairs, dataclasses or their own losses, and may be compiled."""

from __future__ import annotations

from collections import OrderedDict, UserDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from rsam.curvature import (
    RiemannianGaussNewton,
    RiemannianHessian,
    fisher_trace,
    gradient_norm,
    landscape,
    layer_traces,
    sharpness,
    trace,
)
from rsam.evaluation.batches import move
from tests.curvature.problems import dense, examples, labelled, network, normal

CE, MSE = nn.CrossEntropyLoss(), nn.MSELoss()


def measures(model: Any, loss_func: Any, params: Any, data: Any) -> list[Tensor]:
    """Return a number or tensor from each function that evaluates the loss."""
    case = model, loss_func, list(params), data
    return [
        dense(RiemannianHessian(*case)),
        torch.tensor(gradient_norm(*case)),
        torch.from_numpy(landscape.line(*case, "gradient", steps=3).loss),
        torch.tensor(float(sharpness(*case, 0.3, steps=2))),
        sharpness(*case, kind="average", probes=2).samples,
        sharpness(*case, micro_batch=3).samples,
    ]


def cut(batch: dict[str, Tensor], *sizes: int) -> list[dict[str, Tensor]]:
    columns = zip(*(t.split(sizes) for t in batch.values()), strict=True)
    return [dict(zip(batch, parts, strict=True)) for parts in columns]


# -- outputs and targets ----------------------------------------------------------------------------------------------


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor


class Returning(nn.Module):
    """Model that takes a mapping and returns a dataclass."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: dict[str, Tensor]) -> Output:
        hidden = self.net[0](inputs["x"])
        return Output(self.net[2](self.net[1](hidden)), hidden)


def test_that_the_loss_gets_outputs_and_targets_whatever_they_are() -> None:
    net, (x, y) = network(), examples()
    first, rest = y[:, :1], y[:, 1:]
    expected = measures(net, MSE, net.parameters(), (x, y))

    def loss_func(output: Output, targets: tuple[Tensor, Tensor]) -> Tensor:
        return MSE(output.logits, torch.cat(targets, 1))

    model = Returning(net)
    pieces = [({"x": x[a:b]}, (first[a:b], rest[a:b])) for a, b in ((0, 7), (7, 12))]
    for data in (pieces, [({"x": x}, (first, rest))]):
        actual = measures(model, loss_func, model.parameters(), data)
        torch.testing.assert_close(actual[:-1], expected[:-1], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(actual[-1], expected[-1], rtol=1e-9, atol=1e-11)  # pieces do not cross batches


PAIRS: dict[str, Any] = {
    "pair of targets": lambda x, y: (x, (y, -y)),
    "list of targets": lambda x, y: (x, [y, -y]),
    "list": lambda x, y: [x, (y, -y)],
    "pair of inputs": lambda x, y: ((x, -x), y),
    "mapping of inputs": lambda x, y: ({"x": x, "z": -x}, y),
    "three of both": lambda x, y: ((x, x, x), (y, y, y)),
    "no targets": lambda x, y: (x, None),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_that_one_batch_is_told_from_several(pair: Any) -> None:
    net, seen = network(), []
    batch = pair(*examples())

    def model(inputs: Any) -> Tensor:
        seen.append(inputs)
        leaf = inputs["x"] if isinstance(inputs, dict) else inputs[0] if isinstance(inputs, tuple) else inputs
        return net(leaf)

    def loss_func(outputs: Tensor, targets: Any) -> Tensor:
        seen.append(targets)
        return outputs.square().mean()

    gradient_norm(model, loss_func, net.parameters(), batch)
    assert len(seen) == 2  # one evaluation of each
    for part, given in zip(seen, batch, strict=True):
        assert type(part) is type(given) and str(part) == str(given)


def test_that_data_that_may_be_one_batch_or_two_are_refused() -> None:
    net, (x, y) = network(), examples()
    for data in (((x, x), (y, y)), ({"x": x}, {"y": y}), ([x, y], (x, y))):
        with pytest.raises(ValueError, match=r"one batch \(inputs, targets\) or two batches: pass a list"):
            gradient_norm(net, MSE, net.parameters(), data)
    once, twice = (gradient_norm(net, MSE, net.parameters(), data) for data in ((x, y), [(x, y), (x, y)]))
    assert twice == pytest.approx(once, rel=1e-12)


# -- mappings ---------------------------------------------------------------------------------------------------------


class Keyed(nn.Module):
    """Model that is called with keywords, and returns a mapping, with a loss if it is given labels."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.net(x)
        return {"logits": logits} if labels is None else {"loss": CE(logits, labels), "logits": logits}


@pytest.mark.parametrize("own", [False, True], ids=["loss_func", "loss of its own"])
def test_that_a_mapping_is_a_batch_of_keyword_arguments(own: bool) -> None:
    net, (x, y) = network(), labelled()
    y = torch.where(torch.arange(12) == 1, -100, y)  # this label is ignored
    expected = measures(net, CE, net.parameters(), (x, y))
    model, batch = Keyed(net), {"x": x, "labels": y}
    loss_func = None if own else lambda outputs, inputs: CE(outputs["logits"], inputs["labels"])
    actual = measures(model, loss_func, model.parameters(), batch)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)
    if own:  # it is unknown which labels a function ignores
        actual = measures(model, loss_func, model.parameters(), cut(batch, 7, 4, 1))
        torch.testing.assert_close(actual[:-1], expected[:-1], rtol=1e-9, atol=1e-11)
    pairs = [(piece["x"], piece["labels"]) for piece in cut(batch, 3, 9)]
    sizes = {"batch_size_fn": lambda inputs: int((inputs["labels"] != -100).sum())}
    counted = RiemannianHessian(model, loss_func, model.parameters(), cut(batch, 3, 9), **sizes)
    torch.testing.assert_close(dense(counted), dense(RiemannianHessian(net, CE, net.parameters(), pairs)))


def test_that_a_model_may_return_its_loss_itself() -> None:
    net, (x, y) = network(), labelled()
    expected = measures(net, CE, net.parameters(), (x, y))

    class Loss(Keyed):
        def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:  # type: ignore[override]
            return CE(self.net(x), labels)

    model = Loss(net)
    torch.testing.assert_close(measures(model, None, model.parameters(), {"x": x, "labels": y}), expected)


def test_that_a_loss_that_is_missing_is_said_so() -> None:
    model, (x, y) = Keyed(network()), labelled()
    with pytest.raises(ValueError, match=r"returned no loss in its dict; do the batches hold labels\?"):
        gradient_norm(model, None, model.parameters(), {"x": x})
    message = r"must return a tensor, not dict; pass a function .* lambda inputs: model\(\*\*inputs\)\.logits"
    for measure in (RiemannianGaussNewton, fisher_trace):
        with pytest.raises(ValueError, match=message):
            trace(measure(model, CE, model.parameters(), {"x": x, "labels": y}), 2)


def test_that_a_gauss_newton_matrix_needs_a_loss_of_the_outputs() -> None:
    net = network()
    a = RiemannianGaussNewton(lambda x: net(x).square().sum(), None, net.parameters(), examples())
    with pytest.raises(ValueError, match="needs a loss of the model's outputs"):  # otherwise the result would be zero
        trace(a, 2)
    with pytest.raises(ValueError, match="got NoneType"):
        fisher_trace(net, None, net.parameters(), examples())  # type: ignore[arg-type]


def test_that_sparse_gradients_are_those_of_a_dense_embedding() -> None:
    batch = torch.tensor([0, 2, 2, 5]), normal(4, 3)
    results = []
    for sparse in (False, True):
        model = nn.Embedding.from_pretrained(normal(6, 3, seed=1), freeze=False, sparse=sparse)
        case = model, nn.MSELoss(), list(model.parameters()), batch
        results.append(
            [
                *dense(RiemannianHessian(*case)).diagonal().tolist(),
                *dense(RiemannianGaussNewton(*case)).diagonal().tolist(),
                gradient_norm(*case),
                float(fisher_trace(*case, probes=3)),
                float(sharpness(*case)),
            ]
        )
    assert results[1] == pytest.approx(results[0], rel=1e-12)


def test_that_a_batch_is_moved_without_a_trace() -> None:
    class Batch(UserDict):  # type: ignore[type-arg]
        """Batch like that of a tokenizer, whose items are attributes."""

        def __getattr__(self, name: str) -> Any:
            if name == "data":
                raise AttributeError(name)
            return self.data[name]

    class Pair(NamedTuple):
        one: Tensor
        other: list[Any]

    batch = Batch(ids=torch.ones(2), nested=Pair(torch.ones(2), [torch.ones(2), "text", None]))
    moved = move(batch, torch.device("meta"))
    assert type(moved) is Batch and moved.ids.is_meta
    assert type(moved.nested) is Pair and moved.nested.one.is_meta
    assert moved.nested.other[0].is_meta and moved.nested.other[1:] == ["text", None]
    assert not batch.ids.is_meta and not batch.nested.one.is_meta and not batch.nested.other[0].is_meta


# -- transformers -----------------------------------------------------------------------------------------------------


def test_that_a_classifier_of_transformers_is_measured_by_its_own_loss() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=6, num_labels=3,
        max_position_embeddings=6,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config).double().eval()
    params = [(n, p) for n, p in model.named_parameters() if "query" in n or "classifier" in n]
    ids = torch.randint(11, (6, 5))
    mask = torch.ones_like(ids).index_put((torch.tensor([0, 0]), torch.tensor([3, 4])), torch.tensor(0))
    inputs, labels = {"input_ids": ids, "attention_mask": mask}, torch.arange(6) % 3

    def logits(inputs: Any) -> Tensor:
        return model(**inputs).logits

    given = RiemannianHessian(logits, CE, params, [(inputs, labels)])
    v = normal(given.shape[0])
    batch = {**inputs, "labels": labels}
    encoding = transformers.BatchEncoding(batch)
    for data in (batch, [encoding], cut(batch, 4, 2)):
        own = RiemannianHessian(model, None, params, data)
        torch.testing.assert_close(own @ v, given @ v, rtol=1e-9, atol=1e-11)
    assert list(layer_traces(given, 1)) == list(layer_traces(own, 1)) == [name for name, _ in params]
    fisher = fisher_trace(logits, CE, params, [(inputs, labels)], 40)
    exact = float(trace(RiemannianGaussNewton(logits, CE, params, [(inputs, labels)]), method="exact"))
    assert abs(float(fisher) - exact) < 4 * fisher.standard_error


def test_that_unequal_batches_of_a_language_model_count_as_one() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=11, n_embd=8, n_layer=1, n_head=2, n_positions=6, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    params = [p for n, p in model.named_parameters() if "attn" in n]
    ids = torch.randint(11, (5, 6))
    labels = ids.clone()
    labels[0, 2:], labels[4, :4] = -100, -100  # the first example has two labels and one prediction
    batch = {"input_ids": ids, "labels": labels}
    whole = gradient_norm(model, None, params, batch)
    parts = gradient_norm(model, None, params, cut(batch, 1, 4))
    assert parts == pytest.approx(whole, rel=1e-5)  # in single precision
    by_examples = gradient_norm(model, None, params, cut(batch, 1, 4), batch_size_fn=lambda b: len(b["labels"]))
    assert by_examples != pytest.approx(whole, rel=1e-2)


# -- compiled and frozen ----------------------------------------------------------------------------------------------


def _whole(model: nn.Module) -> tuple[Any, Any]:
    return torch.compile(model, backend="aot_eager"), CE


def _part(model: nn.Module) -> tuple[Any, Any]:
    return nn.Sequential(torch.compile(model[0], backend="aot_eager"), model[1], model[2]), CE


def _in_place(model: nn.Module) -> tuple[Any, Any]:
    model.compile(backend="aot_eager")
    return model, CE


def _loss(model: nn.Module) -> tuple[Any, Any]:
    return model, torch.compile(CE, backend="aot_eager")


def _function(model: nn.Module) -> tuple[Any, Any]:
    return model, torch.compile(nn.functional.cross_entropy, backend="aot_eager")


@pytest.mark.parametrize("compiled", [_whole, _part, _in_place, _loss, _function])
def test_that_what_is_compiled_is_measured_as_what_it_was_made_of(compiled: Any) -> None:
    if compiled in (_part, _in_place, _function) and not hasattr(torch.compiler, "set_stance"):
        pytest.skip("torch 2.6 and later")
    x, y = labelled()
    pieces = [(x[:3], torch.full((3,), -100).index_fill(0, torch.tensor([1]), 2)), (x[3:], y[3:])]
    results, names = [], []
    for make in (lambda model: (model, CE), compiled):
        model, loss_func = make(network())
        model(x)  # the first call compiles
        a = RiemannianHessian(model, loss_func, model.parameters(), pieces)
        b = RiemannianGaussNewton(model, loss_func, model.parameters(), pieces)
        results.append((dense(a), dense(b)))
        names.append(a.risk.names)
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-12)
    assert names[1] == names[0]


def test_that_a_layer_whose_name_ends_like_the_prefix_of_compiled_ones_keeps_it() -> None:
    model = nn.Sequential(OrderedDict(my_orig_mod=nn.BatchNorm1d(4))).double()
    params, other = [*model.named_parameters()], model.state_dict()
    case = model, lambda f, y: f.square().mean(), params, examples()
    assert RiemannianHessian(*case).risk.names == ["my_orig_mod.weight", "my_orig_mod.bias"]
    # solutions, and their statistics, are found by name
    path = landscape.line(*case, other=other, steps=2)
    assert path.loss[0] == path.loss[1]


@pytest.mark.parametrize("kind", [RiemannianHessian, RiemannianGaussNewton])
def test_that_a_parameter_frozen_after_the_operator_was_made_is_named(kind: Any) -> None:
    model, batch = network(), examples()
    a = kind(model, MSE, model.parameters(), batch)
    expected = trace(a, 2)
    model[2].bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"2\.bias \(shape \(3,\), Euclidean\) was frozen .* make it anew"):
        trace(a, 2)
    assert kind(model, MSE, model.parameters(), batch).shape[0] == a.shape[0] - 3
    model[2].bias.requires_grad_(True)
    assert float(trace(a, 2)) == float(expected)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match=r"0\.weight .* was frozen"):
        trace(a, 2)
