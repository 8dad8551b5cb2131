"""A round through nnU-Net in a process of its own: plan, train, implant, train on, predict.

    python nnunet_round.py WORK_FOLDER

WORK_FOLDER holds ``raw/Dataset004_Hippocampus``; nnU-Net's folders are set in the environment.
Ends with a line of JSON.
"""

import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import torch

torch.set_num_threads(1)
PROCESSES = "nnUNet_n_proc_DA"


def main(work: Path) -> None:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from iac_core.cells.genotype import random_genotype
    from iac_core.config import CellSettings
    from iac_core.exported import ExportedCells
    from iac_core.seeding import numpy_generator

    os.environ[PROCESSES] = "1"  # planning takes it for a number of threads
    extract_fingerprints([4], num_processes=1, check_dataset_integrity=True)
    identifier = plan_experiments([4])
    preprocess([4], identifier, configurations=("2d",), num_processes=(1,))
    preprocessed = work / "preprocessed" / "Dataset004_Hippocampus"
    os.environ[PROCESSES] = "0"  # training augments in its own process
    plans = json.loads((preprocessed / f"{identifier}.json").read_text())
    plans["configurations"]["2d"]["batch_size"] = 12
    dataset = json.loads((preprocessed / "dataset.json").read_text())
    cases = sorted(
        path.name[:-7] for path in (work / "raw/Dataset004_Hippocampus/labelsTr").iterdir()
    )
    split = [{"train": cases[:-3], "val": cases[-3:]}]
    (preprocessed / "splits_final.json").write_text(json.dumps(split))

    class Short(nnUNetTrainer):
        length = 2

        def __init__(self, plans, configuration, fold, dataset_json, device):
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.num_epochs, self.num_iterations_per_epoch = self.length, 10
            self.num_val_iterations_per_epoch = 2

        def run_training(self):  # nnU-Net itself draws without a seed
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002 - what batchgenerators draws from
            torch.manual_seed(0)
            super().run_training()

    class WithCells(Short):
        length = 1

        def initialize(self):
            super().initialize()
            self.network.load_state_dict(backbone)
            self.network = cells.implant_into_nnunet(self.network, with_weights=False)
            self.optimizer, self.lr_scheduler = self.configure_optimizers()

    torch.manual_seed(0)
    trainer = Short(plans, "2d", 0, dataset, torch.device("cpu"))
    trainer.run_training()
    backbone = {name: value.clone() for name, value in trainer.network.state_dict().items()}

    torch.manual_seed(1)
    settings = CellSettings(n_nodes=2, partial_channels=2, form="residual", start="plain")
    n_skips = len(trainer.network.encoder.strides) - 1
    genotype = random_genotype(settings, n_skips, numpy_generator(0, "round"))
    cells = ExportedCells(genotype=genotype, settings=settings, description={}, weights={})
    trainer.set_deep_supervision_enabled(True)
    images = torch.randn(2, 1, *trainer.configuration_manager.patch_size)
    fresh = cells.implant_into_nnunet(trainer.network, with_weights=False)
    with torch.no_grad():
        expected, found = trainer.network(images), fresh(images)
    equal = [bool(torch.equal(a, b)) for a, b in zip(expected, found, strict=True)]

    again = WithCells(plans, "2d", 0, dataset, torch.device("cpu"))
    again.initialize()
    host = again.network.implanted.implant.backbone
    frozen = {name: value.clone() for name, value in host.state_dict().items()}
    gates = [float(gate.detach().abs().sum()) for gate in again.network.implanted.implant.gates]
    again.run_training()
    moved = [float(gate.detach().abs().sum()) for gate in again.network.implanted.implant.gates]
    unmoved = all(torch.equal(value, frozen[name]) for name, value in host.state_dict().items())

    again.perform_actual_validation()  # nnU-Net's sliding window, on the original grid
    validation = Path(again.output_folder) / "validation"
    summary = json.loads((validation / "summary.json").read_text())
    sys.stdout.write(json.dumps({
        "equal_before_training": equal, "gates_before": gates, "gates_after": moved,
        "backbone_unmoved": unmoved, "dice": summary["foreground_mean"]["Dice"],
        "predictions": sorted(path.name for path in validation.glob("*.nii.gz")),
        "validation": [f"{case}.nii.gz" for case in cases[-3:]], "n_skips": n_skips,
    }) + "\n")  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
