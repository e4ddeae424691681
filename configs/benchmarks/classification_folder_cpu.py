"""The cells' published and random networks on any ImageNet-layout folder at 32x32: --cfg-options data_root=FOLDER."""

_archs = "../../backbones/archs"
_cells = "../classification/cells_folder_cpu_retrain.py"

entries = [
    dict(name="DARTS V1", config=_cells, arch=f"{_archs}/darts_v1.json"),
    dict(name="DARTS V2", config=_cells, arch=f"{_archs}/darts_v2.json"),
    dict(name="GDAS V1", config=_cells, arch=f"{_archs}/gdas_v1.json"),
    dict(name="SNAS mild", config=_cells, arch=f"{_archs}/snas_mild.json"),
    dict(name="random 0", config=_cells, random=0),
    dict(name="random 1", config=_cells, random=1),
    dict(name="random 2", config=_cells, random=2),
]
