"""Choices of a training with their explanations."""

from napari_rln.networks.architectures.registry import TITLES
from napari_rln.train.training_settings import Preset

PRESETS: dict[str, tuple[Preset, str]] = {
    "Quick adaptation": (
        "quick",
        "Adapts an existing model to your PSF and light in 5 minutes. On test volumes the result "
        "is never worse than that model. Start with this.",
    ),
    "Full training": (
        "full",
        "Trains a new model for your PSF alone in half an hour, better in several. Choose it if "
        "the quick one gains little.",
    ),
    "As in the paper": (
        "paper",
        "Repeats the published recipe, whose input is the image alone. Takes hours on a GPU, a day "
        "without; choose it to compare with the paper.",
    ),
}
NEW = "new weights"
ARCHITECTURES = {title: name for name, title in TITLES.items()}
RIVAL = (
    "Another network, to compare RLN with: new weights, which start from the image, with the same "
    "volumes and in the same time."
)
RIVAL_PAPER = (
    "Another network, to compare RLN with: the recipe of its authors, as far as published. Takes "
    "hours; use a GPU."
)
TIPS = {
    "preset": "<p>How much is trained, and so how long it takes. Start with Quick adaptation.</p>",
    "name": "<p>Name of the model in the lists. Leave it empty for the name of the PSF.</p>",
    "initial": "<p>Model that the training improves. Keep universal, or choose one of yours that "
    "was trained for a similar PSF.</p>",
    "network": "<p>RLN, or one of the networks that it is compared with in papers. Keep RLN unless "
    "you want to compare.</p>",
    "pair": "<p>Draws a volume with these structures, and its image by your PSF, light and noise. "
    "Press it to see whether they resemble your sample.</p>",
    "another": "<p>Draws other structures of the same kinds. Press it for another example.</p>",
    "back": "<p>Removes the pair, and shows your layers as before. Press it when you have seen "
    "enough.</p>",
}
