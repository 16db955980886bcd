"""AdaFilter: the gates, against formulas, the pretrained network and fine-tuning."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from skadma import AdaFilterClassifier, CNNClassifier
from skadma.adafilter.network import mix, threshold

from .conftest import TinyCNN
from .gated import SIZES, ShortcutFirst, scores, set_gates, tiny

# --- the formulas ---------------------------------------------------------------------


def test_threshold_by_hand():
    z = torch.tensor([0.5, -0.2, 0.0, 3.0], requires_grad=True)
    gate = threshold(z)
    assert gate.tolist() == [1, 0, 0, 1]
    (gate * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    p = 1 / (1 + np.exp([-0.5, 0.2, 0.0, -3.0]))
    np.testing.assert_allclose(z.grad, [1, 2, 3, 4] * p * (1 - p), rtol=1e-5)


def test_mix_follows_the_gate_exactly():
    rng = torch.Generator().manual_seed(0)
    fine, frozen = torch.randn(2, 3, 4, 2, 2, generator=rng) * 10.0
    gate = (torch.rand(3, 4, generator=rng) > 0.5).float().requires_grad_()
    mixed = mix(fine, frozen, gate)
    assert torch.equal(mixed, torch.where(gate[:, :, None, None] > 0, fine, frozen))
    mixed.sum().backward()
    torch.testing.assert_close(gate.grad, (fine - frozen).sum((2, 3)))


def one_pixel_network():
    return nn.Sequential(
        nn.Conv2d(3, 2, 1, bias=False), nn.Flatten(), nn.Linear(2, 2, bias=False)
    )


def test_gradients_by_hand(monkeypatch):
    """One pixel x, two filters F and S, one class score u: everything is a number."""
    monkeypatch.setattr("skadma.adafilter.network.GATE_WIDTH", 1)
    clf = AdaFilterClassifier(
        one_pixel_network,
        image_size=1,
        n_frozen_layers=0,
        max_epochs=0,
        random_state=0,
    ).fit(np.zeros((2, 1, 1, 3), np.uint8), [0, 1])
    network = clf.net_.module_
    gates = network.branch.gates
    conv, frozen = network.network[0], network.branch.convolutions[0]
    x, a, b = 0.7, 0.9, -0.1
    w, c = np.array([0.8, -0.6]), np.array([0.2, -0.3])
    f, s, u = np.array([1.5, -0.4]), np.array([0.3, 2.0]), np.array([0.6, -1.1])
    with torch.no_grad():
        for parameter in network.network.parameters():
            parameter.zero_()
        conv.weight[:, 0, 0, 0] = torch.tensor(f)
        frozen.weight[:, 0, 0, 0] = torch.tensor(s)
        network.network[2].weight[0] = torch.tensor(u)
        gates.inputs[0].weight[0, 0], gates.inputs[0].bias[0] = a, b
        gates.outputs[0].weight[:, 0] = torch.tensor(w)
        gates.outputs[0].bias.copy_(torch.tensor(c))
    network.train()
    score = network(torch.tensor([x, 0.0, 0.0]).view(1, 3, 1, 1))[0, 0]
    score.backward()

    cell = copy.deepcopy(gates.cell).double()

    def hidden(v):
        zero = torch.zeros(1, 1, dtype=torch.float64)
        v = torch.tensor([[v]], dtype=torch.float64)
        return lstm_by_hand(cell, v, zero, zero)[0].item()

    with torch.no_grad():
        v, h, step = a * x + b, hidden(a * x + b), 1e-5
        slope = (hidden(v + step) - hidden(v - step)) / (2 * step)
    z = w * h + c
    gate = (z > 0).astype(float)
    assert gate.tolist() == [1, 0]
    p = 1 / (1 + np.exp(-z))
    to_z = u * (f - s) * x * p * (1 - p)  # straight through the step
    to_v = (to_z * w).sum() * slope
    expected = {
        gates.outputs[0].bias: to_z,
        gates.outputs[0].weight: to_z[:, None] * h,
        gates.inputs[0].bias: [to_v],
        gates.inputs[0].weight: [[to_v * x, 0, 0]],
        conv.weight: (u * gate * x)[:, None, None, None] * np.eye(3)[:1, :, None, None],
    }
    assert score.item() == pytest.approx((u * (gate * f + (1 - gate) * s) * x).sum())
    for parameter, gradient in expected.items():
        np.testing.assert_allclose(parameter.grad, gradient, rtol=1e-5, atol=1e-7)
    assert frozen.weight.grad is None


def lstm_by_hand(cell, v, h, c):
    """One step, from the equations in torch's documentation."""
    z = v @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh
    i, f, g, o = z.chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def test_whole_network_by_hand(pictures):
    """Image by image, filter by filter, without a batch or a graph."""
    X, y = pictures
    clf = tiny(ShortcutFirst, max_epochs=8).fit(X, y)
    module = clf.net_.module_
    net, branch = module.network, module.branch
    names = list(module.gated_layers)
    assert names == ["shortcut", "conv1", "conv2"]

    def conv(name, x, state):
        i = names.index(name)
        v = branch.gates.inputs[i](x.mean((2, 3)))
        state = lstm_by_hand(branch.gates.cell, v, *state)
        z = branch.gates.outputs[i](state[0])
        norm = {"conv1": net.norm1, "conv2": net.norm2}.get(name, nn.Identity())
        fine = norm(net.get_submodule(name)(x))
        frozen = branch.norms[i](branch.convolutions[i](x))
        chosen = [(fine if z[0, j] > 0 else frozen)[:, j] for j in range(fine.shape[1])]
        return torch.stack(chosen, dim=1), state

    images = torch.from_numpy(X).permute(0, 3, 1, 2)
    expected = []
    with torch.no_grad():
        for image in images:
            state = (torch.zeros(1, 128), torch.zeros(1, 128))
            x = net.act(net.norm(net.stem(module.normalize(image[None]))))
            shortcut, state = conv("shortcut", x, state)
            out, state = conv("conv1", x, state)
            out, state = conv("conv2", net.act(out), state)
            x = net.pool(net.act(out + shortcut)).flatten(1)
            x = net.act(net.penultimate(net.act(net.hidden(x))))
            expected.append(net.head(x)[0].numpy())
        whole = module(images)  # the rewritten graph, batch norms not folded
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    np.testing.assert_allclose(scores(clf, X), expected, atol=1e-5)


# --- between the pretrained network and fine-tuning -----------------------------------


def pair(backbone, **params):
    """Both classifiers, not trained yet, on the same few images."""
    if backbone == "tiny":
        backbone, params = TinyCNN, {"n_frozen_layers": 1, **params}
    params = {
        "weights": "DEFAULT" if backbone == "efficientnet_lite0" else None,
        "image_size": SIZES.get(backbone, 64) if isinstance(backbone, str) else 32,
        "max_epochs": 0,
        "random_state": 0,
        "lr": 1e-3,
        **params,
    }
    return CNNClassifier(backbone, **params), AdaFilterClassifier(backbone, **params)


@pytest.mark.parametrize(
    "backbone",
    [
        "tiny",
        "alexnet",
        "vgg16",
        "resnet18",
        "resnet50",
        "efficientnet_lite0",  # depthwise; norms that come with an activation
        "regnet_y_400mf",  # grouped; squeeze-excite
        "densenet121",  # norms before convolutions
    ],
)
def test_shut_gates_are_the_pretrained_network_open_ones_fine_tuned(backbone, pictures):
    X, y = (values[:4] for values in pictures)
    plain, ada = pair(backbone)
    untouched = scores(plain.fit(X, [0, 1, 0, 1]), X)
    # F is S still, so any gates will do, but for rounding.
    start = scores(ada.fit(X, [0, 1, 0, 1]), X)
    np.testing.assert_allclose(start, untouched, rtol=1e-4, atol=1e-5)
    generator = torch.Generator().manual_seed(0)
    network = ada.net_.module_
    with torch.no_grad():
        for layer, norm in network.gated_layers.items():
            for name in filter(None, (layer, norm)):
                for tensor in network.network.get_submodule(name).parameters():
                    noise = torch.rand(tensor.shape, generator=generator)
                    tensor *= 0.9 + 0.2 * noise
    set_gates(ada, False)
    np.testing.assert_allclose(scores(ada, X), untouched, rtol=1e-6, atol=1e-6)
    assert set(ada.gate_usage(X).values()) == {0.0}

    own = plain.net_.module_.state_dict()
    changed = network.state_dict()
    plain.net_.module_.load_state_dict({name: changed[name] for name in own})
    fine_tuned = scores(plain, X)
    assert not np.allclose(fine_tuned, untouched, rtol=1e-3, atol=0)
    set_gates(ada, True)
    np.testing.assert_allclose(scores(ada, X), fine_tuned, rtol=1e-6, atol=1e-6)
    assert set(ada.gate_usage(X).values()) == {1.0}


@pytest.mark.parametrize("backbone", ["tiny", "resnet18"])
@pytest.mark.parametrize("batch_norm", ["fixed", "update"])
def test_open_gates_train_as_fine_tuning_does(backbone, batch_norm, pictures):
    X, y = pictures
    plain, ada = pair(backbone, batch_norm=batch_norm, image_size=32)
    for clf in (plain.fit(X, y), ada.fit(X, y)):
        if clf is ada:
            set_gates(ada, True)
        clf.net_.max_epochs = 2
        clf.partial_fit(X, y)
    trained = ada.net_.module_.state_dict()
    for name, tensor in plain.net_.module_.state_dict().items():
        torch.testing.assert_close(trained[name], tensor, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scores(ada, X), scores(plain, X), rtol=1e-5, atol=1e-6)


def test_training_changes_f_and_the_gates_and_never_s(pictures):
    X, y = pictures
    start = tiny(max_epochs=0).fit(X, y).net_.module_.state_dict()
    clf = tiny(max_epochs=4).fit(X, y)
    end = clf.net_.module_.state_dict()
    source = clf.source_network_.module
    for i, layer in enumerate(clf.net_.module_.gated_layers):
        frozen = clf.net_.module_.branch.convolutions[i].weight
        assert frozen.grad is None
        assert torch.equal(frozen, source.get_submodule(layer).weight)
        fine = f"network.{layer}.weight"
        assert not torch.equal(start[fine], end[fine])
    branch = [name for name in start if name.startswith("branch.")]
    for name in branch:
        same = torch.equal(start[name], end[name])
        assert same == (".gates." not in name), name
    assert clf.net_.optimizer_.param_groups[1]["lr"] == clf.head_lr


def test_each_set_of_filters_has_its_own_statistics(pictures):
    X, y = pictures
    clf = tiny(batch_norm="update", max_epochs=3).fit(X, y)
    module = clf.net_.module_
    i = list(module.gated_layers).index("conv2")
    fine, frozen = module.network.norm2, module.branch.norms[i]
    start = clf.source_network_.module.norm2
    assert not torch.equal(fine.running_mean, start.running_mean)
    assert not torch.equal(frozen.running_mean, start.running_mean)
    assert not torch.equal(frozen.running_mean, fine.running_mean)
    assert torch.equal(frozen.weight, start.weight)
    assert not torch.equal(fine.weight, start.weight)


def test_gates_differ_by_image(pictures):
    X, y = pictures
    clf = tiny(max_epochs=10).fit(X, y)
    usages = {tuple(clf.gate_usage(X[i : i + 1]).values()) for i in range(12)}
    assert len(usages) > 1


# --- the state of the recurrent gates -------------------------------------------------


@pytest.mark.parametrize("backbone", [TinyCNN, ShortcutFirst])
def test_the_layers_extracted_do_not_change_the_gates(backbone, pictures):
    X, y = pictures
    clf = tiny(backbone, max_epochs=10).fit(X, y)
    names = ["stem", "conv1", "conv2", "hidden"]
    together = clf.embed(X, names)
    for name in names:
        np.testing.assert_allclose(
            clf.embed(X, name)[name], together[name], atol=1e-5, err_msg=name
        )


def test_any_batch_and_any_order(pictures):
    X, y = pictures
    clf = tiny(max_epochs=10).fit(X, y)
    whole = clf.predict_proba(X)
    order = np.random.default_rng(1).permutation(24)
    np.testing.assert_allclose(clf.predict_proba(X[order]), whole[order], atol=1e-5)
    np.testing.assert_allclose(clf.predict_proba(X[3:4]), whole[3:4], atol=1e-5)
    clf.set_params(scan_batch_size=5)
    np.testing.assert_allclose(clf.predict_proba(X), whole, atol=1e-5)


def test_cached_and_whole_runs_agree(pictures):
    X, y = pictures
    clf = tiny(max_epochs=4).fit(X, y)
    cached = clf.predict_proba(X)
    np.testing.assert_array_equal(
        tiny(max_epochs=4, memory=False).fit(X, y).predict_proba(X), cached
    )
    # A transform that does nothing: the whole network runs, the frozen part as well.
    whole = tiny(max_epochs=4, augment=lambda image: image).fit(X, y)
    np.testing.assert_allclose(whole.predict_proba(X), cached, atol=1e-4)


def test_gates_need_the_layers_before(pictures):
    X, y = pictures
    clf = tiny(ShortcutFirst).fit(X, y)
    graph = clf.source_network_.graph
    start, end = (graph.layers[graph.position(n)].output for n in ("conv1", "conv2"))
    with pytest.raises(ValueError, match="cannot be entered behind 'shortcut'"):
        clf.net_.module_.subgraph(graph, [end], start)


def test_a_copy_is_a_copy(pictures):
    X, y = pictures
    clf = tiny().fit(X, y)
    before = scores(clf, X)
    for made in (copy.deepcopy(clf), pickle.loads(pickle.dumps(clf))):
        np.testing.assert_array_equal(scores(made, X), before)
        module = made.net_.module_
        module(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
        set_gates(made, True)
        assert not np.allclose(scores(made, X), before, atol=1e-4)
        with torch.no_grad():
            whole = module(torch.from_numpy(X).permute(0, 3, 1, 2))
        np.testing.assert_allclose(scores(made, X), whole, atol=1e-5)
        assert made.gate_usage(X) != clf.gate_usage(X)
    np.testing.assert_array_equal(scores(clf, X), before)
