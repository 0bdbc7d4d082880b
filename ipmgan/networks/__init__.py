"""Network families: each makes a generator, a critic or both for a given sample."""

from __future__ import annotations

from ipmgan.networks.autoencoder import AutoEncoder, ReconstructionEnergy
from ipmgan.networks.base import Network
from ipmgan.networks.dcgan import DCGAN
from ipmgan.networks.dcgan_constant import DCGANConstant
from ipmgan.networks.layers import Interval
from ipmgan.networks.mlp import MLP

BUILTIN: tuple[type[Network], ...] = (MLP, DCGAN, DCGANConstant, AutoEncoder)

__all__ = ["BUILTIN", "DCGAN", "MLP", "AutoEncoder", "DCGANConstant", "Interval", "Network", "ReconstructionEnergy"]
