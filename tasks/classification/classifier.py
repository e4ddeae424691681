"""An image classifier: any backbone, global average pooling and one linear layer, or two.

Letters: B batch, C channels, H, W pixels, K classes.
"""

from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn import functional as F

from search.registry import MODELS

# what may follow the hidden layer
ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hardswish": nn.Hardswish, "silu": nn.SiLU}


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """Backbone -> global average pool of its last feature map -> linear layer.

    ``backbone``: config of a module that returns a tuple of feature maps and tells their channels in
    ``out_channels``; ``num_classes``: K, written by the task adapter from the data; ``hidden``: a linear layer
    before the last one, as MobileNetV3 has, given by its ``channels``, ``activation`` (by default "hardswish")
    and ``bias`` (True); ``dropout`` before the last layer; ``bias`` of the last layer; ``label_smoothing``: of both losses;
    ``aux_weight``: weight of the loss on the backbone's auxiliary logits (``backbone.aux_logits``, set in training mode),
    which needs a backbone built with ``auxiliary=True``.
    """

    def __init__(
        self,
        backbone: dict,
        num_classes: int,
        hidden: dict | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        label_smoothing: float = 0.0,
        aux_weight: float = 0.0,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(data_preprocessor, init_cfg)
        if num_classes < 2:
            raise ValueError(f"num_classes={num_classes}: a classifier needs at least 2 classes")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing} must be at least 0 and below 1")
        self.backbone = MODELS.build(backbone)
        auxiliary = bool(getattr(self.backbone, "auxiliary", False))
        if aux_weight < 0 or (aux_weight > 0) != auxiliary:
            raise ValueError(
                f"aux_weight={aux_weight} with auxiliary={auxiliary}: a positive weight goes with a backbone "
                "that has an auxiliary head, and 0 with one that has none"
            )
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.aux_weight = aux_weight
        channels = self.backbone.out_channels[-1]
        self.hidden = nn.Identity()
        if hidden is not None:
            self.hidden = _hidden(channels, **hidden)
            channels = hidden["channels"]
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, num_classes, bias=bias)

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of images [B, C, H, W]."""
        return self.backbone(inputs)

    def forward(self, inputs: Tensor, label: Tensor | None = None, mode: str = "tensor"):
        """What mmengine asks of a model.

        ``inputs`` [B, C, H, W], ``label`` [B] class numbers. mode 'tensor': logits [B, K]; 'loss': dict of
        loss terms (``loss_cls`` and, with an auxiliary head in training mode, ``loss_aux``, already weighted);
        'predict': one dict per image with 'scores' [K] (softmax), 'prediction' and, where given, 'label'.
        """
        pooled = self.extract_feat(inputs)[-1].mean((2, 3))
        logits = self.head(self.dropout(self.hidden(pooled)))
        if mode == "tensor":
            return logits
        if mode == "loss":
            return self._losses(logits, label)
        if mode == "predict":
            return _predictions(logits, label)
        raise ValueError(f"mode={mode!r} is not one of 'tensor', 'loss', 'predict'")

    def _losses(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        losses = {"loss_cls": F.cross_entropy(logits.float(), label, label_smoothing=self.label_smoothing)}
        auxiliary = self.backbone.aux_logits if self.aux_weight else None
        if auxiliary is not None:
            loss = F.cross_entropy(auxiliary.float(), label, label_smoothing=self.label_smoothing)
            losses["loss_aux"] = self.aux_weight * loss
        return losses


def _hidden(c_in: int, channels: int, activation: str = "hardswish", bias: bool = True) -> nn.Sequential:
    if activation not in ACTIVATIONS:
        raise ValueError(f"hidden: activation={activation!r} is none of {', '.join(ACTIVATIONS)}")
    return nn.Sequential(nn.Linear(c_in, channels, bias=bias), ACTIVATIONS[activation]())


def _predictions(logits: Tensor, label: Tensor | None) -> list[dict]:
    scores = logits.float().softmax(1).cpu()
    best = scores.argmax(1).tolist()
    rows = [{"scores": s, "prediction": p} for s, p in zip(scores, best, strict=True)]
    if label is not None:
        for row, true in zip(rows, label.tolist(), strict=True):
            row["label"] = true
    return rows
