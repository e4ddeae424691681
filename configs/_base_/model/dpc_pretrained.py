"""The segmentor of DPC with a backbone that was trained on ImageNet. The weights are torchvision's, written once by:

python -c "
import torch, torchvision
from backbones.published import config_of, find
from backbones.torchvision_weights import load_torchvision
from search.registry import MODELS
model = MODELS.build(config_of(find('MobileNetV2 1.0 @224')))
load_torchvision(model, torchvision.models.mobilenet_v2(weights='DEFAULT'))
torch.save(model.state_dict(), 'data/mobilenet_v2.pth')"
"""

_base_ = "dpc_segmentor.py"

model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="data/mobilenet_v2.pth", prefix="backbone")),
)
