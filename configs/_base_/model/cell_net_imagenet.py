"""The derived network that DARTS and PC-DARTS train on ImageNet: 48 channels, 14 cells, auxiliary head."""

model = dict(
    type="search.ImageClassifier",
    backbone=dict(
        type="search.CellNet",
        channels=48,
        layers=14,
        stem="imagenet",
        auxiliary=True,
        # both class counts are read from the data
        num_classes=1000,
    ),
    num_classes=1000,
    label_smoothing=0.1,
    aux_weight=0.4,
)
