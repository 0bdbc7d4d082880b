"""The norms against dense matrices in double precision, the constraint after training steps, and whole runs."""

from __future__ import annotations

import ast
import copy
import importlib.metadata
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import ipmgan
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import ipmgan_spectral
from ipmgan_spectral import Bjorck, Lattice, Orthogonal, Spectral
from ipmgan_spectral.bjorck import orthonormal
from ipmgan_spectral.spectral import KernelNorm

DOUBLE = torch.float64
OWN: list[ipmgan.LipschitzEnforcer] = [
    Spectral(),
    Spectral(exact=True),
    Spectral(exact=True, shape=(4, 9, 9)),
    Orthogonal(),
    Orthogonal(map="cayley"),
    Bjorck(),
]
CERTIFIED = [enforcer for enforcer in OWN if enforcer != Spectral()]
LAYERS: list[tuple[Callable[..., nn.Module], dict[str, Any], tuple[int, ...]]] = [
    (nn.Conv1d, {"kernel_size": 5, "stride": 2, "padding": 2}, (13,)),
    (nn.Conv1d, {"kernel_size": 3, "dilation": 2, "padding": 2}, (11,)),
    (nn.Conv1d, {"kernel_size": 4, "dilation": 3, "stride": 2, "padding": 4}, (23,)),
    (nn.Conv1d, {"kernel_size": 5, "dilation": 2, "stride": 4, "padding": 4}, (31,)),
    (nn.Conv1d, {"kernel_size": 3, "stride": 5}, (20,)),
    (nn.Conv1d, {"kernel_size": 3, "padding": "same", "padding_mode": "circular"}, (7,)),
    (nn.Conv1d, {"kernel_size": 5, "padding": 2, "padding_mode": "circular"}, (4,)),
    (nn.Conv1d, {"kernel_size": 3, "padding": 1, "stride": 2, "padding_mode": "circular"}, (8,)),
    (nn.Conv2d, {"kernel_size": 3}, (8, 8)),
    (nn.Conv2d, {"kernel_size": 3, "padding": 1}, (8, 8)),
    (nn.Conv2d, {"kernel_size": 3, "padding": 1, "padding_mode": "circular"}, (6, 7)),
    (nn.Conv2d, {"kernel_size": 4, "stride": 2, "padding": 1}, (8, 8)),
    (nn.Conv2d, {"kernel_size": 5, "stride": 2, "padding": 1}, (9, 9)),
    (nn.Conv2d, {"kernel_size": (3, 1), "stride": (1, 2), "padding": (1, 0)}, (7, 6)),
    (nn.Conv2d, {"kernel_size": 3, "stride": 2, "dilation": 2, "padding": 2}, (9, 9)),
    (nn.Conv2d, {"kernel_size": 3, "padding": 1, "groups": 2}, (7, 7)),
    (nn.Conv2d, {"kernel_size": 4, "padding": "same", "dilation": 2}, (7, 7)),
    (nn.Conv2d, {"kernel_size": 7}, (7, 7)),
    (nn.Conv3d, {"kernel_size": 3, "stride": 2, "padding": 1}, (4, 4, 4)),
    (nn.ConvTranspose1d, {"kernel_size": 5, "stride": 3, "padding": 1, "output_padding": 2, "dilation": 2}, (7,)),
    (nn.ConvTranspose2d, {"kernel_size": 4, "stride": 2, "padding": 1}, (5, 5)),
    (nn.ConvTranspose2d, {"kernel_size": 5, "stride": 2, "padding": 2, "output_padding": 1, "groups": 2}, (4, 4)),
]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=DOUBLE)


def filled(module: nn.Module, seed: int = 0) -> nn.Module:
    """In double precision, with standard normal weights."""
    generator, module = rng(seed), module.double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=generator)
    return module


def dense(module: nn.Module, *shape: int) -> Tensor:
    """The matrix of an affine module on samples of a shape, by its Jacobian."""
    jacobian: Tensor = torch.func.jacrev(lambda x: module(x[None])[0].flatten())(torch.zeros(shape, dtype=DOUBLE))
    return jacobian.detach().flatten(1)


def operator_norm(module: nn.Module, *shape: int) -> float:
    return float(torch.linalg.svdvals(dense(module, *shape))[0])


def critic() -> nn.Sequential:
    """Of images 4 x 9 x 9: strides, padding, dilation, groups, a covering convolution, and a linear layer."""
    layers = [
        nn.Conv2d(4, 6, 5, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(6, 5, 3, padding=2, dilation=2), nn.ReLU(), nn.Conv2d(5, 8, 4), nn.Flatten(1), nn.Linear(8, 1),
    ]  # fmt: skip
    return nn.Sequential(*layers, nn.Flatten(0))


def moved(enforcer: ipmgan.LipschitzEnforcer, module: nn.Module, steps: int = 3, rate: float = 0.05) -> nn.Module:
    """After steps of an optimiser that pulls the weights about."""
    optimizer = torch.optim.SGD(module.parameters(), lr=rate)
    for seed in range(steps):
        for number, p in enumerate(module.parameters()):
            p.grad = torch.randn(p.shape, generator=rng(100 * seed + number), dtype=p.dtype)
        optimizer.step()
        with torch.no_grad():
            enforcer.after_step(module)
    return module


# --- the norm of a convolution


@pytest.mark.parametrize(("kind", "options", "size"), LAYERS)
def test_the_lattice_bounds_the_norm_of_a_convolution(
    kind: Callable[..., nn.Module], options: dict[str, Any], size: tuple[int, ...]
) -> None:
    for seed in range(2):
        layer = filled(kind(4, 6, bias=False, **options), seed)
        weight, truth = layer.get_parameter("weight").detach(), operator_norm(layer, 4, *size)
        shapes = ((4, *size), tuple(layer(torch.zeros(1, 4, *size, dtype=DOUBLE)).shape[1:]))
        torus, plane = Lattice.of(layer, shapes), Lattice.of(layer)
        assert torus is not None
        assert truth <= float(torus.norm(weight)) * (1 + 1e-12)
        assert float(torus.norm(weight)) <= 1.45 * truth
        if plane is not None:
            assert truth <= float(plane.norm(weight)) * (1 + 1e-12)
        if options.get("padding_mode") == "circular" or shapes[1][1:] == (1,) * len(size):
            assert float(torus.norm(weight)) == pytest.approx(truth, rel=1e-10)


def test_the_torus_is_close_on_large_inputs_and_closer_than_the_plane() -> None:
    for options in ({"padding": 1}, {"padding": 1, "stride": 2}, {"padding": 2, "dilation": 2}):
        layer = filled(nn.Conv2d(2, 2, 3, bias=False, **options))
        shapes = ((2, 20, 20), tuple(layer(torch.zeros(1, 2, 20, 20, dtype=DOUBLE)).shape[1:]))
        torus, plane = Lattice.of(layer, shapes), Lattice.of(layer)
        assert torus is not None
        assert plane is not None
        weight, truth = layer.get_parameter("weight").detach(), operator_norm(layer, 2, 20, 20)
        assert truth <= float(torus.norm(weight)) <= 1.05 * truth
        assert float(torus.norm(weight)) <= float(plane.norm(weight)) <= 1.08 * truth


def test_the_norm_of_the_reshaped_kernel_is_not_that_of_the_convolution() -> None:
    layer = nn.Conv2d(2, 2, 3, padding=1, bias=False).double()
    nn.init.ones_(layer.weight)
    truth, lattice = operator_norm(layer, 2, 12, 12), Lattice.of(layer)
    assert lattice is not None
    assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) < 0.4 * truth
    assert truth <= float(lattice.norm(layer.weight.detach())) <= 1.15 * truth


@pytest.mark.parametrize(("kind", "options", "size"), [*LAYERS[3:5], *LAYERS[10:13], *LAYERS[15:18], *LAYERS[20:]])
def test_the_slope_is_the_gradient_of_the_norm(
    kind: Callable[..., nn.Module], options: dict[str, Any], size: tuple[int, ...]
) -> None:
    layer = filled(kind(4, 6, **options))
    lattice, weight = Lattice.of(layer), layer.get_parameter("weight").detach()
    assert lattice is not None
    slope, step = lattice.slope(weight), normal(*weight.shape, seed=5)
    assert float((slope * weight).sum()) == pytest.approx(float(lattice.norm(weight)), rel=1e-10)
    h = 1e-6
    difference = (lattice.norm(weight + h * step) - lattice.norm(weight - h * step)) / (2 * h)
    assert float((slope * step).sum()) == pytest.approx(float(difference), rel=1e-5, abs=1e-6)
    assert float((slope * step).sum()) <= float(lattice.norm(step)) * (1 + 1e-10)


@pytest.mark.parametrize(
    "options",
    [{"padding": 1, "padding_mode": "reflect"}, {"padding": 1, "padding_mode": "replicate"},
     {"padding": 2, "padding_mode": "circular"}, {"padding": 1, "padding_mode": "circular", "stride": 2}],
)  # fmt: skip
def test_padding_that_shows_values_twice_is_refused(options: dict[str, Any]) -> None:
    layer = nn.Conv2d(2, 2, 3, **options)
    assert Lattice.of(layer) is None
    for enforcer in (Spectral(exact=True), Orthogonal(), Bjorck()):
        with pytest.raises(ipmgan.PairingError, match="padded"):
            enforcer.prepare(nn.Sequential(layer))


# --- power iteration


def test_power_iteration_of_the_worked_example() -> None:
    """W = [[3, 0], [4, 5]] from u = (1, 0): the estimates of |W|_2 = 6.70820393."""
    matrix = torch.tensor([[3.0, 0.0], [4.0, 5.0]], dtype=DOUBLE)
    norm = KernelNorm(matrix, 1.0)
    assert float(matrix[0, 0] / norm(matrix)[0, 0]) == pytest.approx(6.70820393, abs=5e-9)
    norm.u.copy_(torch.tensor([1.0, 0.0]))
    values = []
    for _ in range(5):
        norm.iterate(matrix)
        values.append(float(matrix[0, 0] / norm(matrix)[0, 0]))
    assert values == pytest.approx([5, 6.6717460, 6.7077496, 6.7081983, 6.7082039], abs=5e-8)


def test_it_follows_torch_where_torch_iterates_as_often() -> None:
    """The same map of the weight, and the same gradient through it, once the vectors agree."""
    plain, kernel = filled(nn.Conv2d(3, 5, 3, bias=False)), normal(5, 3, 3, 3, seed=9)
    ours, theirs = copy.deepcopy(plain), parametrizations.spectral_norm(copy.deepcopy(plain), eps=1e-30)
    Spectral().prepare(nn.Sequential(ours))
    for _ in range(500):
        theirs.weight  # noqa: B018
    theirs.eval()
    for layer in (ours, theirs):
        (layer.weight * kernel).sum().backward()
    assert torch.allclose(ours.weight, theirs.weight, rtol=1e-9)
    gradients = [layer.parametrizations.weight.original.grad for layer in (ours, theirs)]
    assert torch.allclose(*gradients, rtol=1e-7, atol=1e-12)


def test_the_estimate_lags_behind_from_below_and_catches_up() -> None:
    module, enforcer = filled(nn.Sequential(nn.Linear(20, 30))), Spectral()
    moved(enforcer, enforcer.prepare(module), steps=3, rate=1.0)
    assert 1 < operator_norm(module, 20) < 2
    for _ in range(300):
        with torch.no_grad():
            enforcer.after_step(module)
    assert operator_norm(module, 20) == pytest.approx(1, rel=1e-6)
    more = filled(nn.Sequential(nn.Linear(20, 30)))
    moved(Spectral(iterations=300), Spectral(iterations=300).prepare(more), steps=3, rate=1.0)
    assert operator_norm(more, 20) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("enforcer", OWN, ids=str)
def test_nothing_but_the_update_moves_the_vectors(enforcer: ipmgan.LipschitzEnforcer) -> None:
    module, images = enforcer.prepare(critic()), torch.randn(5, 4, 9, 9, generator=rng())
    before = copy.deepcopy(module.state_dict())
    for mode in (True, False):
        module.train(mode)
        module(images).sum().backward()
    ipmgan.lipschitz_bound(module, shape=(4, 9, 9))
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert torch.equal(module.train()(images), module.eval()(images))


def test_a_weight_of_zeros_stays_zero_and_can_leave() -> None:
    for enforcer in (Spectral(), Spectral(exact=True), Bjorck()):
        module = nn.Sequential(nn.Linear(3, 2))
        module = enforcer.prepare(module)
        with torch.no_grad():
            original = module.get_parameter("0.parametrizations.weight.original").zero_()
            enforcer.after_step(module)
        module(torch.ones(1, 3)).sum().backward()
        assert not module[0].weight.any()
        assert original.grad is not None
        assert original.grad.isfinite().all()
        assert original.grad.any()


# --- the constraint and its certificate


@pytest.mark.parametrize("k", [1.0, 3.0])
@pytest.mark.parametrize("enforcer", [Spectral(exact=True), Orthogonal(), Orthogonal(map="matrix_exp"), Bjorck()])
def test_a_linear_layer_has_the_norm_and_its_certificate_is_the_svd(enforcer: Any, k: float) -> None:
    enforcer = attrs.evolve(enforcer, k=k)
    for inputs, outputs in ((7, 5), (5, 7), (6, 6), (9, 1)):
        module = enforcer.prepare(filled(nn.Sequential(nn.Linear(inputs, outputs))))
        moved(enforcer, module)
        truth = operator_norm(module, inputs)
        assert truth == pytest.approx(k, rel=1e-9 if not isinstance(enforcer, Bjorck) else 1e-4)
        assert ipmgan.lipschitz_bound(module).bound == pytest.approx(truth, rel=1e-11)


@pytest.mark.parametrize("enforcer", [Orthogonal(), Orthogonal(map="cayley"), Bjorck(iterations=40)], ids=str)
def test_orthogonal_weights_are_orthogonal(enforcer: ipmgan.LipschitzEnforcer) -> None:
    for inputs, outputs in ((7, 5), (5, 7), (6, 6)):
        module = enforcer.prepare(filled(nn.Sequential(nn.Linear(inputs, outputs))))
        moved(enforcer, module)
        assert torch.allclose(torch.linalg.svdvals(module[0].weight), torch.ones(1, dtype=DOUBLE), rtol=1e-9)


def test_they_start_from_the_weights_that_the_critic_had() -> None:
    """By polar decomposition or by Gram and Schmidt, so that seeds differ, and signs are kept."""
    weight = normal(5, 5)
    u, _, v = torch.linalg.svd(weight)
    q, r = torch.linalg.qr(weight)
    for enforcer, near in ((Bjorck(iterations=60), u @ v), (Orthogonal(), q * r.diagonal().sign())):
        layer = nn.Linear(5, 5).double()
        layer.weight.data.copy_(weight)
        enforcer.prepare(nn.Sequential(layer))
        assert torch.allclose(layer.weight, near, atol=1e-12)


@pytest.mark.parametrize("chosen", ["auto", "householder", "cayley", "matrix_exp"])
def test_weight_decay_leaves_orthogonal_weights_orthogonal(chosen: str) -> None:
    """Where torch's own reflections end as zeros: it cuts the fraction off the signs that it keeps as weights."""
    module = filled(nn.Sequential(nn.Linear(7, 5)))
    Orthogonal(map=chosen).prepare(module)
    with torch.no_grad():
        module.get_parameter("0.parametrizations.weight.original").mul_(0.9)
    assert torch.allclose(torch.linalg.svdvals(module[0].weight), torch.ones(1, dtype=DOUBLE), rtol=1e-9)


@pytest.mark.parametrize("shape", [(6, 6), (3, 8)])
def test_bjorck_never_leaves_the_ball_and_comes_to_the_polar_factor(shape: tuple[int, int]) -> None:
    matrix = normal(*shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    last = 0.0
    for iterations in range(1, 30):
        values = torch.linalg.svdvals(orthonormal(matrix, iterations))
        assert float(values[0]) <= 1 + 1e-12
        assert float(values[-1]) >= last - 1e-12
        last = float(values[-1])
    assert torch.allclose(orthonormal(matrix, 60), u @ v, atol=1e-10)


@pytest.mark.parametrize("enforcer", CERTIFIED, ids=str)
def test_no_convolution_exceeds_its_share(enforcer: ipmgan.LipschitzEnforcer) -> None:
    module = enforcer.prepare(filled(critic()))
    moved(enforcer, module)
    image = torch.zeros(1, 4, 9, 9, dtype=DOUBLE)
    for layer in module:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert operator_norm(layer, *image.shape[1:]) <= 1 + 1e-9
        image = layer(image)
    if getattr(enforcer, "shape", None) is None:
        assert ipmgan.lipschitz_bound(module).bound <= 1.07
    assert ipmgan.lipschitz_bound(module, shape=(4, 9, 9)).bound <= 1 + 1e-9


def test_the_papers_norm_bounds_no_convolution() -> None:
    module = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, bias=False)).double()
    nn.init.ones_(module[0].weight)
    Spectral().prepare(module)
    truth = operator_norm(module, 2, 9, 9)
    assert truth > 2.5
    assert ipmgan.lipschitz_bound(module, shape=(2, 9, 9)).bound == pytest.approx(truth, rel=1e-10)


@pytest.mark.parametrize("enforcer", OWN, ids=str)
@pytest.mark.parametrize(("kind", "options", "size"), [LAYERS[i] for i in (0, 2, 8, 9, 11, 13, 15, 17, 18, 20, 21)])
def test_the_certificate_of_a_convolution_is_the_svd(
    kind: Callable[..., nn.Module], options: dict[str, Any], size: tuple[int, ...], enforcer: ipmgan.LipschitzEnforcer
) -> None:
    if enforcer == Spectral(exact=True, shape=(4, 9, 9)):
        enforcer = Spectral(exact=True, shape=(4, *size))
    module = enforcer.prepare(filled(nn.Sequential(kind(4, 6, **options))))
    truth = operator_norm(module, 4, *size)
    certificate = ipmgan.lipschitz_bound(module, shape=(4, *size))
    assert certificate.bound == pytest.approx(truth, rel=1e-10)
    assert certificate.bound >= truth * (1 - 1e-13)
    rough = ipmgan.lipschitz_bound(module, shape=(4, *size), effort=short_of_dense(module, (4, *size)))
    assert truth * (1 - 1e-13) <= rough.bound <= 1.35 * truth


def short_of_dense(module: nn.Module, shape: tuple[int, ...]) -> float:
    """Just too little effort for the dense matrix."""
    short, long = sorted((math.prod(shape), module(torch.zeros(1, *shape, dtype=DOUBLE)).numel()))
    return short**2 * long - 1


def test_the_exact_norm_is_the_constant_where_padding_is_circular() -> None:
    options = {"padding": 1, "padding_mode": "circular"}
    module = filled(nn.Sequential(nn.Conv2d(3, 4, 3, **options), nn.ReLU(), nn.Conv2d(4, 2, 3, **options)))
    enforcer = Spectral(exact=True, k=4.0, shape=(3, 8, 8))
    moved(enforcer, enforcer.prepare(module))
    assert operator_norm(module[0], 3, 8, 8) == pytest.approx(2, rel=1e-10)
    assert operator_norm(module[2], 4, 8, 8) == pytest.approx(2, rel=1e-10)
    assert ipmgan.lipschitz_bound(module, shape=(3, 8, 8)).bound == pytest.approx(4, rel=1e-9)


@pytest.mark.parametrize("enforcer", OWN, ids=str)
def test_the_gradient_through_the_weights_is_right(enforcer: ipmgan.LipschitzEnforcer) -> None:
    """With the vectors held, as they are between updates: of exact norms, that is the gradient of the norm itself."""
    module = enforcer.prepare(filled(nn.Sequential(nn.Conv2d(4, 3, 2, stride=1), nn.Flatten(1), nn.Linear(192, 2))))
    images = normal(2, 4, 9, 9)
    names, originals = zip(*module.named_parameters(), strict=True)

    def loss(*values: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(module, dict(zip(names, values, strict=True)), (images,))
        return out.square().sum()

    assert torch.autograd.gradcheck(loss, originals, fast_mode=True)


def test_autocast_leaves_the_weights_alone() -> None:
    for enforcer in OWN:
        module = enforcer.prepare(critic())
        plain = [layer.weight for layer in module if hasattr(layer, "weight")]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = [layer.weight for layer in module if hasattr(layer, "weight")]
        assert all(torch.equal(one, other) for one, other in zip(plain, cast, strict=True))


# --- refusals


@pytest.mark.parametrize("enforcer", OWN, ids=str)
def test_critics_that_cannot_be_constrained_are_refused(enforcer: ipmgan.LipschitzEnforcer) -> None:
    shared = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    shared[1].weight = shared[0].weight
    done = nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 1)))
    for module, why in ((shared, "share"), (done, "already"), (nn.Sequential(nn.ReLU()), "none")):
        with pytest.raises(ipmgan.PairingError, match=why):
            enforcer.prepare(module)


def test_a_shape_that_is_not_the_critics_is_refused() -> None:
    with pytest.raises(ipmgan.UsageError, match="shape"):
        Spectral(exact=True, shape=(3, 9, 9)).prepare(critic())


@pytest.mark.parametrize("enforcer", OWN, ids=str)
def test_preparing_draws_nothing(enforcer: ipmgan.LipschitzEnforcer) -> None:
    module = critic()
    before = torch.random.get_rng_state()
    one, other = enforcer.prepare(copy.deepcopy(module)), enforcer.prepare(copy.deepcopy(module))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


# --- runs

SELECTIONS = ["spectral", "spectral:exact=true", "orthogonal", "bjorck:iterations=8"]
OTHERS = ["sn:iterations=2,k=3", "orthogonal:map=cayley"]
RUNS = [("ring8", one) for one in SELECTIONS + OTHERS] + [("images", one) for one in SELECTIONS]
RING: dict[str, Any] = {
    "objective": "wgan", "source": "ring8", "generator": "mlp:width=16,depth=2", "critic": "mlp:width=16,depth=2",
    "device": "cpu", "batch": 16, "log_every": 2, "n_critic": 2,
}  # fmt: skip
IMAGES = {"generator": "mlp:width=16,depth=1", "critic": "dcgan:nf=4,norm=none", "batch": 4}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings for images of 28 x 28."""
    file = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(file, torch.randint(0, 256, (60, 1, 28, 28), generator=rng(), dtype=torch.uint8).numpy())
    return RING | IMAGES | {"source": f"tensor:path={file}"}


def tensors(run: ipmgan.Run) -> dict[str, Tensor]:
    """What the last checkpoint holds."""
    from safetensors.torch import load_file

    return load_file(sorted(run.path.glob("checkpoints/*/state.safetensors"))[-1])


@pytest.mark.parametrize(("source", "selection"), RUNS)
def test_trains_and_resumes_to_the_bit(selection: str, source: str, images: dict[str, Any], tmp_path: Path) -> None:
    settings = RING if source == "ring8" else images
    whole = ipmgan.train(lipschitz=selection, steps=6, out=tmp_path / "whole", **settings)
    ipmgan.train(lipschitz=selection, steps=3, out=tmp_path / "parts", **settings)
    parts = ipmgan.resume(tmp_path / "parts", steps=6)
    saved, again = tensors(whole), tensors(parts)
    assert saved.keys() == again.keys()
    assert all(torch.equal(saved[key], again[key]) for key in saved)
    if selection.startswith(("spectral", "sn")):
        assert [key for key in saved if key.startswith("critic.") and key.endswith((".u", ".gradient"))]
    for key in ("held_out_estimate", "lipschitz_bound"):
        assert whole.metrics[-1][key] == parts.metrics[-1][key]
    bound = whole.metrics[-1]["lipschitz_bound"]
    if source == "ring8":
        assert bound <= (3 if "k=3" in selection else 1) * 1.05
    elif "exact" in selection:
        assert bound <= 1 + 1e-5
    assert whole.config == ipmgan.configure(config=whole.path / "config.toml")


def test_the_vectors_are_not_averaged(tmp_path: Path) -> None:
    run = ipmgan.train(lipschitz="spectral", steps=4, average=0.9, out=tmp_path / "run", **RING)
    saved = tensors(run)
    assert [key for key in saved if key.startswith("average.")]
    assert not [key for key in saved if key.startswith(("average", "generator.")) and "parametrizations" in key]


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch vectorises the gradient of reflections slowly
@pytest.mark.parametrize("selection", SELECTIONS)
def test_replicates_are_the_runs_one_by_one(selection: str, tmp_path: Path) -> None:
    runs = ipmgan.train(lipschitz=selection, steps=4, replicates=2, out=tmp_path / "both", **RING)
    for seed, run in enumerate(runs):
        alone = ipmgan.train(lipschitz=selection, steps=4, seed=seed, out=tmp_path / f"{seed}", **RING)
        together, apart = tensors(run), tensors(alone)
        assert together.keys() == apart.keys()
        for key in together:
            if together[key].is_floating_point():
                assert torch.allclose(together[key], apart[key], rtol=1e-3, atol=1e-5), key


def test_batch_norm_is_refused(images: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ipmgan.PairingError, match="batch"):
        ipmgan.Trainer(**images | {"critic": "dcgan:nf=4,norm=batch"}, lipschitz="spectral", out=tmp_path / "run")


# --- the distribution


def test_offered_by_this_distribution_with_page_and_citation() -> None:
    points = importlib.metadata.entry_points(group="ipmgan", name="spectral")
    registry = ipmgan.Registry(points)
    assert registry.broken == []
    for plugin in ipmgan_spectral.ipmgan_lipschitz():
        entry = registry.find("lipschitz", plugin.name)
        assert entry.distribution == "ipmgan-spectral"
        assert (plugin.__doc__ or "").splitlines()[0].endswith(".")
        assert plugin.references[0].bibtex().startswith("@")


def test_uses_public_names_only() -> None:
    files = sorted(Path(ipmgan_spectral.__file__).parent.glob("*.py"))
    imports = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    modules = {node.module for node in imports if isinstance(node, ast.ImportFrom) and node.module}
    modules |= {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    assert "ipmgan" in modules
    assert not [module for module in modules if module.startswith("ipmgan.")]


def test_torch_still_makes_a_class_for_each_layer_that_it_parametrises() -> None:
    """The rule is attached to that class, and must not reach others."""
    one, other = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
    Spectral().prepare(nn.Sequential(one))
    parametrize.register_parametrization(other, "weight", nn.Identity())
    assert hasattr(one, "lipschitz_rule")
    assert not hasattr(other, "lipschitz_rule")
    assert not hasattr(nn.Conv2d, "lipschitz_rule")
