"""Published, random and plain networks of the cells' space on the handwritten digits, in minutes on 2 cores.

A search's architecture beside them: a file of your own with its entry, or --arch "DARTS V2=architecture.json" in its place.
"""

_archs = "../../backbones/archs"
_cells = "../classification/cells_digits_cpu_retrain.py"

entries = [
    dict(name="DARTS V1", config=_cells, arch=f"{_archs}/darts_v1.json"),
    dict(name="DARTS V2", config=_cells, arch=f"{_archs}/darts_v2.json"),
    dict(name="GDAS V1", config=_cells, arch=f"{_archs}/gdas_v1.json"),
    dict(name="SNAS mild", config=_cells, arch=f"{_archs}/snas_mild.json"),
    dict(name="random 0", config=_cells, random=0),
    dict(name="random 1", config=_cells, random=1),
    dict(name="random 2", config=_cells, random=2),
]
