"""What nnU-Net planned, the cases that it preprocessed, its network and its sliding window."""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from numpy import ndarray
from torch import nn

from iac_core.backbones.nnunet_unet import NnunetUNet, planned_network
from iac_core.data.slices import PreparedData, PreparedVolume
from iac_core.data.transforms import turn_back
from iac_core.evaluation.per_patient import Segment
from iac_core.nnunet import CONFIGURATION, PLANNED, PREPROCESSED
from iac_core.nnunet.run_apart import require_nnunet


def case_name(volume_id: str) -> str:
    """Return the name of a volume among nnU-Net's cases."""
    return re.sub(r"[^\w.-]", "_", volume_id)


class PlannedCases:
    """A preparation by nnU-Net.

    Args:
        folder: Of the preparation.

    Attributes:
        root: nnU-Net's folder of preprocessed data sets.
        dataset: Name of the one there is.
        plans_name: Name of its plans.
        plans: The plans themselves.

    Raises:
        ConfigError: If nnU-Net is not installed.
    """

    def __init__(self, folder: Path) -> None:
        require_nnunet()
        planned = json.loads((folder / PLANNED).read_text(encoding="utf-8"))
        self.dataset, self.plans_name = planned["dataset"], planned["plans"]
        self.root = folder / PREPROCESSED
        base = self.root / self.dataset
        self.plans: dict[str, Any] = json.loads(
            (base / f"{self.plans_name}.json").read_text(encoding="utf-8")
        )
        self._header = json.loads((base / "dataset.json").read_text(encoding="utf-8"))
        with _quiet():
            from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
        self._plans: Any = PlansManager(self.plans)
        self._configuration: Any = self._plans.get_configuration(CONFIGURATION)

    @property
    def patch_shape(self) -> tuple[int, int]:
        """Rows and columns of the planned patch."""
        rows, columns = self._configuration.patch_size
        return int(rows), int(columns)

    @property
    def batch_size(self) -> int:
        """The planned batch size."""
        return int(self._configuration.batch_size)

    @property
    def transposition(self) -> tuple[int, ...]:
        """Which of the axes Z, Y, X became slices, rows and columns."""
        return tuple(self._plans.transpose_forward)

    def load(
        self, case: str
    ) -> tuple[Float[ndarray, "c d h w"], Integer[ndarray, "d h w"], dict[str, Any]]:
        """Return image, labels (−1 outside the body) and properties of a case."""
        image, labels, _, properties = self._cases.load_case(case)
        return np.asarray(image[:]), np.asarray(labels[:])[0], properties

    @cached_property
    def _cases(self) -> Any:  # noqa: ANN401 - nnU-Net has no types
        place = self.root / self.dataset / self._configuration.data_identifier
        with _quiet():
            from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
        return infer_dataset_class(str(place))(str(place))

    def network(self, *, n_channels: int, n_classes: int, seed: int) -> NnunetUNet:
        """Return the planned network as a host, with fresh weights of a seed."""
        architecture = self.plans["configurations"][CONFIGURATION]["architecture"]
        with _quiet():
            return planned_network(
                architecture, n_channels=n_channels, n_classes=n_classes, seed=seed
            )

    def segmenter(
        self, network: nn.Module, data: PreparedData, *, device: torch.device, mirrors: bool
    ) -> Segment:
        """Return what predicts a volume with nnU-Net's sliding window, back on its own grid.

        Args:
            network: Images → logits.
            data: The slices of this preparation.
            device: Where the network runs.
            mirrors: Mean over mirrored images, nnU-Net's default.
        """
        with _quiet():
            from nnunetv2.inference.export_prediction import (
                convert_predicted_logits_to_segmentation_with_correct_shape as to_grid,
            )
            from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

            predictor = nnUNetPredictor(
                use_mirroring=mirrors,
                perform_everything_on_device=device.type == "cuda",
                device=device,
                allow_tqdm=False,
            )
        predictor.manual_initialization(
            network,
            self._plans,
            self._configuration,
            [network.state_dict()],
            self._header,
            "nnUNetTrainer",
            (0, 1),
        )
        values = np.asarray(data.label_values, dtype=np.uint8)

        def segment(volume: PreparedVolume) -> ndarray:
            image, _, properties = self.load(case_name(volume.volume_id))
            logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(image))
            indices = to_grid(
                logits,
                self._plans,
                self._configuration,
                predictor.label_manager,
                properties,
                num_threads_torch=torch.get_num_threads(),
            )
            geometry = volume.geometry
            turned = np.asarray(indices).transpose(2, 1, 0)
            found: ndarray = values[turn_back(turned, geometry.axis_order, geometry.axis_signs)]
            return found

        return segment


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """nnU-Net prints advice on folders that these stages do not need."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
