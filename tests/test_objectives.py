"""The objectives: exact optima of their games, gradients, orientation, and what numbers they say they estimate."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import attrs
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ipmgan import functional as fn
from ipmgan import objectives
from ipmgan.errors import PairingError, UsageError
from ipmgan.objectives import EBGAN, MMD, WGAN, CriticKind, Minimax, NonSaturating, Objective

P_COUNTS, Q_COUNTS = torch.tensor([5, 3, 2]), torch.tensor([1, 4, 5])
GANS: list[Objective] = [Minimax(), NonSaturating()]
CRITICS: list[Objective] = [WGAN(), *GANS, EBGAN()]
EMPTY = torch.empty(0)


def law(counts: Tensor) -> Tensor:
    return counts.double() / counts.sum()


def batches(table: Tensor, p: Tensor = P_COUNTS, q: Tensor = Q_COUNTS) -> tuple[Tensor, Tensor]:
    """What a tabular critic puts out on batches that hold each point as often as p and q say."""
    return table.repeat_interleave(p), table.repeat_interleave(q)


def random_counts(seed: int) -> tuple[Tensor, Tensor]:
    p, q = torch.randint(1, 9, (2, 5), generator=torch.Generator().manual_seed(seed))
    return p, q


def trained_table(objective: Objective, p: Tensor, q: Tensor) -> Tensor:
    """A tabular critic after the critic's loss has been minimised to the end."""
    table = torch.zeros(len(p), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [table], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-13, tolerance_change=1e-16
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective.critic_loss(*batches(table, p, q))
        loss.backward()
        return loss

    optimizer.step(closure)
    return table.detach()


def each(loss: Callable[[Tensor, Tensor], Tensor], fake: Tensor) -> Tensor:
    """A generator's loss of every sample by itself, for expectations under weights."""
    return torch.vmap(lambda output: loss(EMPTY, output[None]))(fake)


def normal_grid() -> tuple[Tensor, Tensor]:
    """Points and weights with which Σ w f(z) is E f(Z) to 1e-13 for smooth f."""
    z = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    return z, torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])


# The original games


@pytest.mark.parametrize("objective", GANS, ids=lambda o: o.name)
def test_discriminator_reaches_its_optimum(objective: Objective) -> None:
    logits = trained_table(objective, P_COUNTS, Q_COUNTS)
    expected = torch.tensor([1.6094379, -0.2876821, -0.9162907], dtype=torch.float64)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    assert -objective.critic_loss(*batches(logits)).item() == pytest.approx(-1.1671611106, abs=1e-9)
    assert objective.estimate(*batches(logits)).item() == pytest.approx(0.1095666253, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_discriminator_reaches_its_optimum_on_random_laws(seed: int) -> None:
    p, q = random_counts(seed)
    logits = trained_table(Minimax(), p, q)
    torch.testing.assert_close(logits, fn.optimal_logit(law(p), law(q)), atol=1e-5, rtol=0)
    divergence = fn.js(law(p), law(q)).item()
    assert -Minimax().critic_loss(*batches(logits, p, q)).item() == pytest.approx(
        2 * divergence - 2 * math.log(2), abs=1e-9
    )
    worse = logits + torch.randn(5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert Minimax().estimate(*batches(worse, p, q)) < divergence


def test_generator_costs_at_the_optimum() -> None:
    _, fake = batches(fn.optimal_logit(law(P_COUNTS), law(Q_COUNTS)))
    assert NonSaturating().generator_loss(EMPTY, fake).item() == pytest.approx(0.9835327841, abs=1e-10)
    assert Minimax().generator_loss(EMPTY, fake).item() == pytest.approx(-0.5712583804, abs=1e-10)


def test_losses_from_logits() -> None:
    real = torch.tensor([2.0, 0.0], dtype=torch.float64)
    fake = torch.tensor([-1.0, 0.5], dtype=torch.float64)
    for objective in GANS:
        assert -objective.critic_loss(real, fake).item() == pytest.approx(-1.0537069317, abs=1e-10)
        assert objective.estimate(real, fake).item() == pytest.approx(0.1662937147, abs=1e-10)
    assert NonSaturating().generator_loss(EMPTY, fake).item() == pytest.approx(0.8936693358, abs=1e-10)
    assert Minimax().generator_loss(EMPTY, fake).item() == pytest.approx(-0.6436693358, abs=1e-10)


def test_jsd_between_shifted_normals() -> None:
    z, weight = normal_grid()
    real, fake = 0.5 - z, 0.5 - (z + 1)  # log p/q at z ~ N(0,1) and at z + 1 ~ N(1,1)
    both = torch.vmap(lambda r, f: Minimax().critic_loss(r[None], f[None]))(real, fake)
    value = -(weight @ both).item()
    assert value == pytest.approx(-1.1634513968, abs=1e-9)
    assert value / 2 + math.log(2) == pytest.approx(0.1114214822, abs=1e-9)


def test_generator_gradients_at_the_best_discriminator() -> None:
    """-log D descends KL - 2 JSD, log(1 - D) twice the JSD, for N(θ, 1) against N(0, 1) at θ = 1."""
    z, weight = normal_grid()
    gradients = []
    for objective in (NonSaturating(), Minimax()):
        theta = torch.ones((), dtype=torch.float64, requires_grad=True)
        logits = 0.5 - (z + theta)  # D* is held fixed, only its argument moves
        (weight @ each(objective.generator_loss, logits)).backward()
        assert theta.grad is not None
        gradients.append(theta.grad.item())
    assert gradients[0] == pytest.approx(0.6020271328, abs=1e-9)
    assert gradients[1] / 2 == pytest.approx(0.1989864336, abs=1e-9)


def test_generator_gradient_on_a_softmax() -> None:
    q = law(Q_COUNTS)
    theta = q.log().requires_grad_()
    costs = each(NonSaturating().generator_loss, fn.optimal_logit(law(P_COUNTS), q))
    (gradient,) = torch.autograd.grad(theta.softmax(0) @ costs, theta)
    expected = torch.tensor([-0.0801211, -0.0544940, 0.1346151], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, atol=1e-7, rtol=0)
    other = theta.softmax(0)
    divergence = fn.kl(other, law(P_COUNTS)) - 2 * fn.js(other, law(P_COUNTS))
    torch.testing.assert_close(torch.autograd.grad(divergence, theta)[0], gradient, atol=1e-12, rtol=0)


@pytest.mark.parametrize("logit", [-30.0, -200.0])
def test_the_nonsaturating_gradient_survives_a_confident_discriminator(logit: float) -> None:
    fake = torch.tensor([logit], requires_grad=True)
    (gradient,) = torch.autograd.grad(NonSaturating().generator_loss(EMPTY, fake), fake)
    assert gradient.item() == pytest.approx(-1)
    (killed,) = torch.autograd.grad(-torch.log(torch.sigmoid(fake) + 1e-8).mean(), fake)
    assert abs(killed.item()) < 1e-4
    (broken,) = torch.autograd.grad(-torch.log(torch.sigmoid(fake)).mean(), fake)
    assert logit > -100 or not torch.isclose(broken, torch.tensor(-1.0))


def test_minimax_saturates_as_it_should() -> None:
    """It is log(1 - D), not -log D under another name."""
    fake = torch.tensor([-30.0], dtype=torch.float64, requires_grad=True)
    loss = Minimax().generator_loss(EMPTY, fake)
    (gradient,) = torch.autograd.grad(loss, fake)
    assert gradient.item() == pytest.approx(-math.exp(-30), rel=1e-9)
    assert loss.item() == pytest.approx(-math.exp(-30), rel=1e-9)


@pytest.mark.parametrize("objective", GANS, ids=lambda o: o.name)
def test_a_confident_wrong_discriminator_pays_linearly(objective: Objective) -> None:
    real, fake = torch.tensor([-300.0], requires_grad=True), torch.tensor([300.0], requires_grad=True)
    loss = objective.critic_loss(real, fake)
    assert loss.item() == pytest.approx(600)
    assert [g.item() for g in torch.autograd.grad(loss, (real, fake))] == [-1, 1]
    assert objective.estimate(real, fake).item() == pytest.approx(math.log(2) - 300)


def test_the_nonsaturating_gradient_scatters_like_a_cauchy_variable() -> None:
    """Theorem 2.6 at its instance; the bounds on the sample's quantiles are five standard errors wide."""
    draws, n, slope_std, output_std = 100_000, 64, 2.0, 0.5
    scale = fn.nonsaturating_gradient_scale(torch.ones(n, 1, 1, dtype=torch.float64), slope_std, output_std).item()
    assert scale == 4
    rng = torch.Generator().manual_seed(0)
    theta = torch.zeros(draws, requires_grad=True, dtype=torch.float64)
    slopes = slope_std * torch.randn(draws, n, generator=rng, dtype=torch.float64)
    outputs = output_std * torch.randn(draws, n, generator=rng, dtype=torch.float64)
    discriminated = outputs + slopes * theta[:, None]  # samples z + theta, where D is 0 but for its noise
    (-discriminated.abs().log()).mean(1).sum().backward()
    gradient = theta.grad
    assert gradient is not None
    assert gradient.abs().median().item() == pytest.approx(4, abs=5 * math.pi * scale / 2 / math.sqrt(draws))
    quartiles = gradient.quantile(torch.tensor([0.25, 0.75], dtype=torch.float64))
    assert quartiles.diff().item() == pytest.approx(8, abs=0.25)
    tail = (gradient.abs() > 10 * scale).double().mean().item()
    assert tail == pytest.approx(0.0634510349, abs=0.004)


def test_the_scale_of_the_nonsaturating_gradient_is_a_mean_of_norms() -> None:
    jacobian = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.stack([jacobian[:, k].square().sum(1).sqrt().mean() for k in range(3)]) * 4
    torch.testing.assert_close(fn.nonsaturating_gradient_scale(jacobian, 2.0, 0.5), expected)
    with pytest.raises(UsageError, match=r"\(samples, weights, coordinates\)"):
        fn.nonsaturating_gradient_scale(jacobian[0], 2.0, 0.5)
    with pytest.raises(UsageError, match="output_std"):
        fn.nonsaturating_gradient_scale(jacobian, 2.0, 0.0)


# EBGAN


def test_energies_reach_their_optimum() -> None:
    """L_D is piecewise linear in each energy with its kinks at 0 and m, so one of those corners is its minimum."""
    objective = EBGAN()
    corners = [torch.tensor(c, dtype=torch.float64) for c in itertools.product((0.0, 10.0), repeat=3)]
    best = min(corners, key=lambda table: objective.critic_loss(*batches(table)).item())
    real, fake = batches(best)
    assert objective.critic_loss(real, fake) == 6
    assert objective.generator_loss(EMPTY, fake) - real.mean() == 4
    assert objective.generator_loss(EMPTY, fake) == 9
    assert objective.estimate(real, fake).item() == pytest.approx(0.4)
    between = 20 * torch.rand(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert min(objective.critic_loss(*batches(table)).item() for table in between) > 6


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("margin", [1.0, 32.0])
def test_energies_estimate_total_variation(seed: int, margin: float) -> None:
    p, q = random_counts(seed)
    best = margin * (law(p) < law(q)).double()
    estimate = EBGAN(margin=margin).estimate(*batches(best, p, q)).item()
    assert estimate == pytest.approx(fn.total_variation(law(p), law(q)).item(), abs=1e-12)


def test_the_hinge_is_on_each_sample() -> None:
    real, fake = torch.zeros(2), torch.tensor([0.0, 20.0])
    assert EBGAN().critic_loss(real, fake) == 5
    assert F.relu(10 - fake.mean()) == 0


def test_margin_is_a_positive_number_of_ten() -> None:
    assert EBGAN().margin == 10
    with pytest.raises(UsageError, match="margin"):
        EBGAN(margin=0)


def test_pulling_away_is_exact() -> None:
    codes = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = [F.cosine_similarity(codes[i], codes[j], dim=0).item() for i, j in itertools.permutations(range(6), 2)]
    value = fn.pulling_away(codes).item()
    assert value == pytest.approx(sum(c * c for c in pairs) / 30, rel=1e-12)
    wrong = {
        "unsquared": sum(pairs) / 30,
        "with the diagonal": (sum(c * c for c in pairs) + 6) / 36,
        "normalised along the batch": (F.normalize(codes, dim=0) @ F.normalize(codes, dim=0).T)
        .fill_diagonal_(0)
        .square()
        .sum()
        .item()
        / 30,
    }
    for name, other in wrong.items():
        assert value != pytest.approx(other, rel=1e-3), name


def test_pulling_away_at_its_ends() -> None:
    assert fn.pulling_away(torch.eye(4)) == 0
    assert fn.pulling_away(torch.ones(4, 2)).item() == pytest.approx(1)
    codes = torch.zeros(3, 2, requires_grad=True)
    fn.pulling_away(codes).backward()
    assert codes.grad is not None
    assert torch.equal(codes.grad, torch.zeros(3, 2))
    tiny = torch.full((2, 2), 1e-15)
    assert fn.pulling_away(tiny).item() == pytest.approx(1)
    with pytest.raises(UsageError, match="at least 2"):
        fn.pulling_away(torch.ones(1, 2))


def test_pulling_away_joins_the_generator_only() -> None:
    output = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    plain, pulled = EBGAN(), EBGAN(pulling_away=0.1)
    assert (plain.needs_code, pulled.needs_code) == (False, True)
    energy = output[:, 0]
    assert pulled.critic_loss(output, output) == plain.critic_loss(energy, energy)
    assert plain.generator_loss(EMPTY, output) == energy.mean()
    expected = energy.mean() + 0.1 * fn.pulling_away(output[:, 1:])
    torch.testing.assert_close(pulled.generator_loss(EMPTY, output), expected)
    for codeless in (energy, output[:, :1]):
        with pytest.raises(PairingError, match="autoencoder"):
            pulled.generator_loss(EMPTY, codeless)


# WGAN


def test_wgan_reads_distances_off_optimal_critics() -> None:
    z = torch.rand(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shift = torch.tensor([3.0, 4.0], dtype=torch.float64)
    critic = -shift / 5
    assert WGAN().estimate(z @ critic, (z + shift) @ critic).item() == pytest.approx(5, abs=1e-12)
    lines = torch.stack([torch.full((64,), 0.7, dtype=torch.float64), z[:, 1]], 1)
    real = lines * torch.tensor([0.0, 1.0])
    assert WGAN().estimate(-real[:, 0], -lines[:, 0]).item() == pytest.approx(0.7, abs=1e-12)


def test_wgan_gradient_is_that_of_w1() -> None:
    z = torch.randn(32, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theta = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    critic = -theta.detach() / 5
    (gradient,) = torch.autograd.grad(WGAN().generator_loss(EMPTY, (z + theta) @ critic), theta)
    torch.testing.assert_close(gradient, torch.tensor([0.6, 0.8], dtype=torch.float64))
    grid, weight = normal_grid()
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    loss = weight @ each(WGAN().generator_loss, -(scale * grid).abs())
    assert torch.autograd.grad(loss, scale)[0].item() == pytest.approx(0.7978845608, abs=1e-5)


def test_wgan_is_one_number_with_two_signs() -> None:
    real, fake = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    assert WGAN().critic_loss(real, fake) == -WGAN().estimate(real, fake)


# MMD


@pytest.mark.parametrize(
    ("objective", "value"),
    [
        (MMD(widths=(1.0,), estimator="biased"), 0.1967346701),
        (MMD(widths=(1.0,)), -0.4323323584),
        (MMD(kernel="imq", widths=(2.0,), estimator="biased"), 1 / 6),
        (MMD(kernel="imq", widths=(2.0,)), -1 / 3),
        (MMD(kernel="gmmn", estimator="biased"), 0.2042375856),
        (MMD(kernel="gmmn", estimator="root"), 0.4519265268),
    ],
)
def test_mmd_values(objective: MMD, value: float) -> None:
    real = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    fake = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
    heavier = attrs.evolve(objective, weight=1000.0)
    assert objective.estimate(real, fake).item() == pytest.approx(value, abs=1e-10)
    assert heavier.estimate(real, fake).item() == pytest.approx(value, abs=1e-10)
    assert heavier.generator_loss(real, fake).item() == pytest.approx(1000 * value, abs=1e-7)
    assert heavier.critic_loss(real, fake).item() == pytest.approx(-1000 * value, abs=1e-7)


@pytest.mark.parametrize("estimator", fn.ESTIMATORS)
@pytest.mark.parametrize("kernel", fn.KERNELS)
def test_mmd_descends(kernel: str, estimator: str) -> None:
    """A step of the generator against its gradient brings shifted samples closer; a critic's step moves them apart."""
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(64, 3, generator=generator, dtype=torch.float64)
    shift = torch.ones(3, dtype=torch.float64, requires_grad=True)
    objective = MMD(kernel=kernel, estimator=estimator)
    noise = torch.randn(64, 3, generator=generator, dtype=torch.float64)
    value = objective.estimate(real, noise + shift)
    (pull,) = torch.autograd.grad(objective.generator_loss(real, noise + shift), shift)
    (push,) = torch.autograd.grad(objective.critic_loss(real, noise + shift), shift)
    assert objective.estimate(real, noise + shift - 0.1 * pull / pull.norm()) < value
    assert objective.estimate(real, noise + shift - 0.1 * push / push.norm()) > value


def test_mmd_widths() -> None:
    assert MMD().kernel_widths(7) == (1, 2, 4, 8, 16)
    assert MMD(kernel="gmmn").kernel_widths(7) == (2, 5, 10, 20, 40, 80)
    assert MMD(kernel="imq").kernel_widths(8) == tuple(16 * s for s in fn.IMQ_SCALES)
    assert MMD(kernel="imq", widths=(16.0,)).kernel_widths(8) == (16,)
    scaled = MMD(kernel="imq", widths=(16.0,), scales=fn.IMQ_SCALES)
    assert scaled.kernel_widths(3) == MMD(kernel="imq").kernel_widths(8)
    with pytest.raises(UsageError, match="widths"):
        MMD(widths=(1.0, 0.0))


def test_mmd_refuses_unknown_names() -> None:
    with pytest.raises(UsageError, match="did you mean 'imq'"):
        MMD(kernel="imqq")
    with pytest.raises(UsageError, match="estimator"):
        MMD(estimator="unbiased-root")


def test_mmd_root_is_finite_where_the_u_statistic_is_negative() -> None:
    real, fake = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]], requires_grad=True)
    assert MMD(widths=(1.0,)).estimate(real, fake) < 0
    loss = MMD(widths=(1.0,), estimator="root").generator_loss(real, fake)
    assert loss > 0
    assert torch.isfinite(torch.autograd.grad(loss, fake)[0]).all()


# All of them


@pytest.mark.parametrize("objective", CRITICS, ids=lambda o: o.name)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_types_of_losses(objective: Objective, dtype: torch.dtype) -> None:
    real, fake = torch.rand(2, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = torch.promote_types(dtype, torch.float32)
    for loss in (objective.critic_loss, objective.generator_loss, objective.estimate):
        assert loss(real, fake).dtype == expected
        assert loss(real, fake).shape == ()


def test_builtin() -> None:
    assert (WGAN, Minimax, NonSaturating, EBGAN, MMD) == objectives.BUILTIN
    assert [o.name for o in objectives.BUILTIN] == ["wgan", "minimax", "nonsaturating", "ebgan", "mmd"]
    assert NonSaturating.aliases == ("nsgan",)
    kinds = [CriticKind.SCORE, CriticKind.LOGIT, CriticKind.LOGIT, CriticKind.ENERGY, CriticKind.NONE]
    assert [o.critic for o in objectives.BUILTIN] == kinds
    assert [o.needs_lipschitz for o in objectives.BUILTIN] == [True, False, False, False, False]
    assert [o.generator_uses_real for o in objectives.BUILTIN] == [False, False, False, False, True]
    assert (MMD.whole_batch, MMD.min_batch) == (True, 2)


def test_paper_defaults() -> None:
    rmsprop, adam = "RMSprop:lr=5e-5", "Adam:lr=2e-4,betas=[0.5,0.999]"
    assert WGAN.defaults.settings() == {
        "batch": 64, "n_critic": 5, "generator_optimizer": rmsprop, "critic_optimizer": rmsprop,
    }  # fmt: skip
    gan = {"batch": 64, "n_critic": 1, "generator_optimizer": adam, "critic_optimizer": adam}
    assert Minimax.defaults.settings() == NonSaturating.defaults.settings() == gan
    assert EBGAN.defaults.critic == "autoencoder"
    assert EBGAN.defaults.critic_optimizer == "Adam:lr=1e-3"
