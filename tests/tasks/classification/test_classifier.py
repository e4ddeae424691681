import pytest
import torch
from torch import nn
from torch.nn import functional as F

from search.registry import MODELS


@MODELS.register_module()
class ToyBackbone(nn.Module):
    """One convolution; with ``auxiliary``, its mean through a second linear layer in training mode."""

    def __init__(self, auxiliary=False, num_classes=None):
        super().__init__()
        self.out_channels = (6,)
        self.conv = nn.Conv2d(3, 6, 3)
        if auxiliary:
            self.auxiliary = nn.Linear(6, num_classes)

    def forward(self, x):
        x = self.conv(x)
        self.aux_logits = self.auxiliary(x.mean((2, 3))) if hasattr(self, "auxiliary") and self.training else None
        return (x,)


def smoothed(logits, label, epsilon):
    """Cross-entropy with the target (1 - epsilon) * one-hot + epsilon / K."""
    log_p = logits.log_softmax(1)
    target = F.one_hot(label, logits.shape[1]) * (1 - epsilon) + epsilon / logits.shape[1]
    return -(target * log_p).sum(1).mean()


def classifier(auxiliary=False, **kwargs):
    backbone = dict(type="search.ToyBackbone", auxiliary=auxiliary, num_classes=5)
    return MODELS.build(dict(type="search.ImageClassifier", backbone=backbone, num_classes=5, **kwargs))


def test_loss_is_smoothed_cross_entropy_plus_weighted_auxiliary_loss():
    torch.manual_seed(0)
    model = classifier(auxiliary=True, label_smoothing=0.1, aux_weight=0.4)
    images, label = torch.randn(4, 3, 8, 8), torch.tensor([0, 4, 2, 2])
    losses = model(images, label, mode="loss")
    logits = model(images)
    expected = smoothed(logits, label, 0.1) + 0.4 * smoothed(model.backbone.aux_logits, label, 0.1)
    total, logged = model.parse_losses(losses)
    # what is logged as the loss is what is trained on
    assert total.item() == logged["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    model.eval()
    assert set(model(images, label, mode="loss")) == {"loss_cls"}


def test_head_is_linear_on_the_spatial_mean():
    model = classifier()
    images = torch.randn(2, 3, 8, 8)
    (features,) = model.extract_feat(images)
    assert torch.allclose(model(images), model.head(F.adaptive_avg_pool2d(features, 1).flatten(1)), atol=1e-6)


def test_prediction_rows():
    model = classifier().eval()
    images, label = torch.randn(3, 3, 8, 8), torch.tensor([1, 0, 4])
    rows = model.val_step({"inputs": images, "label": label})
    assert [row["label"] for row in rows] == [1, 0, 4]
    for row, logits in zip(rows, model(images), strict=True):
        assert row["prediction"] == int(logits.argmax()) and row["scores"].sum().item() == pytest.approx(1)


@pytest.mark.parametrize("auxiliary, weight", [(True, 0.0), (False, 0.4)])
def test_auxiliary_weight_and_head_go_together(auxiliary, weight):
    with pytest.raises(ValueError, match="aux_weight"):
        classifier(auxiliary=auxiliary, aux_weight=weight)
