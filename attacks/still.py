"""A model made still: what attacks that run it over and over work on."""

import copy

from torch import nn


def still_copy(model: nn.Module) -> tuple[nn.Module, bool]:
    """A copy in the same mode that neither draws random masks nor writes BatchNorm statistics; whether it drew."""
    copied = copy.deepcopy(model)
    dropped = False
    for module in copied.modules():
        if module.training and isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
            dropped = True
        if module.training and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return copied, dropped
