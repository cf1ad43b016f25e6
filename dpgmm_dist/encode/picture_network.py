"""A small convolutional net from embeddings to pictures, on torch (an optional extra)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.encode.protocol import Shape
from dpgmm_dist.encode.public_items import PublicItems
from dpgmm_dist.errors import SpecError

_CHANNELS = 32
_EPOCHS, _LEAST_STEPS = 30, 1000
_BATCH = 64
_RATE = 2e-3


def learned_arrays(pairs: PublicItems, seed: int) -> dict[str, NDArray[Any]]:
    """The weights of a net that is trained to give the pixels of public pictures.

    The mean squared error is minimised by Adam. The number of epochs follows from the number of
    pairs, and the rate falls to zero. The bits depend on the version of torch.
    """
    torch = _torch()
    mean = pairs.embeddings.mean(axis=0, dtype=np.float64)
    scale = float((pairs.embeddings - mean).std()) or 1.0
    torch.manual_seed(seed)
    net = _net(len(mean), pairs.shape)
    a_pass = -(-len(pairs) // _BATCH)
    epochs = max(_EPOCHS, -(-_LEAST_STEPS // a_pass))
    optimiser = torch.optim.Adam(net.parameters(), lr=_RATE)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * a_pass)
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(pairs))
        for start in range(0, len(order), _BATCH):
            index = order[start : start + _BATCH]
            rows = (pairs.embeddings[index] - mean) / scale
            pixels = pairs.pictures(index).transpose(0, 3, 1, 2) / np.float32(255)
            optimiser.zero_grad()
            output = net(torch.from_numpy(rows.astype(np.float32)))
            ((output - torch.from_numpy(np.ascontiguousarray(pixels))) ** 2).mean().backward()
            optimiser.step()
            rate.step()
    arrays = {f"net.{name}": value.detach().numpy() for name, value in net.state_dict().items()}
    return {"mean": mean, "scale": np.array(scale), **arrays}


def decoded(
    arrays: dict[str, NDArray[Any]], shape: Shape, centred: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Pixels (n, h w c) that a trained net gives for embeddings (n, d) less their mean."""
    torch = _torch()
    net = _net(centred.shape[1], shape)
    net.load_state_dict(
        {
            name.removeprefix("net."): torch.from_numpy(value)
            for name, value in arrays.items()
            if name.startswith("net.")
        }
    )
    rows = torch.from_numpy((centred / float(arrays["scale"])).astype(np.float32))
    with torch.inference_mode():
        output = net.eval()(rows).numpy()
    return np.asarray(output.transpose(0, 2, 3, 1).reshape(len(output), -1))


def _net(width: int, shape: Shape) -> Any:
    """A layer to a quarter of the height and width, then two that double them, then the pixels."""
    torch = _torch()
    height, breadth, channels = shape
    rows, columns = -(-height // 4), -(-breadth // 4)
    nn = torch.nn
    return nn.Sequential(
        nn.Linear(width, 256),
        nn.ReLU(),
        nn.Linear(256, 2 * _CHANNELS * rows * columns),
        nn.ReLU(),
        nn.Unflatten(1, (2 * _CHANNELS, rows, columns)),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(2 * _CHANNELS, _CHANNELS, 3, padding=1),
        nn.ReLU(),
        nn.Upsample(size=(height, breadth), mode="bilinear"),
        nn.Conv2d(_CHANNELS, channels, 3, padding=1),
    )


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise SpecError(
            "a network as a decoder needs torch: pip install 'dpgmm-dist[torch]', or --fit ridge"
        ) from None
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    return torch
