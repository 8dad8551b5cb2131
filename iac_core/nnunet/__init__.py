"""nnU-Net's own 2-D pipeline as the preparation, training and prediction of a backbone.

    prepare    its fingerprint, planner and preprocessor on the volumes of any reader; then the
               same slices, cut to the planned patch size, for search and retraining
    training   its trainer on the planned network and the patients of the split
    predict    its sliding window, with or without cells, back on the original grid

nnU-Net reads the places of its folders from the environment once per process and starts processes
of its own, so planning and training run in a process apart (`run_apart`, `commands`).
"""

N_DATASET = 1
"""nnU-Net names its data sets by number; each preparation has folders to itself."""
PREPROCESSED = "nnunet_preprocessed"
"""Folder of nnU-Net below that of a preparation, as nnU-Net itself would have it."""
PLANNED = "nnunet.json"
"""What other stages need to know of a preparation: names of data set and plans."""
CONFIGURATION = "2d"
