"""A search epoch with kept encoder features against one that encodes every batch.

    python -m benchmarks.features [--quick] [--backbone resnet18_unet] [--data FOLDER]

An epoch is one pass over the half of the training patients that trains weights. Encoding the
slices once is not in the ratio; its seconds are printed, and are paid once in a search.
"""

import tempfile
import time
from pathlib import Path

import torch

from benchmarks.interleaved import measure, print_result
from benchmarks.searches import arguments, backbone_settings, make_search, prepared


def main() -> None:
    """Print the ratio of epoch times."""
    options = arguments(__doc__).parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = prepared(options.data, options.size, Path(folder))
        sides = [
            make_search(
                data,
                backbone_settings(options.backbone),
                device,
                keep_features=keep,
                n_steps=4 if options.quick else None,
            )
            for keep in (False, True)
        ]
        started = time.perf_counter()
        sides[1].keep_features()
        encoding_s = time.perf_counter() - started
        n = 7
        timing = measure(sides[0].run_epoch, sides[1].run_epoch, n=n, device=device)
        print_result(
            "features",
            timing.ratio,
            n=n,
            device=device,
            backbone=options.backbone,
            size=options.size,
            steps=sides[1].n_steps,
            encoding_s=round(encoding_s, 2),
            kept_mib=round(sides[1].kept_bytes / 2**20, 1),
        )


if __name__ == "__main__":
    main()
