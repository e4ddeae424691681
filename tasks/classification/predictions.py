"""What a test run can leave behind beside its score: predictions as JSON, labelled images, flip averaging."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from PIL import Image, ImageDraw
from torch import Tensor
from torch.utils.data import RandomSampler

from search.registry import HOOKS

# small images are enlarged to about this many pixels, so that a label fits below
SHOWN_SIZE = 160
LABEL_HEIGHT = 28


class FlipAverage(BaseModel):
    """A classifier whose scores are the mean over an image and its mirror image (left and right swapped).

    Inputs [B, C, H, W]; prediction rows as the classifier's own: 'scores' [K], 'prediction' and, where the data have
    it, 'label'.
    """

    def __init__(self, model: BaseModel):
        super().__init__()
        self.model = model
        # the inner model's, which is a child of it already
        self.data_preprocessor = model.data_preprocessor

    def forward(self, inputs: Tensor, label: Tensor | None = None, mode: str = "predict") -> list[dict]:
        """Prediction rows; the only mode is 'predict'."""
        assert mode == "predict", "flip averaging is for testing"
        rows = self.model(inputs, label, mode="predict")
        mirrored = self.model(inputs.flip(-1), label, mode="predict")
        for row, other in zip(rows, mirrored, strict=True):
            row["scores"] = (row["scores"] + other["scores"]) / 2
            row["prediction"] = int(row["scores"].argmax())
        return rows


@HOOKS.register_module()
class FlipAverageHook(Hook):
    """Tests with `FlipAverage`."""

    # before hooks that look at the model, such as EMA's
    priority = "VERY_HIGH"

    def before_test(self, runner: Any) -> None:
        """Wrap the model for the test."""
        runner.model = FlipAverage(runner.model)

    def after_test(self, runner: Any) -> None:
        """Unwrap it."""
        runner.model = runner.model.model


@HOOKS.register_module()
class PredictionsHook(Hook):
    """Keeps a test's predictions and writes them when it is over.

    ``out``: a JSON file: classes and, for each image in the data's order, its name, true label, prediction and scores.
    ``show_dir``: a folder that gets every image with its true and predicted class below it, and 'wrong-' before the
    name where the two differ. The test data must come unshuffled, in one process.
    """

    def __init__(self, out: str | None = None, show_dir: str | None = None):
        self.out = None if out is None else Path(out)
        self.show_dir = None if show_dir is None else Path(show_dir)
        if self.out is not None and self.out.suffix != ".json":
            raise ValueError(f"--out {out}: predictions are written as JSON, give a name that ends in .json")
        self.rows: list[dict] = []

    def before_test(self, runner: Any) -> None:
        """Start anew, and find out early whether the places can be written to."""
        self.rows = []
        sampler = runner.test_dataloader.sampler
        if getattr(sampler, "shuffle", isinstance(sampler, RandomSampler)):
            raise ValueError("predictions are named in the data's order: set test_dataloader.sampler.shuffle=False")
        for folder in (self.out and self.out.parent, self.show_dir):
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence[dict] | None = None
    ) -> None:
        """Keep a batch's rows."""
        self.rows += outputs or ()

    def after_test(self, runner: Any) -> None:
        """Write."""
        dataset = runner.test_dataloader.dataset
        assert len(self.rows) == len(dataset), "a row for each image"
        if self.out is not None:
            self.out.write_text(json.dumps(as_json(dataset, self.rows), indent=1) + "\n", encoding="utf-8")
        if self.show_dir is not None:
            for index, row in enumerate(self.rows):
                _labelled(dataset, index, row).save(self.show_dir / _file_name(dataset, index, row))


def as_json(dataset: Any, rows: Sequence[dict]) -> dict[str, Any]:
    """Predictions as plain values; ``rows`` in the order of the dataset."""
    classes = list(dataset.classes)
    return {
        "classes": classes,
        "predictions": [
            {
                "image": dataset.names[index],
                "label": classes[row["label"]],
                "prediction": classes[row["prediction"]],
                "scores": [round(score, 6) for score in row["scores"].tolist()],
            }
            for index, row in enumerate(rows)
        ],
    }


def _file_name(dataset: Any, index: int, row: dict) -> str:
    flat = str(dataset.names[index]).replace("/", "__")
    return ("" if row["label"] == row["prediction"] else "wrong-") + Path(flat).stem + f"-{index}.png"


def _labelled(dataset: Any, index: int, row: dict) -> Image.Image:
    pixels = dataset.image(index)
    if pixels.is_floating_point():
        pixels = pixels.mul(255).round().clamp(0, 255).to(torch.uint8)
    array = pixels.permute(1, 2, 0).numpy()
    image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).convert("RGB")
    factor = max(1, round(SHOWN_SIZE / max(image.size)))
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    true, predicted = dataset.classes[row["label"]], dataset.classes[row["prediction"]]
    lines = f"true {true}\npredicted {predicted} ({row['scores'].max():.0%})"
    canvas = Image.new("RGB", (max(image.width, SHOWN_SIZE), image.height + LABEL_HEIGHT), "white")
    canvas.paste(image, (0, 0))
    colour = "darkgreen" if true == predicted else "darkred"
    ImageDraw.Draw(canvas).multiline_text((2, image.height + 1), lines, fill=colour, spacing=1)
    return canvas
