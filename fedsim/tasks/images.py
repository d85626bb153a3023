"""Real pictures that ship inside installed packages: nothing is downloaded."""

import numpy as np
import torch

from fedsim.tasks.data import Dataset

CROP = 32
"""Height and width of a photograph's crop, in pixels."""
LEAST_CONTRAST = 0.05
"""Standard deviation below which a crop (values in [0, 1]) shows nothing to recognise."""


def digits(seed: int) -> Dataset:
    """1,797 handwritten digits, 1x8x8 grey in [0, 1]."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Dataset(
        name="digits",
        modality="image",
        inputs=torch.tensor(bunch.images / 16.0, dtype=torch.float32).unsqueeze(1),
        labels=torch.tensor(bunch.target, dtype=torch.int64),
        class_names=tuple(str(digit) for digit in bunch.target_names),
        value_range=(0.0, 1.0),
        note="UCI optical recognition of handwritten digits (Alpaydin and Kaynak, 1998), from scikit-learn; "
        "grey levels 0..16 scaled to [0, 1].",
    )


def faces(seed: int) -> Dataset:
    """100 faces of real people and 100 crops without one, 1x25x25 grey in [0, 1]; class 1 is a face."""
    from skimage.data import lfw_subset

    crops = lfw_subset()
    return Dataset(
        name="faces",
        modality="image",
        inputs=torch.tensor(crops, dtype=torch.float32).unsqueeze(1),
        labels=(torch.arange(len(crops)) < 100).to(torch.int64),
        class_names=("not a face", "face"),
        value_range=(0.0, 1.0),
        note="Crops of Labeled Faces in the Wild (Huang et al., 2007), news photographs of real people, read from the "
        "installed scikit-image; no licence is stated: do not publish the pictures.",
    )


def photos(seed: int) -> Dataset:
    """1,223 colour crops of six photographs, 3x32x32 in [0, 1], side by side without overlap; class = photograph."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    china, flower = load_sample_images().images
    pictures = {
        "astronaut": data.astronaut(),
        "chelsea": data.chelsea(),
        "coffee": data.coffee(),
        "rocket": data.rocket(),
        "china": china,
        "flower": flower,
    }
    crops = [_crops(picture) for picture in pictures.values()]
    return Dataset(
        name="photos",
        modality="image",
        inputs=torch.tensor(np.concatenate(crops), dtype=torch.float32),
        labels=torch.repeat_interleave(torch.arange(len(crops)), torch.tensor([len(c) for c in crops])),
        class_names=tuple(pictures),
        value_range=(0.0, 1.0),
        note="32x32 crops of photographs in scikit-image (astronaut: NASA, rocket: SpaceX, public domain; chelsea "
        "by Stefan van der Walt, coffee by Rachel Michetti: CC0) and scikit-learn (china by danielbuechele, flower by "
        "vultilion, both on Flickr: CC BY 2.0, cropped). Crops with a standard deviation up to 0.05 are left out.",
    )


def _crops(picture: np.ndarray) -> np.ndarray:
    """Cut a (H, W, 3) uint8 picture into (n, 3, CROP, CROP) in [0, 1], row by row, keeping those with contrast."""
    rows, columns = picture.shape[0] // CROP, picture.shape[1] // CROP
    grid = picture[: rows * CROP, : columns * CROP].reshape(rows, CROP, columns, CROP, 3)
    crops = grid.transpose(0, 2, 4, 1, 3).reshape(-1, 3, CROP, CROP) / 255.0
    return crops[crops.std(axis=(1, 2, 3)) > LEAST_CONTRAST]
