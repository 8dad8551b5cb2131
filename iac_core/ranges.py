"""The largest value of every setting that has no end by its nature: a finite range for each.

The limits are far above what anybody needs and far below what would fill a machine's memory, take
years without a word or leave the numbers that a column of a table holds.
"""

USUAL_LARGEST = 1e6
"""Of settings that are not named below: epochs, steps, minutes, patients …"""
MOST_LEVELS = 16
"""Entries of a list of widths: an image of 65,536 pixels has so many levels."""
LARGEST: dict[str, float] = {
    # pixels and millimetres
    "size": 4096,
    "multiple": 4096,
    "spacing_mm": 1000,
    "surface_tolerance_mm": 1000,
    "n_neighbours": 64,
    # networks and cells
    "widths": 16_384,
    "filters": 16_384,
    "decoder_channels": 16_384,
    "width": 16_384,
    "max_width": 16_384,
    "branch_width": 16_384,
    "hidden": 16_384,
    "n_heads": 1024,
    "window": 64,
    "n_blocks": 32,
    "n_convolutions": 32,
    "width_factor": 64,
    "n_nodes": 32,
    "partial_channels": 1024,
    # training
    "batch_size": 65_536,
    "learning_rate": 1000,
    "min_learning_rate": 1000,
    "backbone_learning_rate": 1000,
    "weight_learning_rate": 1000,
    "alpha_learning_rate": 1000,
    "alpha_weight_decay": 1000,
    "weight_decay": 1000,
    "momentum": 1,
    "noise_sd": 1000,
    "max_dice_loss": 1,
    # splits and seeds
    "n_folds": 10_000,
    "seed": 2**63 - 1,
    "draw": 2**63 - 1,
    # machines
    "cpus": 65_536,
    "gpus": 65_536,
    "threads": 4096,
    "concurrent": 10_000,
}
"""Setting → its largest value."""


def largest(name: str) -> float:
    """Return the largest value of a setting.

    Examples:
        >>> largest("size"), largest("epochs")
        (4096, 1000000.0)
    """
    return LARGEST.get(name, USUAL_LARGEST)
