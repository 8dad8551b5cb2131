"""Networks that fail in a chosen way while they train: the faults of the tests of failures."""

import os
import resource
import time
from pathlib import Path

import torch
from monai.networks.nets import BasicUNet


class Faulty(BasicUNet):
    """A small U-Net whose forward passes with gradients show one fault.

    Args:
        fault: ``gpu_memory``: the error of a GPU that is full, for batches of more than `above`
            slices. ``host_memory``: the process may have no more memory than it has, and asks for
            it; only while `marker` does not exist, which it makes. ``hang``: sleeps for an hour.
            ``slow``: each pass takes `seconds`. ``dies``: the process ends at once.
        above: As said.
        after: Passes that come before the fault.
        seconds: As said.
        marker: As said.
    """

    def __init__(self, in_channels, out_channels, fault, above=0, after=0, seconds=0.0, marker=""):
        super().__init__(
            spatial_dims=2, features=[4, 4, 4, 4, 4, 4], in_channels=in_channels,
            out_channels=out_channels, norm=("instance", {"affine": True}),
        )  # fmt: skip
        self.fault, self.above, self.left = fault, above, after
        self.seconds, self.marker = seconds, marker

    def forward(self, x):
        if torch.is_grad_enabled() and len(x) > self.above:
            self.left -= 1
            if self.left < 0:
                self.fail()
        return super().forward(x)

    def fail(self):
        if self.fault == "gpu_memory":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.fault == "host_memory" and not Path(self.marker).exists():
            Path(self.marker).touch()
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * os.sysconf("SC_PAGE_SIZE")
            before = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
            try:
                bytearray(2**33)
            finally:
                resource.setrlimit(resource.RLIMIT_AS, before)
        if self.fault == "hang":
            time.sleep(3600)
        if self.fault == "slow":
            time.sleep(self.seconds)
        if self.fault == "dies":
            os._exit(1)
