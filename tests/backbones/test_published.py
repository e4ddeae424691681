"""Every published row: its count against an independent one, and the printed figure as its status says."""

import json
import subprocess
import sys
from decimal import Decimal

import pytest

from backbones.published import ARCHS, FOLDERS, config_of, find, published, read_rows, rows
from backbones.spec import NotBuildable, model_config
from search.cost.published import counted, input_size_of
from search.registry import MODELS
from tests.backbones import few_of_a_schema

pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = ARCHS.parents[1]
ROWS = rows()
SPECIFIED = [row for row in ROWS if row["spec"] is not None]
# schemas whose heads are mmdet's and mmseg's
WITH_HEADS = ("mbv2_ops", "deeplabv3_sep", "squeezenas", "spinenet", "auto_deeplab", "dpc")


def digits(value: float) -> float:
    """Half a unit of the last digit that a number is given with."""
    return 0.5 * 10.0 ** Decimal(repr(value)).as_tuple().exponent * 1.0001


def category(status: str) -> str:
    """The word before a status's difference, in ours."""
    status = status.split(";")[0]
    return status if status.startswith("exact") else status.split(" (")[0].lower()


@pytest.mark.parametrize("row", few_of_a_schema.parameters(SPECIFIED))
def test_row(row):
    try:
        config = config_of(row)
    except NotBuildable:
        # what a specification lacks is no fault of ours, but then nobody has counted it either
        assert row["check"]["params_m"] is None
        return
    result = counted(row, lambda: MODELS.build(config), (3, *(input_size_of(row) or (224, 224))))
    check = row["check"]
    if check["params_m"] is not None:
        # with the auxiliary head it is the sum of two rounded counts
        parts = 2 if "aux head" in check["convention"] else 1
        assert result["params"] / 1e6 == pytest.approx(check["params_m"], abs=parts * digits(check["params_m"]), rel=0)
        if check["madds_m"] is not None:
            assert result["macs"] / 1e6 == pytest.approx(check["madds_m"], abs=digits(check["madds_m"]), rel=0)
        for figure, key in (("params", "params_status"), ("macs", "madds_status")):
            expected = category(check[key])
            if expected not in ("no published figure", "not checked"):
                assert result["status"][figure] == expected
            if expected == "mismatch":
                assert result["remarks"], f"{row['name']}: no reason for its mismatch"
    assert all(any(rule in remark for remark in result["remarks"]) for rule in check["inferred"])


def test_no_row_is_lost():
    assert len(ROWS) == len({row["name"] for row in ROWS}) >= 341
    assert sum(row["spec"] is not None for row in ROWS) >= 302
    for row in ROWS:
        assert row["licence"], row["name"]


def test_closed_sources_are_not_shipped():
    shipped, kept_for_tests = rows(FOLDERS[:1]), rows(FOLDERS[1:])
    closed = (
        "slimmable_networks",
        "AtomNAS@",
        "mobile-vision",
        "PC-DARTS@",
        "chenxin061/pdarts@b880e873 genotypes",
        "nsga-net@",
    )
    for row in shipped:
        # a figure may be quoted from anywhere; a specification may not
        if row["spec"] is not None:
            source = row["source"].split("genotype:")[-1] if "genotype:" in row["source"] else row["source"]
            assert not any(name in source for name in closed), row["name"]
    assert {row["family"] for row in kept_for_tests} >= {"OFA", "FBNet", "AtomNAS", "Slimmable", "AutoSlim", "DetNAS"}


def architecture_rows():
    return [row for row in ROWS if "architecture" in row]


@pytest.mark.parametrize("row", architecture_rows(), ids=lambda row: row["name"])
def test_an_architecture_file_holds_what_its_specification_says(row):
    imported, kept = model_config(row["spec"]), config_of(row)
    arch = imported["backbone"].pop("arch")
    path = kept["backbone"].pop("arch")
    assert imported == kept
    from search.space import Architecture, load

    (part,) = load(path).parts.values()
    assert part.architecture == Architecture(arch)


def test_unknown_names_and_damaged_files_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'EfficientNet-B0'"):
        find("EfficientNetB0")
    path = tmp_path / "row.json"
    for text, says in [
        ("{", "JSON"),
        ("[1]", "no rows"),
        ("[]", "no rows"),
        ('{"format": "visnas-published", "version": 2, "rows": []}', "reads version 1"),
        ('{"name": 3, "spec": null}', "name of row 3 must be text"),
        ('{"name": "x", "spec": "mbconv"}', "spec of row 'x' must be an object"),
        ('{"name": "x", "spec": null, "input_size": 224}', "input_size of row 'x' must be .height, width."),
        ('{"name": "x", "spec": null, "input_size": [224, 0]}', "input_size"),
        ('{"name": "x", "spec": null, "published_as": {"params": 5.3}}', "must be printed figures as text"),
        ('{"name": "x", "spec": null, "check": {"inferred": "much"}}', "check of row 'x'"),
        ('{"name": "x"}', "no rows"),
        ('{"schema": 3}', "object with a schema"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=says):
            model_config(read_rows(path)[0]["spec"])
    with pytest.raises(ValueError, match="no file"):
        read_rows(tmp_path / "none.json")
    with pytest.raises(ValueError, match="'mbconv' is damaged: KeyError: 'blocks'"):
        model_config({"schema": "mbconv", "stem": 8})
    with pytest.raises(ValueError, match="'fairnas' is damaged: not enough values to unpack"):
        model_config({"schema": "fairnas", "blocks": [[3, 32]], "last": 8})
    with pytest.raises(ValueError, match=r"'mbconv' is damaged: -8\.0 channels"):
        model_config({"schema": "mbconv", "stem": -8, "blocks": [], "head": 8})
    with pytest.raises(ValueError, match="known are"):
        model_config({"schema": "transformer"})
    with pytest.raises(NotBuildable, match="doesn't say the backbone"):
        model_config({"schema": "nas_fcos"})
    found = find("NAS-FCOS R50 NAS head (mmdet)")["spec"]
    for change, says in [
        ({"head": ["conv3x3"]}, "neither 'plain FCOS head' nor that of mmdet's NASFCOSHead"),
        ({"fpn": {"cells": found["fpn"]["cells"][::-1]}}, "outputs must be f3, f4 and so on"),
    ]:
        with pytest.raises(ValueError, match=says):
            model_config({**found, **change})


def test_a_published_backbone_by_name_by_specification_and_by_file(tmp_path):
    row = find("mobilenetv3 small 0.75")
    (tmp_path / "row.json").write_text(json.dumps(row))
    built = [
        MODELS.build(dict(type="search.published", name=row["name"], out_indices=(1, 2, 3, 4))),
        published(spec=row["spec"], out_indices=(1, 2, 3, 4)),
        published(spec=tmp_path / "row.json", out_indices=(1, 2, 3, 4)),
    ]
    assert len({tuple(model.state_dict()) for model in built}) == 1
    assert built[0].out_strides == (4, 8, 16, 32)
    with pytest.raises(ValueError, match="either"):
        published()
    with pytest.raises(ValueError, match=r"'out_indexes' is no setting of search\.ChainNet: known are .*out_indices"):
        published(row["name"], out_indexes=(1,))
    with pytest.raises(ValueError, match="holds 2 networks: give one by its name, of 'DARTS_V2 CIFAR-10 36/20'"):
        published(spec=ARCHS / "darts_v2.json")


def test_a_config_s_name_of_it_is_known_to_a_fresh_interpreter():
    program = (
        "from search.registry import MODELS; "
        "print(MODELS.build(dict(type='search.published', name='MobileNetV1 0.25 @128')).out_channels)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "(256,)\n", done.stderr
