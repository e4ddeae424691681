"""Backbones, necks and heads of detectors on any folder in COCO's layout: plain, published, random, and cells of a classifier.

"RetinaNet, cells" has a network searched on CIFAR-10 as its backbone; so it has that of any search of the cells' space, of
whatever task: --arch "RetinaNet, cells=architecture.json". The same for the entries with searched necks.

Pyramids have 64 channels. Those of "half width" have 32, a ResNet-18 of half its width, and batch norms in the head:
NAS-FPN's cells and the plain pyramid stand there in one network and are to be compared with each other.

--cfg-options data_root=FOLDER, and where its files aren't named as in configs/_base_/data/coco_folder_cpu_retrain.py also
train_ann, val_ann, train_img and val_img.
"""

_archs = "../../backbones/archs"
_detection = "../detection"
# in place of a config's ResNet-18; the neck's channels follow
_mobilenet = [
    "model.backbone._delete_=True",
    "model.backbone.type=search.published",
    "model.backbone.name=MobileNetV2 0.5 @160",
    "model.backbone.out_indices=1,2,3,4",
]

entries = [
    dict(name="RetinaNet, ResNet-18", config=f"{_detection}/retinanet_resnet18_coco_cpu_retrain.py"),
    dict(name="FCOS, ResNet-18", config=f"{_detection}/fcos_resnet18_coco_cpu_retrain.py"),
    dict(name="Faster R-CNN, ResNet-18", config=f"{_detection}/faster_rcnn_resnet18_coco_cpu_retrain.py"),
    dict(
        name="RetinaNet, MobileNetV2 0.5",
        config=f"{_detection}/retinanet_resnet18_coco_cpu_retrain.py",
        options=_mobilenet,
    ),
    dict(
        name="RetinaNet, cells",
        config=f"{_detection}/cells_coco_cpu_retrain.py",
        arch=f"{_archs}/darts_v2.json",
    ),
    dict(name="RetinaNet, half width, FPN", config=f"{_detection}/fpn_small_coco_cpu_retrain.py"),
    dict(
        name="RetinaNet, half width, NAS-FPN",
        config=f"{_detection}/nas_fpn_coco_cpu_retrain.py",
        arch=f"{_archs}/nas_fpn_cells.json",
    ),
    dict(name="RetinaNet, half width, NAS-FPN, random 0", config=f"{_detection}/nas_fpn_coco_cpu_retrain.py", random=0),
    dict(name="RetinaNet, Auto-FPN, random 0", config=f"{_detection}/auto_fpn_coco_cpu_retrain.py", random=0),
    dict(
        name="Faster R-CNN, Auto-FPN, random 0",
        config=f"{_detection}/auto_fpn_faster_rcnn_coco_cpu_retrain.py",
        random=0,
    ),
]
