"""A space like ProxylessNAS's (arXiv 1812.00332, section 4.2) at reduced width, for small images.

Inverted residuals of kernel 3, 5 or 7 and expansion 3 or 6; every layer but the first of a stage may be left out.
"""

first = {
    "k3_e3": dict(type="mbconv", kernel=3, expand=3),
    "k3_e6": dict(type="mbconv", kernel=3, expand=6),
    "k5_e3": dict(type="mbconv", kernel=5, expand=3),
    "k5_e6": dict(type="mbconv", kernel=5, expand=6),
    "k7_e3": dict(type="mbconv", kernel=7, expand=3),
    "k7_e6": dict(type="mbconv", kernel=7, expand=6),
}
ops = {**first, "skip": dict(type="skip")}
model = dict(
    type="search.ImageClassifier",
    backbone=dict(
        type="search.ChainNet",
        activation="relu6",
        stem=dict(channels=16),
        stages=[
            dict(channels=8, ops=dict(type="mbconv", expand=1)),
            dict(channels=16, stride=2, depth=4, ops=ops, first=first),
            dict(channels=24, stride=2, depth=4, ops=ops, first=first),
            dict(channels=40, stride=2, depth=4, ops=ops, first=first),
            dict(channels=48, depth=4, ops=ops, first=first),
            dict(channels=96, stride=2, depth=4, ops=ops, first=first),
            dict(channels=160, ops=first),
        ],
        last=dict(channels=640),
    ),
    # read from the data
    num_classes=10,
)
