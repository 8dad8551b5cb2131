"""Cells in the skip connections of a backbone: what is frozen, how a cell joins its skip."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor, nn

from iac_core.backbones.interface import Adapter, Backbone, SkipSite, cell_norm, fit_to
from iac_core.cells.architecture import ArchitectureParameters
from iac_core.cells.discrete_cell import DiscreteCell
from iac_core.cells.genotype import Genotype
from iac_core.cells.search_cell import SearchCell
from iac_core.config import CellForm, CellSettings, RetrainScope
from iac_core.seeding import derive_seed

FIRST_GATE: dict[CellForm, float] = {"added": 0.3, "residual": 0.0}
"""Form of an implant that adds the cell to the skip → value at which the gates start."""


class Implant(nn.Module):
    """A backbone with a cell at every skip.

    Args:
        backbone: The network; its weights are used, not copied.
        cells: One cell per skip level, finest first.
        settings: Source of the second input.
        scope: Which parts train; everything else has no gradients and stays in evaluation mode, so
            neither its weights nor its batch-norm buffers move.
        form: How a cell joins its skip.
        matches_start: Whether each cell's output has a scale and a shift per channel, which
            `iac_core.cells.matched_start` sets.
    """

    def __init__(
        self,
        backbone: Backbone,
        cells: list[nn.Module],
        settings: CellSettings,
        scope: RetrainScope,
        *,
        form: CellForm,
        matches_start: bool = False,
    ) -> None:
        super().__init__()
        assert isinstance(backbone, nn.Module)
        self.backbone = backbone
        self.cells = nn.ModuleList(cells)
        self.second_input = settings.second_input
        self.gates, self.scales, self.shifts = (nn.ParameterList() for _ in range(3))
        for site in backbone.sites:
            one = torch.ones(site.skip_channels, 1, 1)
            if form in FIRST_GATE:
                self.gates.append(nn.Parameter(FIRST_GATE[form] * one))
            if matches_start:
                self.scales.append(nn.Parameter(one.clone()))
                self.shifts.append(nn.Parameter(torch.zeros_like(one)))
        self.trains_encoder = scope == "all"
        self.trains_decoder = scope in ("all", "cell_and_decoder")
        backbone.encoder.requires_grad_(self.trains_encoder)
        backbone.decoder.requires_grad_(self.trains_decoder)
        self.train()

    def train(self, mode: bool = True) -> "Implant":
        """Switch the parts that train; frozen parts stay in evaluation mode."""
        super().train(mode)
        self.backbone.encoder.train(mode and self.trains_encoder)
        self.backbone.decoder.train(mode and self.trains_decoder)
        return self

    def cell_parameters(self) -> Iterator[nn.Parameter]:
        """Return the weights of cells and of what joins them to their skips."""
        for part in (self.cells, self.gates, self.scales, self.shifts):
            yield from part.parameters()

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Return the weights of whatever part of the backbone trains."""
        return [weight for weight in self.backbone.parameters() if weight.requires_grad]

    def encode(self, images: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return the encoder's features; without a graph where the encoder does not train."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trains_encoder):
            return self.backbone.encode(images)

    def decode(
        self,
        features: Sequence[Tensor],
        size: Sequence[int],
        apply_cell: Callable[[int, Tensor, Tensor], Tensor],
    ) -> Float[Tensor, "b k h w"]:
        """Return logits of the backbone, each skip through ``apply_cell(level, skip, second)``.

        Args:
            features: As `encode` returns them.
            size: Height and width of the images.
            apply_cell: The cells.
        """
        return fit_to(self.backbone.decode(features, self.adapter(apply_cell)), size)

    def adapter(self, apply_cell: Callable[[int, Tensor, Tensor], Tensor]) -> Adapter:
        """Return what joins each cell's output to its skip."""

        def join(level: int, skip: Tensor, upsampled: Tensor) -> Tensor:
            second = upsampled if self.second_input == "decoder" else skip
            out = apply_cell(level, skip, second)
            if len(self.scales):
                out = self.scales[level] * out + self.shifts[level]
            return skip + self.gates[level] * out if len(self.gates) else out

        return join


class Supernet(nn.Module):
    """A frozen backbone with a search cell at every skip, and the architecture parameters.

    Args:
        backbone: The trained backbone.
        settings: The cell.
        seed: The job's seed; it fixes the initial weights and logits.
        join: How a cell joins its skip.
    """

    def __init__(
        self,
        backbone: Backbone,
        settings: CellSettings,
        seed: int,
        join: CellForm = "replace",
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "search", "weights"))
            cells: list[nn.Module] = [
                SearchCell(
                    site.skip_channels,
                    _second_channels(site, settings),
                    settings,
                    cell_norm(backbone),
                )
                for site in backbone.sites
            ]
        self.implant = Implant(backbone, cells, settings, "cell", form=join)
        generator = torch.Generator().manual_seed(derive_seed(seed, "search", "architecture"))
        self.architecture = ArchitectureParameters(settings, len(cells), generator)

    def forward(
        self,
        images: Float[Tensor, "b c h w"],
        importance: Float[Tensor, "*groups levels edges ops"] | None = None,
    ) -> Float[Tensor, "b k h w"]:
        """Return logits; see `from_features`."""
        return self.from_features(self.implant.encode(images), images.shape[-2:], importance)

    def from_features(
        self,
        features: Sequence[Tensor],
        size: Sequence[int],
        importance: Float[Tensor, "*groups levels edges ops"] | None = None,
    ) -> Float[Tensor, "b k h w"]:
        """Return logits of slices whose encoder features are at hand.

        Args:
            features: Of a batch, finest first, the bottleneck last.
            size: Height and width of the images.
            importance: Stands in for the softmax of alpha, to score masks of operations. With a
                first axis G the batch is G equal parts, each with its own mask and with batch
                statistics of its own.
        """
        return self.implant.decode(features, size, self.cell_function(importance))

    def cell_function(
        self, importance: Float[Tensor, "*groups levels edges ops"] | None = None
    ) -> Callable[[int, Tensor, Tensor], Tensor]:
        """Return ``(level, skip, second) → output of the level's cell``.

        Args:
            importance: As in `from_features`.
        """
        mixing = self.architecture.importance() if importance is None else importance
        weights = self.architecture.edge_weights()
        if mixing.ndim == 4:
            weights = weights.expand(len(mixing), *weights.shape)
        shared = self.architecture.n_levels == 1

        def apply_cell(level: int, skip: Tensor, second: Tensor) -> Tensor:
            row = 0 if shared else level
            out: Tensor = self.implant.cells[level](
                skip, second, mixing[..., row, :, :], weights[..., row, :]
            )
            return out

        return apply_cell

    def path_from_features(
        self,
        features: Sequence[Tensor],
        size: Sequence[int],
        path: Bool[ndarray, "levels edges ops"],
    ) -> Float[Tensor, "b k h w"]:
        """Return logits with a part of the operations alone, at the cost of that part.

        Args:
            features: Of a batch, finest first, the bottleneck last.
            size: Height and width of the images.
            path: Operations of each architecture, see `SearchCell.forward_path`.
        """
        return self.implant.decode(features, size, self.path_function(path))

    def path_function(
        self, path: Bool[ndarray, "levels edges ops"]
    ) -> Callable[[int, Tensor, Tensor], Tensor]:
        """Return the cells with a part of their operations alone."""

        def apply_cell(level: int, skip: Tensor, second: Tensor) -> Tensor:
            cell = self.implant.cells[level]
            assert isinstance(cell, SearchCell)
            return cell.forward_path(skip, second, path[0 if len(path) == 1 else level])

        return apply_cell


class ImplantedNetwork(nn.Module):
    """A backbone with the discrete cells of a genotype: what retraining trains.

    Args:
        backbone: The trained backbone.
        genotype: The cells.
        settings: The cell.
        scope: Which parts train.
        seed: The job's seed; it fixes the initial weights of the cells.
    """

    def __init__(
        self,
        backbone: Backbone,
        genotype: Genotype,
        settings: CellSettings,
        *,
        scope: RetrainScope,
        seed: int,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "retrain", "weights"))
            cells: list[nn.Module] = [
                DiscreteCell(
                    site.skip_channels,
                    _second_channels(site, settings),
                    settings,
                    genotype.level(level),
                    cell_norm(backbone),
                )
                for level, site in enumerate(backbone.sites)
            ]
        self.implant = Implant(
            backbone,
            cells,
            settings,
            scope,
            form=settings.form,
            matches_start=settings.start == "matched",
        )

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Return logits."""
        features = self.implant.encode(images)
        return self.implant.decode(features, images.shape[-2:], self.apply_cell)

    def apply_cell(self, level: int, skip: Tensor, second: Tensor) -> Tensor:
        """Return the output of a level's cell."""
        out: Tensor = self.implant.cells[level](skip, second)
        return out


def _second_channels(site: SkipSite, settings: CellSettings) -> int:
    return site.decoder_channels if settings.second_input == "decoder" else site.skip_channels
