"""What networks predict, and how to turn one prediction into another.

With x = alpha x0 + sigma eps:

| name | predicts | source |
|---|---|---|
| epsilon | eps | arXiv 2006.11239 |
| v | alpha eps - sigma x0 | arXiv 2202.00512 |
| x0 | x0 | |
| flow | eps - x0 | arXiv 2209.03003, 2210.02747 |

Each is linear: x0 = c_skip x + c_out prediction, in the words of EDM (arXiv 2206.00364). alpha and sigma are
numbers, or tensors that broadcast against the data.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeVar

from torch import Tensor

#: What a network predicts from x = alpha x0 + sigma eps.
Prediction = Literal["epsilon", "v", "x0", "flow"]

Scale = TypeVar("Scale", float, Tensor)


class Preconditioning(NamedTuple):
    """EDM's D(x, sigma) = skip x + out F(scale x, noise) around a raw network F."""

    skip: Tensor
    out: Tensor
    scale: Tensor
    noise: Tensor


def edm_preconditioning(sigma: Tensor, data_std: float = 0.5) -> Preconditioning:
    """c_skip, c_out, c_in and c_noise at noise levels > 0 of any shape (arXiv 2206.00364, table 1).

    `data_std` is the standard deviation of the data. With them F has inputs and targets of variance 1.
    """
    total = sigma**2 + data_std**2
    return Preconditioning(
        skip=data_std**2 / total,
        out=sigma * data_std / total.sqrt(),
        scale=1.0 / total.sqrt(),
        noise=0.25 * sigma.log(),
    )


def clean_weights(prediction: Prediction, alpha: Scale, sigma: Scale) -> tuple[Scale, Scale]:
    """(c_skip, c_out) with x0 = c_skip x + c_out prediction."""
    if prediction == "epsilon":
        return 1.0 / alpha, -sigma / alpha
    if prediction == "v":
        total = alpha**2 + sigma**2
        return alpha / total, -sigma / total
    if prediction == "flow":
        return 1.0 / (alpha + sigma), -sigma / (alpha + sigma)
    return 0.0 * alpha, 0.0 * alpha + 1.0


def target_weights(prediction: Prediction, alpha: Scale, sigma: Scale) -> tuple[Scale, Scale]:
    """(a, b) with prediction = a x0 + b eps."""
    none, one = 0.0 * alpha, 0.0 * alpha + 1.0
    if prediction == "epsilon":
        return none, one
    if prediction == "v":
        return -sigma, alpha
    if prediction == "flow":
        return -one, one
    return one, none


def noised(x0: Tensor, eps: Tensor, alpha: Scale, sigma: Scale) -> Tensor:
    """x = alpha x0 + sigma eps."""
    return alpha * x0 + sigma * eps


def target(prediction: Prediction, x0: Tensor, eps: Tensor, alpha: Scale, sigma: Scale) -> Tensor:
    """What a perfect network predicts for clean data and noise."""
    of_data, of_noise = target_weights(prediction, alpha, sigma)
    return of_data * x0 + of_noise * eps


def clean_from(prediction: Prediction, x: Tensor, predicted: Tensor, alpha: Scale, sigma: Scale) -> Tensor:
    """x0 from noisy data and a prediction. An epsilon tells nothing of x0 where alpha is 0."""
    skip, out = clean_weights(prediction, alpha, sigma)
    return skip * x + out * predicted


def noise_from(x: Tensor, x0: Tensor, alpha: Scale, sigma: Scale) -> Tensor:
    """eps from noisy and clean data, where sigma > 0."""
    return (x - alpha * x0) / sigma


def predicted_from(prediction: Prediction, x: Tensor, x0: Tensor, alpha: Scale, sigma: Scale) -> Tensor:
    """The prediction that `clean_from` turns into `x0`, where sigma > 0."""
    return target(prediction, x0, noise_from(x, x0, alpha, sigma), alpha, sigma)
