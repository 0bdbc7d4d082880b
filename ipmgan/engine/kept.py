"""What plugins keep between steps, as the engine holds it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ipmgan.errors import PluginError


class Kept(nn.Module):
    """Tensors that a plugin keeps between steps, as buffers: saved, restored, compiled and stacked as those are."""

    def __init__(self, start: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in start.items():
            self.register_buffer(name, tensor.detach().clone())

    def table(self) -> dict[str, Tensor]:
        """The tensors as they are now; what moves next does not move these."""
        return {name: buffer.clone() for name, buffer in self.named_buffers()}

    def move(self, to: Mapping[str, Tensor], plugin: str) -> None:
        """Take over new values; raises `PluginError`, naming the plugin, for others than it declared."""
        declared = {name: tuple(buffer.shape) for name, buffer in self.named_buffers()}
        found = {name: tuple(tensor.shape) for name, tensor in to.items()}
        if declared != found:
            raise PluginError(f"{plugin} declared the state {declared}, and after a step returns {found}")
        for name, buffer in self.named_buffers():
            buffer.copy_(to[name].detach())
