"""How our names, layouts and stages go with those of the authors' TensorFlow graph."""

import numpy as np
import torch

STAGES = {
    "FP1": "FP1_ave_9",
    "DV1": "DV1_temp_layer",
    "BP1": "BP1_ave_result_prelu_12_u2",
    "e": "e_temp2",
    "E1": "result_prelu_12_1",
    "FP2": "FP2_ave_1",
    "DV2": "DV2_EST",
    "BP2": "BP2_ave_2",
    "e2": "e2_Estimation1",
    "E2": "Estimation",
    "output": "prediction",
}
NORMS = [
    "H1.e_1.bn",
    "H1.e_2.bn",
    "H1.e_3.bn",
    "H1.DV.bn",
    "H1.e_4.bn",
    "H1.e_5.bn",
    "H1.e_6.bn",
    "H1.e_7.bn",
    "H1.e_8.bn",
    "H1.e_bn",
    "H2.u_1.bn",
    "H2.u_2.bn",
    "H2.DV.bn",
    "H2.u_3.bn",
    "H2.u_4.bn",
    "H2.e2_bn",
    "H3.u_7.bn",
]
OF_NORMS = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
LOSSES = ("loss", "mse", "SSIM", "mse2")


def deviation(ours: torch.Tensor, theirs: np.ndarray) -> float:
    """Return the largest difference in units of the largest value."""
    found = ours.detach().numpy().reshape(theirs.shape)
    return float(np.abs(found - theirs).max() / np.abs(theirs).max())


def own_name(name: str) -> str:
    """Return our name of a variable of theirs."""
    layer, _, last = name.rpartition("/")
    if layer.startswith("batch_normalization"):
        number = layer.removeprefix("batch_normalization").removeprefix("_")
        return f"{NORMS[int(number or 0)]}.{OF_NORMS[last]}"
    part = "H1" if last[0] == "e" else "H2" if last < "u_5" else "H3"
    return f"{part}.{last}.weight" if last in ("u_5", "u_6") else f"{part}.{last}.conv.weight"


def their_layout(value: torch.Tensor) -> torch.Tensor:
    return value.permute(2, 3, 4, 1, 0) if value.ndim == 5 else value
