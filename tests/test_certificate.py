from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ipmgan.errors import UsageError
from ipmgan.functional.norms import convolution_bound, power_iteration, spectral_norm
from ipmgan.lipschitz import lipschitz_bound, lipschitz_rule

DOUBLE = torch.float64


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def number(x: Tensor) -> float:
    return x.item()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=DOUBLE)


def filled(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in double precision, its weights standard normal."""
    generator = rng(seed)
    module = module.double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=generator)
    return module


def operator_norm(layer: nn.Module, *shape: int) -> float:
    """The norm of the dense matrix of an affine layer on samples of one shape."""
    size = math.prod(shape)
    with torch.no_grad():
        columns = layer(torch.eye(size, dtype=DOUBLE).reshape(size, *shape)) - layer(
            torch.zeros(1, *shape, dtype=DOUBLE)
        )
    return number(torch.linalg.matrix_norm(columns.flatten(1), 2))


# --- matrices


def test_the_spectral_norm_of_the_worked_example() -> None:
    matrix = torch.tensor([[3.0, 0.0], [4.0, 5.0]])
    assert number(spectral_norm(matrix)) == pytest.approx(6.70820393, abs=5e-9)
    assert number(torch.linalg.svdvals(matrix)[1]) == pytest.approx(2.23606798, abs=1e-6)


def test_power_iteration_of_the_worked_example() -> None:
    matrix, u = torch.tensor([[3.0, 0.0], [4.0, 5.0]], dtype=DOUBLE), torch.tensor([1.0, 0.0], dtype=DOUBLE)
    values = [number(power_iteration(matrix, u, steps=steps).sigma) for steps in range(1, 6)]
    assert values == pytest.approx([5, 6.6717460, 6.7077496, 6.7081983, 6.7082039], abs=5e-8)


def test_power_iteration_goes_on_from_where_it_stopped_and_stays_below() -> None:
    matrix, u = normal(7, 5), normal(7, seed=1)
    once, twice = power_iteration(matrix, u, steps=3), power_iteration(matrix, u, steps=5)
    assert number(power_iteration(matrix, once.u, steps=2).sigma) == pytest.approx(number(twice.sigma), rel=1e-13)
    end = power_iteration(matrix, u, steps=300)
    assert number(end.sigma) == pytest.approx(number(spectral_norm(matrix)), rel=1e-10)
    assert number(end.u @ matrix @ end.v) == pytest.approx(number(end.sigma), rel=1e-12)
    assert number(twice.sigma) <= number(spectral_norm(matrix))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (9, 1), (20, 30), (300, 200)])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE, torch.complex128])
def test_the_spectral_norm_is_exact_and_never_below(rows: int, columns: int, dtype: torch.dtype) -> None:
    matrix = torch.randn(3, rows, columns, generator=rng(rows), dtype=dtype)
    wide = matrix.to(torch.complex128 if dtype.is_complex else DOUBLE)
    ratio = spectral_norm(matrix) / torch.linalg.matrix_norm(wide, 2)
    assert torch.all(ratio >= 1 - 2e-15)
    assert torch.all(ratio <= 1 + 2e-11)


def test_the_spectral_norm_of_special_matrices() -> None:
    assert number(spectral_norm(torch.zeros(3, 4))) == 0
    assert number(spectral_norm(torch.ones(512, 512))) == pytest.approx(512, rel=1e-12)
    assert number(spectral_norm(torch.eye(64))) == pytest.approx(1, rel=1e-12)
    assert number(spectral_norm(normal(8, 8) * 1e-100)) == pytest.approx(
        1e-100 * number(spectral_norm(normal(8, 8))), rel=1e-9
    )


# --- convolutions against their dense matrix

CASES = [
    (nn.Conv1d, {"kernel_size": 5, "stride": 2, "padding": 2}, (13,)),
    (nn.Conv1d, {"kernel_size": 3, "dilation": 2, "padding": 2}, (11,)),
    (nn.Conv1d, {"kernel_size": 4, "dilation": 3, "stride": 2, "padding": 4}, (23,)),
    (nn.Conv1d, {"kernel_size": 5, "dilation": 2, "stride": 4, "padding": 4}, (31,)),
    (nn.Conv1d, {"kernel_size": 3, "stride": 5}, (20,)),
    (nn.Conv1d, {"kernel_size": 3, "padding": "same", "padding_mode": "circular"}, (4,)),
    (nn.Conv1d, {"kernel_size": 5, "padding": 3, "padding_mode": "reflect"}, (4,)),
    (nn.Conv1d, {"kernel_size": 4, "padding": 3, "padding_mode": "replicate"}, (3,)),
    (nn.Conv2d, {"kernel_size": 3}, (8, 8)),
    (nn.Conv2d, {"kernel_size": 3, "padding": 1}, (8, 8)),
    (nn.Conv2d, {"kernel_size": 4, "stride": 2, "padding": 1}, (8, 8)),
    (nn.Conv2d, {"kernel_size": 5, "stride": 2, "padding": 2}, (9, 9)),
    (nn.Conv2d, {"kernel_size": (3, 1), "stride": (1, 2), "padding": (1, 0)}, (7, 6)),
    (nn.Conv2d, {"kernel_size": 3, "stride": 2, "dilation": 2, "padding": 2}, (9, 9)),
    (nn.Conv2d, {"kernel_size": 3, "padding": 1, "groups": 2}, (7, 7)),
    (nn.Conv2d, {"kernel_size": 3, "padding": "same", "dilation": 2}, (7, 7)),
    (nn.Conv2d, {"kernel_size": 2, "stride": 2}, (6, 6)),
    (nn.Conv3d, {"kernel_size": 2, "stride": 1, "padding": 1}, (3, 3, 3)),
    (nn.Conv3d, {"kernel_size": 3, "stride": 2, "padding": 1}, (4, 4, 4)),
    (nn.ConvTranspose1d, {"kernel_size": 5, "stride": 3, "padding": 1, "output_padding": 2, "dilation": 2}, (7,)),
    (nn.ConvTranspose2d, {"kernel_size": 4, "stride": 2, "padding": 1}, (5, 5)),
    (nn.ConvTranspose2d, {"kernel_size": 5, "stride": 2, "padding": 2, "output_padding": 1, "groups": 2}, (4, 4)),
    (nn.ConvTranspose3d, {"kernel_size": 2, "stride": 2}, (2, 2, 2)),
]


def frobenius_bound(layer: nn.Module) -> float:
    """||W||_F times the root of how often patches overlap, and of how often padding repeats a value (not used here)."""
    sizes = zip(layer.weight.shape[2:], layer.stride, layer.dilation, strict=True)
    overlap = math.prod(math.ceil(size / (step // math.gcd(step, gap))) for size, step, gap in sizes)
    return math.sqrt(overlap) * number(layer.weight.norm())


@pytest.mark.parametrize("effort", [0.0, 1e5, 2e9])
@pytest.mark.parametrize(("kind", "options", "size"), CASES)
def test_convolutions_are_bounded_from_above_and_below_frobenius(
    kind: Callable[..., nn.Module], options: dict[str, object], size: tuple[int, ...], effort: float
) -> None:
    for seed in range(3):
        layer = filled(kind(4, 6, **options), seed)
        bound = lipschitz_bound(layer, effort=effort).bound
        assert bound >= operator_norm(layer, 4, *size)
        shaped = lipschitz_bound(layer, shape=(4, *size), effort=effort).bound
        assert operator_norm(layer, 4, *size) <= shaped <= bound * (1 + 1e-9)
        if options.get("padding_mode", "zeros") == "zeros":
            assert bound < frobenius_bound(layer)


def test_the_bound_is_close_on_large_inputs() -> None:
    for options in ({"padding": 1}, {"padding": 1, "stride": 2}, {"padding": 2, "dilation": 2}):
        layer = filled(nn.Conv2d(2, 2, 3, **options))
        truth = operator_norm(layer, 2, 20, 20)
        assert truth <= lipschitz_bound(layer).bound <= 1.08 * truth
        assert lipschitz_bound(layer, effort=0).bound > 1.08 * truth


def test_the_norm_of_the_reshaped_kernel_is_not_that_of_the_convolution() -> None:
    layer = filled(nn.Conv2d(2, 2, 3, padding=1))
    nn.init.ones_(layer.weight)
    truth = operator_norm(layer, 2, 12, 12)
    assert number(spectral_norm(layer.weight.flatten(1))) < 0.4 * truth
    assert truth <= lipschitz_bound(layer).bound == pytest.approx(18, rel=1e-9)


def test_more_effort_never_loosens() -> None:
    for seed in range(5):
        kernel = normal(5, 4, 3, 3, seed=seed)
        bounds = [
            number(convolution_bound(kernel, stride=(1, 1), dilation=(1, 1), effort=effort))
            for effort in (0, 1e4, 1e5, 1e6, 1e8)
        ]
        assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(bounds))
        assert bounds[-1] < bounds[0]


def test_a_convolution_that_covers_its_input_is_a_linear_layer_once_the_shape_is_known() -> None:
    layer = filled(nn.Conv2d(3, 2, 4))
    exact = number(torch.linalg.matrix_norm(layer.weight.flatten(1), 2))
    assert lipschitz_bound(layer, shape=(3, 4, 4)).bound == pytest.approx(exact, rel=1e-9)
    assert lipschitz_bound(layer).bound > 1.2 * exact
    up = filled(nn.ConvTranspose2d(3, 2, 4))
    flat = up.weight.flatten(1)
    assert lipschitz_bound(up, shape=(3, 1, 1)).bound == pytest.approx(number(spectral_norm(flat)), rel=1e-9)


# --- elementwise functions, pooling, normalisation

ACTIVATIONS = [
    nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.2), nn.LeakyReLU(3.0), nn.PReLU(init=1.7), nn.Tanh(), nn.Hardtanh(),
    nn.Sigmoid(), nn.LogSigmoid(), nn.Softsign(), nn.Tanhshrink(), nn.Softshrink(), nn.Softplus(), nn.Softplus(beta=5),
    nn.ELU(), nn.ELU(alpha=2.5), nn.CELU(alpha=3.0), nn.SELU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Identity(),
]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_the_steepest_slope_of_an_activation(activation: nn.Module) -> None:
    x = torch.linspace(-30, 30, 600_001, dtype=DOUBLE)
    with torch.no_grad():
        y = activation.double()(x)
    slope = number((y.diff() / x.diff()).abs().max())
    bound = lipschitz_bound(activation).bound
    assert slope <= bound * (1 + 1e-8)
    assert slope >= 0.999 * bound - (0.001 if bound == 1 else 0)


def test_a_softplus_that_jumps_has_no_bound() -> None:
    assert "jumps" in str(lipschitz_bound(nn.Softplus(threshold=1.0)))


@pytest.mark.parametrize(
    ("layer", "shape", "tight"),
    [
        (nn.AvgPool1d(2), (1, 8), True),
        (nn.AvgPool1d(3, 1), (1, 60), True),
        (nn.AvgPool1d(3, 2, padding=1), (1, 61), True),
        (nn.AvgPool1d(3, 2, padding=1, count_include_pad=False), (1, 9), False),
        (nn.AvgPool1d(3, 2, ceil_mode=True), (1, 8), False),
        (nn.AvgPool2d(2), (2, 6, 6), True),
        (nn.AvgPool2d((3, 2), (2, 1)), (1, 15, 15), True),
        (nn.AvgPool2d(3, divisor_override=2), (1, 9, 9), True),
        (nn.AvgPool2d(2, ceil_mode=True), (1, 5, 5), False),
        (nn.AvgPool3d(2), (1, 4, 4, 4), True),
        (nn.AdaptiveAvgPool1d(1), (1, 9), True),
        (nn.AdaptiveAvgPool2d(2), (1, 6, 6), True),
        (nn.AdaptiveAvgPool2d((3, 5)), (1, 7, 4), False),
    ],
    ids=repr,
)
def test_average_pooling(layer: nn.Module, shape: tuple[int, ...], tight: bool) -> None:
    truth = operator_norm(layer, *shape)
    bound = lipschitz_bound(layer, shape=shape).bound
    assert truth <= bound * (1 + 1e-12)
    if tight:
        assert bound <= 1.1 * truth


def test_adaptive_pooling_without_a_shape() -> None:
    assert lipschitz_bound(nn.AdaptiveAvgPool2d(1)).bound == 1
    assert "shape" in str(lipschitz_bound(nn.AdaptiveAvgPool2d(3)))


@pytest.mark.parametrize(
    ("layer", "bound"), [(nn.MaxPool2d(2), 1.0), (nn.MaxPool2d(3, 2), 2.0), (nn.MaxPool1d(3, 1), 3**0.5)]
)
def test_max_pooling_counts_the_windows_a_value_lies_in(layer: nn.Module, bound: float) -> None:
    assert lipschitz_bound(layer).bound == pytest.approx(bound)
    zeros = (
        torch.zeros(1, 1, 9, 9, dtype=DOUBLE) if isinstance(layer, nn.MaxPool2d) else torch.zeros(1, 1, 9, dtype=DOUBLE)
    )
    spike = zeros.clone()
    spike[(..., *[4] * (zeros.dim() - 2))] = 1
    assert number((layer(spike) - layer(zeros)).norm()) == pytest.approx(bound)


def test_batch_norm_has_a_bound_in_evaluation_mode_only() -> None:
    layer = filled(nn.BatchNorm1d(5))
    assert isinstance(layer.running_var, Tensor)
    layer.running_var.copy_(normal(5, seed=3).square())
    training = lipschitz_bound(nn.Sequential(nn.Linear(5, 5).double(), layer))
    assert math.isinf(training.bound)
    assert training.unbounded[0].startswith("1 (BatchNorm1d)")
    layer.eval()
    assert lipschitz_bound(layer).bound == pytest.approx(operator_norm(layer, 5), rel=1e-12)
    assert lipschitz_bound(layer).bound >= operator_norm(layer, 5)
    forgetful = nn.BatchNorm1d(5, track_running_stats=False).eval()
    assert math.isinf(lipschitz_bound(forgetful).bound)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.LayerNorm(6, eps=1e-3), (6,)),
        (nn.GroupNorm(2, 4, eps=1e-3), (4, 3)),
        (nn.InstanceNorm1d(2, affine=True), (2, 5)),
    ],
)
def test_norms_within_a_sample_are_bounded_and_the_bound_is_approached(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    layer = layer.double()
    nn.init.constant_(layer.weight, -2.0)
    bound = lipschitz_bound(layer).bound
    assert bound == pytest.approx(2 / math.sqrt(layer.eps))
    for seed, spread in itertools.product(range(20), (1e-6, 1e-2, 1.0)):
        x, step = spread * normal(1, *shape, seed=seed), 1e-6 * normal(1, *shape, seed=seed + 100)
        slope = number((layer(x + step) - layer(x)).norm() / step.norm())
        assert slope <= bound
    step = step - step.mean(-1, keepdim=True)
    flat = torch.zeros_like(step)
    assert number((layer(step) - layer(flat)).norm() / step.norm()) == pytest.approx(bound, rel=1e-3)


def test_normalisation_without_a_floor_has_no_bound() -> None:
    assert "eps is 0" in str(lipschitz_bound(nn.LayerNorm(3, eps=0)))


def test_dropout() -> None:
    assert lipschitz_bound(nn.Dropout(0.75)).bound == pytest.approx(4)
    assert lipschitz_bound(nn.Dropout(0.75).eval()).bound == 1


# --- whole modules


def test_a_network_is_never_steeper_than_its_certificate() -> None:
    critic = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 6, 4, 2, 1), nn.LeakyReLU(0.2), nn.AvgPool2d(2), nn.Flatten(),
        nn.Sequential(nn.Linear(24, 16), nn.Softplus()), nn.Linear(16, 1), nn.Flatten(0),
    )  # fmt: skip
    critic = filled(critic)
    certificate = lipschitz_bound(critic, shape=(64,))
    assert certificate.bound == pytest.approx(math.prod(factor.bound for factor in certificate.factors), rel=1e-12)
    assert [factor.name for factor in certificate.factors][4:7] == ["4", "5.0", "5.1"]
    x = normal(200, 64)
    slopes = torch.func.vmap(torch.func.grad(lambda one: critic(one[None]).sum()))(x).norm(dim=1)
    assert 0 < number(slopes.max()) <= certificate.bound


def test_a_linear_network_has_the_product_of_its_norms() -> None:
    critic = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    critic[0].weight.data = torch.tensor([[3.0, 0.0], [4.0, 5.0]])
    critic[2].weight.data = torch.tensor([[3.0, 4.0]])
    certificate = lipschitz_bound(critic)
    assert certificate.bound == pytest.approx(5 * 6.70820393, rel=1e-8)
    assert str(certificate).splitlines()[0] == "Lipschitz constant at most 33.541"
    assert lipschitz_bound(nn.Sequential()).bound == 1


def test_the_module_and_the_global_generator_are_left_as_they_were() -> None:
    spectral = parametrizations.spectral_norm(nn.Linear(4, 4))
    critic = nn.Sequential(spectral, nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 1)).train()
    before, state = copy.deepcopy(critic.state_dict()), torch.get_rng_state()
    lipschitz_bound(critic, shape=(4,))
    assert all(torch.equal(value, before[key]) for key, value in critic.state_dict().items())
    assert all(module.training for module in critic.modules())
    assert not any(module._forward_hooks for module in critic.modules())
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in critic.parameters())


def test_a_parametrised_layer_counts_with_the_weight_it_uses() -> None:
    layer = parametrizations.weight_norm(nn.Linear(3, 2, dtype=DOUBLE))
    certificate = lipschitz_bound(nn.Sequential(layer))
    assert certificate.bound == pytest.approx(number(torch.linalg.matrix_norm(layer.weight, 2)), rel=1e-10)
    assert str(certificate).endswith("0 (Linear)")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        spectral = parametrizations.spectral_norm(nn.Linear(9, 9, dtype=DOUBLE), n_power_iterations=1)
    now = torch.linalg.matrix_norm(copy.deepcopy(spectral).eval().weight, 2)
    assert lipschitz_bound(spectral).bound == pytest.approx(number(now), rel=1e-10)


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square()


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_a_layer_without_a_bound_is_named_with_the_reason() -> None:
    broken = nn.Linear(2, 2)
    nn.init.constant_(broken.weight, math.nan)
    hooked = nn.Linear(2, 2)
    hooked.register_forward_hook(lambda module, inputs, out: 10 * out)
    critic = nn.Sequential(nn.Linear(2, 2), Squared(), Doubled(2, 2), broken, hooked, nn.Bilinear(2, 2, 1))
    certificate = lipschitz_bound(critic)
    assert math.isinf(certificate.bound)
    for part in (
        "1 (Squared): there is no rule", "2 (Doubled): it overrides", "3 (Linear): its weights are not finite",
        "4 (Linear): it has forward hooks", "5 (Bilinear): there is no rule",
    ):  # fmt: skip
        assert any(reason.startswith(part) for reason in certificate.unbounded), part
    assert len(certificate.unbounded) == 5
    assert math.isfinite(certificate.factors[0].bound)


def test_a_layer_after_zero_weights_still_has_no_bound() -> None:
    zero = nn.Linear(2, 2)
    nn.init.zeros_(zero.weight)
    assert lipschitz_bound(zero).bound == 0
    assert math.isinf(lipschitz_bound(nn.Sequential(zero, Squared())).bound)


class Residual(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


def test_a_plugin_registers_a_rule_that_asks_for_its_parts() -> None:
    block = nn.Sequential(filled(nn.Linear(3, 3)), nn.Tanh())
    assert "no rule for Residual" in str(lipschitz_bound(Residual(block)))

    @lipschitz_rule.register
    def _(layer: Residual, bound: Callable[[nn.Module], float]) -> float:
        return 1 + bound(layer.block)

    expected = 1 + lipschitz_bound(block).bound
    assert lipschitz_bound(nn.Sequential(Residual(block))).bound == pytest.approx(expected, rel=1e-12)
    broken = lipschitz_bound(nn.Sequential(Residual(nn.Sequential(Squared()))))
    assert broken.unbounded[0].startswith("0.block.0 (Squared)")
    assert len(broken.unbounded) == 1


class Wrapped(nn.Module):
    def __init__(self, answer: object) -> None:
        super().__init__()
        self.body, self.head, self.answer = filled(nn.Linear(3, 2)), filled(nn.Linear(2, 1)), answer

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def lipschitz_rule(self, bound: Callable[[nn.Module], float]) -> object:
        return [self.body, self.head] if self.answer == "chain" else self.answer


def test_a_module_brings_its_own_rule() -> None:
    chain = lipschitz_bound(Wrapped("chain"))
    assert [factor.name for factor in chain.factors] == ["body", "head"]
    assert chain.bound == pytest.approx(math.prod(factor.bound for factor in chain.factors))
    assert lipschitz_bound(Wrapped(2.5)).bound == 2.5
    assert lipschitz_bound(Wrapped("it is cubic")).unbounded == ("Wrapped: it is cubic",)
    assert "no limit" in str(lipschitz_bound(Wrapped(math.inf)))


def test_a_shape_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="does not run"):
        lipschitz_bound(nn.Linear(3, 2), shape=(4,))
