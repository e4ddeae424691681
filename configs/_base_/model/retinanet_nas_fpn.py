"""RetinaNet with ResNet-50 and NAS-FPN (arXiv 1904.07392): 256 channels, seven repeats; norms of the head are of each level."""

_base_ = "retinanet.py"

model = dict(
    # a multiple of the coarsest stride, at which the official code's paddings are none
    data_preprocessor=dict(pad_size_divisor=128),
    # all of it is trained, with batches of 8 images a process
    backbone=dict(norm_eval=False),
    neck=dict(
        _delete_=True,
        type="search.NASFPN",
        in_channels=[256, 512, 1024, 2048],
        channels=256,
        repeats=7,
        start_level=1,
        init_cfg=dict(type="Caffe2Xavier", layer="Conv2d"),
    ),
    # as mmdet's NAS-FPN and the official code: no anchor between positive and negative
    train_cfg=dict(assigner=dict(neg_iou_thr=0.5)),
    bbox_head=dict(type="mmdet.RetinaSepBNHead", num_ins=5, norm_cfg=dict(type="BN", requires_grad=True)),
)
