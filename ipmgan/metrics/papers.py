"""The papers that the metrics come from."""

from __future__ import annotations

from ipmgan.references import Reference

_NEURIPS = "Advances in Neural Information Processing Systems"

BONNEEL_DISPLACEMENT = Reference(
    key="bonneel2011displacement",
    title="Displacement Interpolation Using Lagrangian Mass Transport",
    authors=("Nicolas Bonneel", "Michiel van de Panne", "Sylvain Paris", "Wolfgang Heidrich"),
    year=2011,
    venue="ACM Transactions on Graphics",
)
SALIMANS = Reference(
    key="salimans2016improved",
    title="Improved Techniques for Training GANs",
    authors=("Tim Salimans", "Ian Goodfellow", "Wojciech Zaremba", "Vicki Cheung", "Alec Radford", "Xi Chen"),
    year=2016,
    venue=_NEURIPS,
    arxiv="1606.03498",
)
TTUR = Reference(
    key="heusel2017gans",
    title="GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",
    authors=("Martin Heusel", "Hubert Ramsauer", "Thomas Unterthiner", "Bernhard Nessler", "Sepp Hochreiter"),
    year=2017,
    venue=_NEURIPS,
    arxiv="1706.08500",
)
KID = Reference(
    key="binkowski2018demystifying",
    title="Demystifying MMD GANs",
    authors=("Mikołaj Bińkowski", "Danica J. Sutherland", "Michael Arbel", "Arthur Gretton"),
    year=2018,
    venue="International Conference on Learning Representations",
    arxiv="1801.01401",
)
PRECISION_RECALL = Reference(
    key="kynkaanniemi2019improved",
    title="Improved Precision and Recall Metric for Assessing Generative Models",
    authors=("Tuomas Kynkäänniemi", "Tero Karras", "Samuli Laine", "Jaakko Lehtinen", "Timo Aila"),
    year=2019,
    venue=_NEURIPS,
    arxiv="1904.06991",
)
DENSITY_COVERAGE = Reference(
    key="naeem2020reliable",
    title="Reliable Fidelity and Diversity Metrics for Generative Models",
    authors=("Muhammad Ferjad Naeem", "Seong Joon Oh", "Youngjung Uh", "Yunjey Choi", "Jaejun Yoo"),
    year=2020,
    venue="International Conference on Machine Learning",
    arxiv="2002.09797",
)
TWO_SAMPLE = Reference(
    key="lopezpaz2017revisiting",
    title="Revisiting Classifier Two-Sample Tests",
    authors=("David Lopez-Paz", "Maxime Oquab"),
    year=2017,
    venue="International Conference on Learning Representations",
    arxiv="1610.06545",
)
UNROLLED = Reference(
    key="metz2017unrolled",
    title="Unrolled Generative Adversarial Networks",
    authors=("Luke Metz", "Ben Poole", "David Pfau", "Jascha Sohl-Dickstein"),
    year=2017,
    venue="International Conference on Learning Representations",
    arxiv="1611.02163",
)
VEEGAN = Reference(
    key="srivastava2017veegan",
    title="VEEGAN: Reducing Mode Collapse in GANs using Implicit Variational Learning",
    authors=("Akash Srivastava", "Lazar Valkov", "Chris Russell", "Michael U. Gutmann", "Charles Sutton"),
    year=2017,
    venue=_NEURIPS,
    arxiv="1705.07761",
)
DATA_COPYING = Reference(
    key="meehan2020nonparametric",
    title="A Non-Parametric Test to Detect Data-Copying in Generative Models",
    authors=("Casey Meehan", "Kamalika Chaudhuri", "Sanjoy Dasgupta"),
    year=2020,
    venue="International Conference on Artificial Intelligence and Statistics",
    arxiv="2004.05675",
)
