"""Data that needs no network: shipped inside the packages that this project depends on."""

import torch
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import train_test_split

from tasks.data.images import LabelledImages
from tasks.module_data import InMemory

MEASUREMENTS = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")  # of diabetes


def digits(test_fraction: float = 0.2) -> LabelledImages:
    """The 1,797 handwritten 8x8 digits that scikit-learn ships (UCI ML, test part of NIST SD 3/7).

    Args:
        test_fraction: share held out, the same fraction of each class; the split is the same in
            every run.

    Raises:
        ValueError: the fraction is not between 0 and 1.

    >>> digits().train_images.shape
    torch.Size([1437, 1, 8, 8])
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie between 0 and 1, got {test_fraction}.")

    pixels, classes = load_digits(return_X_y=True)  # (1797, 64) in 0..16
    images = torch.tensor(pixels / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    labels = torch.tensor(classes, dtype=torch.int64)

    train, test = train_test_split(
        range(len(labels)), test_size=test_fraction, stratify=classes, random_state=0, shuffle=True
    )
    return LabelledImages(
        "digits", images[train], labels[train], images[test], labels[test], num_classes=10
    )


def diabetes() -> InMemory:
    """The 442 patients with diabetes that scikit-learn ships, as a table; needs no network.

    Ten measurements of each (age, sex, body-mass index, blood pressure, six of blood serum), and
    how far the disease went on within a year, 25 to 346.

    Source: Efron et al. 2004 (arXiv math/0406456), section 1.

    >>> len(diabetes()), diabetes().columns["progression"].max()
    (442, tensor(346.))
    """
    measured, progression = load_diabetes(return_X_y=True, scaled=False)  # (442, 10), (442,)
    rows = torch.tensor(measured, dtype=torch.float32)
    columns: dict[str, torch.Tensor] = {}
    for name, column in zip(MEASUREMENTS, rows.T.contiguous(), strict=True):
        columns[name] = column
    columns["progression"] = torch.tensor(progression, dtype=torch.float32)
    return InMemory("diabetes", columns)
