"""The derived network that DARTS trains on CIFAR-10: 36 channels, 20 cells, auxiliary head, drop path 0.2."""

model = dict(
    type="search.ImageClassifier",
    backbone=dict(
        type="search.CellNet",
        channels=36,
        layers=20,
        stem="cifar",
        auxiliary=True,
        # both class counts are read from the data
        num_classes=10,
        drop_path=0.2,
    ),
    num_classes=10,
    aux_weight=0.4,
)
