"""The plain pyramid beside NAS-FPN's small one, with its backbone, head and recipe, on the embedded scenes."""

_base_ = "nas_fpn_scenes_cpu_retrain.py"

model = dict(
    neck=dict(
        _delete_=True,
        type="mmdet.FPN",
        in_channels=[32, 64, 128, 256],
        out_channels=32,
        start_level=1,
        add_extra_convs="on_input",
        num_outs=5,
    )
)
