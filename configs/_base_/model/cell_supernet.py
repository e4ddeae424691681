"""The DARTS supernet for 32x32 images: 16 channels, 8 cells, norms without scale and shift."""

model = dict(
    type="search.ImageClassifier",
    backbone=dict(type="search.CellNet", channels=16, layers=8, stem="cifar", affine=False, plan="auto"),
    # read from the data
    num_classes=10,
)
