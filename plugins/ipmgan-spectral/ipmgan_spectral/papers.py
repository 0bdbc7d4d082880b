"""The papers behind the enforcers."""

from __future__ import annotations

from ipmgan import Reference

SPECTRAL = Reference(
    key="miyato2018spectral",
    title="Spectral Normalization for Generative Adversarial Networks",
    authors=("Takeru Miyato", "Toshiki Kataoka", "Masanori Koyama", "Yuichi Yoshida"),
    year=2018,
    venue="International Conference on Learning Representations",
    arxiv="1802.05957",
)
CONVOLUTIONS = Reference(
    key="sedghi2019singular",
    title="The Singular Values of Convolutional Layers",
    authors=("Hanie Sedghi", "Vineet Gupta", "Philip M. Long"),
    year=2019,
    venue="International Conference on Learning Representations",
    arxiv="1805.10408",
)
SORTING = Reference(
    key="anil2019sorting",
    title="Sorting out Lipschitz function approximation",
    authors=("Cem Anil", "James Lucas", "Roger Grosse"),
    year=2019,
    venue="International Conference on Machine Learning",
    arxiv="1811.05381",
)
BJORCK = Reference(
    key="bjorck1971iterative",
    title="An Iterative Algorithm for Computing the Best Estimate of an Orthogonal Matrix",
    authors=("Åke Björck", "Clazett Bowie"),
    year=1971,
    venue="SIAM Journal on Numerical Analysis",
)
CHEAP = Reference(
    key="lezcano2019cheap",
    title="Cheap Orthogonal Constraints in Neural Networks",
    authors=("Mario Lezcano-Casado", "David Martínez-Rubio"),
    year=2019,
    venue="International Conference on Machine Learning",
    arxiv="1901.08428",
)
DEEL = Reference(
    key="serrurier2021achieving",
    title="Achieving Robustness in Classification Using Optimal Transport With Hinge Regularization",
    authors=(
        "Mathieu Serrurier",
        "Franck Mamalet",
        "Alberto González-Sanz",
        "Thibaut Boissin",
        "Jean-Michel Loubes",
        "Eustasio del Barrio",
    ),
    year=2021,
    venue="Conference on Computer Vision and Pattern Recognition",
    arxiv="2006.06520",
)
