"""The papers that the built-in plugins implement, each once; `ipmgan cite` prints those that a run used."""

from __future__ import annotations

import attrs

PROCEEDINGS = ("Conference", "Advances in", "Proceedings", "Symposium", "Workshop")


@attrs.frozen(kw_only=True)
class Reference:
    """A publication.

    >>> print(WGAN.short)
    Arjovsky, Chintala and Bottou (2017), Wasserstein GAN
    """

    key: str
    title: str
    authors: tuple[str, ...]
    year: int
    venue: str
    arxiv: str = ""

    @property
    def short(self) -> str:
        """Surnames, year and title on one line."""
        surnames = [author.rsplit(" ", 1)[-1] for author in self.authors]
        names = surnames[0] if len(surnames) == 1 else f"{', '.join(surnames[:-1])} and {surnames[-1]}"
        if len(surnames) > 4:
            names = f"{surnames[0]} et al."
        return f"{names} ({self.year}), {self.title}"

    def bibtex(self) -> str:
        """The BibTeX entry: in proceedings, a preprint, or an article where the venue is neither."""
        kind, place = "article", "journal"
        if any(word in self.venue for word in PROCEEDINGS):
            kind, place = "inproceedings", "booktitle"
        elif "preprint" in self.venue:
            kind, place = "misc", "howpublished"
        fields = {
            "title": f"{{{self.title}}}",
            "author": " and ".join(self.authors),
            "year": str(self.year),
            place: self.venue,
        }
        if self.arxiv:
            fields |= {"eprint": self.arxiv, "archiveprefix": "arXiv"}
        body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@{kind}{{{self.key},\n{body}\n}}"


WGAN = Reference(
    key="arjovsky2017wasserstein",
    title="Wasserstein GAN",
    authors=("Martin Arjovsky", "Soumith Chintala", "Léon Bottou"),
    year=2017,
    venue="International Conference on Machine Learning",
    arxiv="1701.07875",
)
PRINCIPLED = Reference(
    key="arjovsky2017towards",
    title="Towards Principled Methods for Training Generative Adversarial Networks",
    authors=("Martin Arjovsky", "Léon Bottou"),
    year=2017,
    venue="International Conference on Learning Representations",
    arxiv="1701.04862",
)
INSTANCE_NOISE = Reference(
    key="sonderby2017amortised",
    title="Amortised MAP Inference for Image Super-resolution",
    authors=("Casper Kaae Sønderby", "Jose Caballero", "Lucas Theis", "Wenzhe Shi", "Ferenc Huszár"),
    year=2017,
    venue="International Conference on Learning Representations",
    arxiv="1610.04490",
)
WGAN_GP = Reference(
    key="gulrajani2017improved",
    title="Improved Training of Wasserstein GANs",
    authors=("Ishaan Gulrajani", "Faruk Ahmed", "Martin Arjovsky", "Vincent Dumoulin", "Aaron Courville"),
    year=2017,
    venue="Advances in Neural Information Processing Systems",
    arxiv="1704.00028",
)
WAE = Reference(
    key="tolstikhin2018wasserstein",
    title="Wasserstein Auto-Encoders",
    authors=("Ilya Tolstikhin", "Olivier Bousquet", "Sylvain Gelly", "Bernhard Schölkopf"),
    year=2018,
    venue="International Conference on Learning Representations",
    arxiv="1711.01558",
)
GAN = Reference(
    key="goodfellow2014generative",
    title="Generative Adversarial Nets",
    authors=(
        "Ian Goodfellow",
        "Jean Pouget-Abadie",
        "Mehdi Mirza",
        "Bing Xu",
        "David Warde-Farley",
        "Sherjil Ozair",
        "Aaron Courville",
        "Yoshua Bengio",
    ),
    year=2014,
    venue="Advances in Neural Information Processing Systems",
    arxiv="1406.2661",
)
DCGAN = Reference(
    key="radford2016unsupervised",
    title="Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks",
    authors=("Alec Radford", "Luke Metz", "Soumith Chintala"),
    year=2016,
    venue="International Conference on Learning Representations",
    arxiv="1511.06434",
)
EBGAN = Reference(
    key="zhao2017energy",
    title="Energy-based Generative Adversarial Networks",
    authors=("Junbo Zhao", "Michael Mathieu", "Yann LeCun"),
    year=2017,
    venue="International Conference on Learning Representations",
    arxiv="1609.03126",
)
GMMN = Reference(
    key="li2015generative",
    title="Generative Moment Matching Networks",
    authors=("Yujia Li", "Kevin Swersky", "Richard Zemel"),
    year=2015,
    venue="International Conference on Machine Learning",
    arxiv="1502.02761",
)
MMD_GAN = Reference(
    key="li2017mmd",
    title="MMD GAN: Towards Deeper Understanding of Moment Matching Network",
    authors=("Chun-Liang Li", "Wei-Cheng Chang", "Yu Cheng", "Yiming Yang", "Barnabás Póczos"),
    year=2017,
    venue="Advances in Neural Information Processing Systems",
    arxiv="1705.08584",
)
KERNEL_TEST = Reference(
    key="gretton2012kernel",
    title="A Kernel Two-Sample Test",
    authors=("Arthur Gretton", "Karsten Borgwardt", "Malte Rasch", "Bernhard Schölkopf", "Alexander Smola"),
    year=2012,
    venue="Journal of Machine Learning Research",
)
SLICED = Reference(
    key="bonneel2015sliced",
    title="Sliced and Radon Wasserstein Barycenters of Measures",
    authors=("Nicolas Bonneel", "Julien Rabin", "Gabriel Peyré", "Hanspeter Pfister"),
    year=2015,
    venue="Journal of Mathematical Imaging and Vision",
)
