from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from ipmgan.data.base import SampleSpec
from ipmgan.errors import PairingError, UsageError
from ipmgan.networks import BUILTIN, DCGAN, MLP, AutoEncoder, DCGANConstant, Interval, Network
from ipmgan.objectives.base import CriticKind

PLANE = SampleSpec(shape=(2,))
DIGIT = SampleSpec(shape=(1, 8, 8), bounds=(-1.0, 1.0))
MNIST = SampleSpec(shape=(1, 28, 28), bounds=(-1.0, 1.0))
PHOTO = SampleSpec(shape=(3, 64, 64), bounds=(-1.0, 1.0))
SMALL: tuple[Network, ...] = (
    MLP(width=16, depth=2),
    MLP(width=(16, 8), norm="layer", activation="softplus", init="he"),
    MLP(width=16, norm="layer", activation="leaky-relu"),
    DCGAN(nf=4),
    DCGAN(nf=4, norm="none"),
    DCGANConstant(nf=4),
    AutoEncoder(hidden=16, code=4),
)
KINDS = tuple(set(CriticKind) - {CriticKind.NONE})


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_parameter_counts_of_the_papers() -> None:
    with torch.device("meta"):
        dcgan, constant = DCGAN().generator(100, PHOTO), DCGANConstant().generator(100, PHOTO)
    assert count(dcgan) == 3_576_704
    assert count(constant) == 302_080
    assert round(count(dcgan) / count(constant), 2) == 11.84


def test_layer_sizes_of_the_gmmn_generator() -> None:
    sample = SampleSpec(shape=(1, 28, 28), bounds=(0.0, 1.0))
    net = MLP(width=(64, 256, 256, 1024)).generator(10, sample)
    linear = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == [64, 256, 256, 1024, 784]
    assert isinstance(net[-2], nn.Sigmoid)


def test_box_gains_of_the_critics() -> None:
    """The product of c sqrt(fan-in fan-out), known for these two critics, pins every layer's shape."""
    critic = MLP().critic(PLANE, CriticKind.SCORE, per_sample=True)
    gains = [0.01 * math.sqrt(x.in_features * x.out_features) for x in critic if isinstance(x, nn.Linear)]
    assert math.prod(gains) == pytest.approx(1.8981253125, rel=1e-9)
    with torch.device("meta"):
        convolutional = DCGAN(norm="none").critic(PHOTO, CriticKind.SCORE, per_sample=True)
    layers = [layer for layer in convolutional if isinstance(layer, nn.Conv2d)]
    gains = [0.01 * math.sqrt(x.in_channels * 16 * x.out_channels * (4 if x.stride == (2, 2) else 1)) for x in layers]
    assert gains == pytest.approx([1.1085, 7.2408, 14.4815, 28.963, 0.9051], abs=1e-4)
    assert math.prod(gains) == pytest.approx(3047.06, abs=0.01)


@pytest.mark.parametrize("network", [DCGAN(nf=2), DCGANConstant(nf=2)], ids=lambda n: n.name)
def test_convolutions_hit_every_size_exactly(network: Network) -> None:
    with torch.device("meta"):
        for size in range(28, 129):
            channels = 1 + size % 3
            sample = SampleSpec(shape=(channels, size, size), bounds=(-1.0, 1.0))
            images = network.generator(7, sample)(torch.zeros(3, 7))
            assert images.shape == (3, channels, size, size)
            assert network.critic(sample, CriticKind.SCORE, per_sample=True)(images).shape == (3,)


@pytest.mark.parametrize("size", [28, 29, 45, 63, 64])
def test_every_pixel_counts(size: int) -> None:
    sample = SampleSpec(shape=(1, size, size))
    critic = DCGAN(nf=4, norm="none").critic(sample, CriticKind.SCORE, per_sample=True).double()
    images = draw(1, 1, size, size).double().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(images).sum(), images)
    assert (gradient != 0).all()


@pytest.mark.parametrize("shape", [(2,), (1, 8, 8), (3, 27, 27), (3, 129, 129), (3, 32, 64), (784,)])
@pytest.mark.parametrize("network", [DCGAN(), DCGANConstant()], ids=lambda n: n.name)
def test_other_shapes_are_refused_with_the_remedy(network: Network, shape: tuple[int, ...]) -> None:
    sample = SampleSpec(shape=shape)
    with pytest.raises(PairingError, match=r"28 to 128 pixels.*take mlp"):
        network.generator(100, sample)
    with pytest.raises(PairingError, match="take mlp"):
        network.critic(sample, CriticKind.SCORE, per_sample=False)


@pytest.mark.parametrize("bounds", [None, (-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-3.0, -1.0)])
@pytest.mark.parametrize("network", [MLP(width=8), DCGAN(nf=4), DCGANConstant(nf=4)], ids=lambda n: n.name)
def test_generators_fill_the_bounds_and_stay_inside(network: Network, bounds: tuple[float, float] | None) -> None:
    net = network.generator(5, SampleSpec(shape=(1, 28, 28), bounds=bounds))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1000)
    samples = net(draw(64, 5)).detach()
    assert samples.shape == (64, 1, 28, 28)
    if bounds is None:
        assert samples.abs().max() > 255
    else:
        assert (samples.min().item(), samples.max().item()) == pytest.approx(bounds, abs=1e-3)
        assert (samples >= bounds[0]).all()
        assert (samples <= bounds[1]).all()


def test_mlp_output_is_an_option_but_must_cover_the_bounds() -> None:
    plain = MLP(width=8, output="identity").generator(3, DIGIT)
    assert not any(isinstance(layer, nn.Tanh) for layer in plain)
    assert isinstance(MLP(width=8, output="tanh").generator(3, DIGIT)[-2], nn.Tanh)
    with pytest.raises(PairingError, match=r"reaches \(0.0, 1.0\), the samples lie in \(-1.0, 1.0\)"):
        MLP(output="sigmoid").generator(3, DIGIT)


def test_interval_is_an_affine_tanh_and_still_a_module() -> None:
    x = draw(100).double()
    torch.testing.assert_close(Interval(-2.0, 6.0)(x), 2 + 4 * x.tanh())
    assert isinstance(Interval(-2.0, 6.0).half(), Interval)


@pytest.mark.parametrize("network", SMALL, ids=repr)
@pytest.mark.parametrize("kind", list(CriticKind), ids=lambda k: k.value)
def test_critics_put_out_what_they_say(network: Network, kind: CriticKind) -> None:
    if kind not in network.critic_kinds:
        with pytest.raises(PairingError, match="cannot put out"):
            network.critic(MNIST, kind, per_sample=False)
        return
    for per_sample in (False, True):
        critic = network.critic(MNIST, kind, per_sample=per_sample)
        out = critic(draw(6, 1, 28, 28))
        assert out.shape == ((6, 16) if kind is CriticKind.FEATURES else (6,))
        assert out.unique().numel() > 1
        if kind is CriticKind.ENERGY:
            assert (out >= 0).all()


@pytest.mark.parametrize(
    ("output", "forbidden"),
    [
        ("auto", set()),
        ("identity", {CriticKind.ENERGY}),
        ("tanh", {CriticKind.ENERGY, CriticKind.LOGIT}),
        ("sigmoid", {CriticKind.LOGIT}),
        ("softplus", {CriticKind.LOGIT}),
    ],
)
def test_mlp_capabilities_follow_the_output(output: str, forbidden: set[CriticKind]) -> None:
    assert MLP(output=output).critic_kinds == set(KINDS) - forbidden


@pytest.mark.parametrize("network", [DCGAN(nf=4, norm="batch"), MLP(width=8, norm="batch")], ids=lambda n: n.name)
def test_batch_norm_mixes_samples_and_is_refused_where_it_may_not(network: Network) -> None:
    x, y = draw(4, 1, 28, 28), draw(4, 1, 28, 28, seed=1)
    y[0] = x[0]
    critic = network.critic(MNIST, CriticKind.SCORE, per_sample=False)
    assert abs(critic(x)[0] - critic(y)[0]) > 1e-4
    with pytest.raises(PairingError, match=r"take norm=layer or norm=none"):
        network.critic(MNIST, CriticKind.SCORE, per_sample=True)


def test_dcgan_chooses_its_norm_by_its_duty() -> None:
    def norms(net: nn.Module) -> set[type]:
        return {type(layer) for layer in net.modules() if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm)}

    assert norms(DCGAN(nf=4).generator(5, PHOTO)) == {nn.BatchNorm2d}
    assert norms(DCGAN(nf=4).critic(PHOTO, CriticKind.SCORE, per_sample=False)) == {nn.BatchNorm2d}
    assert norms(DCGAN(nf=4).critic(PHOTO, CriticKind.SCORE, per_sample=True)) == {nn.GroupNorm}
    for net in (DCGANConstant(nf=4).generator(5, PHOTO), DCGAN(nf=4, norm="none").generator(5, PHOTO)):
        assert not norms(net)


@pytest.mark.parametrize("network", SMALL, ids=repr)
def test_critics_differentiate_twice(network: Network) -> None:
    kind = CriticKind.ENERGY if isinstance(network, AutoEncoder) else CriticKind.SCORE
    critic = network.critic(MNIST, kind, per_sample=True)
    x = draw(3, 1, 28, 28).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    gradient.flatten(1).norm(dim=1).sum().backward()
    slopes = [p.grad for p in critic.parameters() if p.grad is not None]
    assert any(slope.abs().sum() > 0 for slope in slopes)
    assert all(slope.isfinite().all() for slope in slopes)
    by_sample = torch.func.vmap(torch.func.grad(lambda one: critic(one[None])[0]))(x.detach())
    torch.testing.assert_close(by_sample, gradient.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", SMALL, ids=repr)
def test_everything_builds_without_memory(network: Network) -> None:
    with torch.device("meta"):
        nets = [network.critic(PHOTO, kind, per_sample=True) for kind in network.critic_kinds]
        nets += [] if isinstance(network, AutoEncoder) else [network.generator(100, PHOTO)]
    assert all(p.is_meta for net in nets for p in net.parameters())


@pytest.mark.parametrize("network", [DCGAN(), DCGANConstant()], ids=lambda n: n.name)
def test_dcgan_initial_weights(network: Network) -> None:
    """Bands of five standard errors: below one false alarm in a million for a layer."""
    for net in (network.generator(100, PHOTO), network.critic(PHOTO, CriticKind.SCORE, per_sample=False)):
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                n = layer.weight.numel()
                assert layer.bias is None
                assert abs(layer.weight.mean()) < 5 * 0.02 / math.sqrt(n)
                assert abs(layer.weight.std() / 0.02 - 1) < 5 / math.sqrt(2 * n)
            elif isinstance(layer, nn.BatchNorm2d):
                n = layer.weight.numel()
                assert abs(layer.weight.mean() - 1) < 5 * 0.02 / math.sqrt(n)
                assert abs(layer.weight.std() / 0.02 - 1) < 5 / math.sqrt(2 * n)
                assert (layer.bias == 0).all()


def test_he_initial_weights() -> None:
    net = MLP(init="he").critic(PLANE, CriticKind.SCORE, per_sample=True)
    layers = [layer for layer in net if isinstance(layer, nn.Linear)]
    for layer, variance in zip(layers, (2, 2, 2, 1), strict=True):
        limit = math.sqrt(3 * variance / layer.in_features)
        assert 0.97 * limit < layer.weight.abs().max() <= limit
        assert (layer.bias == 0).all()
    plain = MLP(width=512, depth=1).critic(PLANE, CriticKind.SCORE, per_sample=True)
    assert plain[0].weight.abs().max() <= 1 / math.sqrt(2)


def test_evaluation_mode_makes_generated_samples_independent() -> None:
    net, z = DCGAN(nf=4).generator(5, MNIST), draw(8, 5)
    trained, half = net(z), copy.deepcopy(net)(z[:4])
    assert (trained[:4] - half).abs().max() > 1e-4
    net.eval()
    torch.testing.assert_close(net(z)[:4], net(z[:4]))


@pytest.mark.parametrize("error", ["norm", "sum", "mean"])
@pytest.mark.parametrize("sample", [SampleSpec(shape=(5,)), DIGIT], ids=["vector", "image"])
def test_energy_is_the_reconstruction_error_by_hand(sample: SampleSpec, error: str) -> None:
    critic = AutoEncoder(hidden=(7, 6), code=3, error=error).critic(sample, CriticKind.ENERGY, per_sample=True).double()
    x = draw(4, *sample.shape).double()
    weights = dict(critic.named_parameters())
    for i, flat in enumerate(x.flatten(1)):
        h = (weights["encoder.0.weight"] @ flat + weights["encoder.0.bias"]).clamp_min(0)
        h = (weights["encoder.2.weight"] @ h + weights["encoder.2.bias"]).clamp_min(0)
        code = weights["encoder.4.weight"] @ h + weights["encoder.4.bias"]
        squares = (weights["decoder.weight"] @ code + weights["decoder.bias"] - flat).square()
        expected = {"norm": squares.sum().sqrt(), "sum": squares.sum(), "mean": squares.mean()}[error]
        torch.testing.assert_close(critic(x)[i], expected)
    assert critic.reconstruct(x).shape == x.shape
    if error == "norm":
        torch.testing.assert_close((critic.reconstruct(x) - x).flatten(1).norm(dim=1), critic(x))


def test_code_lies_behind_the_energy() -> None:
    plain = AutoEncoder(hidden=9, code=4).critic(DIGIT, CriticKind.ENERGY, per_sample=True)
    coded = AutoEncoder(hidden=9, code=4, with_code=True).critic(DIGIT, CriticKind.ENERGY, per_sample=True)
    coded.load_state_dict(plain.state_dict())
    x = draw(6, 1, 8, 8)
    assert coded(x).shape == (6, 5)
    torch.testing.assert_close(coded(x)[:, 0], plain(x))
    torch.testing.assert_close(coded(x)[:, 1:], plain.encoder(x.flatten(1)))


def test_perfect_reconstruction_has_a_finite_gradient() -> None:
    critic = AutoEncoder(hidden=3, code=2).critic(PLANE, CriticKind.ENERGY, per_sample=True)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.zero_()
    x = torch.zeros(2, 2, requires_grad=True)
    energy = critic(x)
    energy.sum().backward()
    assert (energy == 0).all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_missing_halves_and_bad_options_are_refused() -> None:
    with pytest.raises(PairingError, match="has no generator"):
        AutoEncoder().generator(3, DIGIT)
    for make in (lambda: MLP(width=0), lambda: MLP(width=(8, 0)), lambda: DCGAN(nf=0), lambda: MLP(norm="bach")):
        with pytest.raises(UsageError):
            make()


def test_linear_critic_has_depth_zero() -> None:
    critic = MLP(depth=0).critic(PLANE, CriticKind.SCORE, per_sample=True)
    assert [type(layer) for layer in critic] == [nn.Linear, nn.Flatten]


def test_builtin_names() -> None:
    assert [cls.name for cls in BUILTIN] == ["mlp", "dcgan", "dcgan-constant", "autoencoder"]
