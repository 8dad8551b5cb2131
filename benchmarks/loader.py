"""What loading a batch costs, as a share of a training step.

    python -m benchmarks.loader [--quick] [--data FOLDER]

A step is forward, backward and Adam of the claims' U-Net on 16 slices; loading is the read from
the memory-mapped arrays, with and without a random view. Slices are drawn anew each time.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.interleaved import measure, print_result
from benchmarks.searches import arguments, backbone_settings, prepared
from iac_core.backbones import build_backbone
from iac_core.config import AugmentationSettings
from iac_core.training.batches import load_view
from iac_core.training.losses import segmentation_loss

BATCH_SIZE = 16


def main() -> None:
    """Print the shares; the ratio is step over load."""
    options = arguments(__doc__).parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    n = 20 if options.quick else 100
    with tempfile.TemporaryDirectory() as folder:
        data = prepared(options.data, options.size, Path(folder))
        network = build_backbone(
            backbone_settings(options.backbone),
            n_channels=data.n_channels,
            n_classes=data.n_classes,
            seed=0,
        )
        assert isinstance(network, torch.nn.Module)
        network.to(device, memory_format=torch.channels_last).train()
        optimiser = torch.optim.Adam(network.parameters())
        generator = np.random.default_rng(0)

        def load(*, augmented: bool) -> tuple[torch.Tensor, torch.Tensor]:
            indices = generator.integers(0, len(data.labels), BATCH_SIZE)
            views = AugmentationSettings(enabled=augmented)
            return load_view(data, indices, device, views, generator)

        images, labels = load(augmented=False)

        def step() -> None:
            optimiser.zero_grad(set_to_none=True)
            segmentation_loss(network(images), labels).backward()  # type: ignore[no-untyped-call]
            optimiser.step()

        plain = measure(step, lambda: load(augmented=False), n=n, device=device)
        augmented = measure(step, lambda: load(augmented=True), n=n, device=device)
    print_result(
        "loader",
        plain.ratio,
        n=n,
        device=device,
        backbone=options.backbone,
        size=options.size,
        load_share=round(1 / (1 + plain.ratio), 4),
        load_share_augmented=round(1 / (1 + augmented.ratio), 4),
    )


if __name__ == "__main__":
    main()
