"""A training step of every backbone and rival against that of the plain U-Net.

    python -m benchmarks.backbones [--quick] [--data FOLDER]

Networks, batch and slices are those of ``sweeps/backbones.yaml``; a step is forward, backward and
Adam. Parameters and multiply-accumulates are of one slice, without cells.
"""

import tempfile
from pathlib import Path
from statistics import median

import torch

from benchmarks.interleaved import measure, print_result
from benchmarks.searches import arguments, prepared
from iac_core.backbones import build_backbone
from iac_core.evaluation.cost import count_macs, count_parameters
from iac_core.training.batches import load_batch
from iac_core.training.losses import segmentation_loss
from orchestrator.session import tables
from orchestrator.spec import load_sweep

SWEEP = Path(__file__).parents[1] / "sweeps" / "backbones.yaml"


def main() -> None:
    """Print a row per backbone, then the ratios as JSON."""
    options = arguments(__doc__).parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    sweep = load_sweep(SWEEP, tables=tables())
    names = next(axis.values for axis in sweep.axes if axis.name == "backbone")
    batch_size = sweep.stages["pretrain"].batch_size
    n = 3 if options.quick else 9
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        data = prepared(options.data, options.size, Path(folder))
        indices = data.slice_indices(data.patients, for_training=True)[:batch_size]
        images, labels = load_batch(data, indices, device)

        def stepper(name: str) -> tuple[torch.nn.Module, object]:
            network = build_backbone(
                sweep.backbones[name],
                n_channels=data.n_channels,
                n_classes=data.n_classes,
                seed=0,
            )
            assert isinstance(network, torch.nn.Module)
            network.to(device, memory_format=torch.channels_last).train()
            optimiser = torch.optim.Adam(network.parameters())

            def step() -> None:
                optimiser.zero_grad(set_to_none=True)
                segmentation_loss(network(images), labels).backward()  # type: ignore[no-untyped-call]
                optimiser.step()

            return network, step

        _, baseline = stepper("unet")
        for name in names:
            network, step = stepper(name)
            timing = measure(step, baseline, n=n, device=device)  # type: ignore[arg-type]
            ratios[name] = round(timing.ratio, 2)
            row = {
                "backbone": name,
                "step_over_unet": ratios[name],
                "step_ms": round(1000 * median(timing.baseline_s), 1),
                "parameters_k": round(count_parameters(network).total / 1e3),
                "macs_m": round(count_macs(network, (1, *images.shape[1:])) / 1e6, 1),
            }
            print(row, flush=True)
    print_result("backbones", median(ratios.values()), n=n, device=device, step_over_unet=ratios)


if __name__ == "__main__":
    main()
