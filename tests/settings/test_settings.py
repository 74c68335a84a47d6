"""Settings: valid values, messages for invalid ones, and the part of each step."""

import dataclasses

import pytest
import yaml

from astromorph.errors import AstromorphError
from astromorph.provenance import canonical_json
from astromorph.settings.loading import load, parse, setting_names
from astromorph.settings.sections import Settings
from astromorph.settings.steps import PARTS, part_of, train_step_settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "`epoch` is not a setting; did you mean `epochs`"),
        ({"batchsize": 3}, "did you mean `batch_size`"),
        ({"stacksize": 3}, "did you mean `data_settings.stacksize`"),
        (
            {"data_settings": {"stacksiz": 3}},
            "`data_settings.stacksiz` is not a setting; did you mean "
            "`data_settings.stacksize`",
        ),
        ({"byol_settings": {"batch_size": 3}}, "did you mean `batch_size`"),
        ({"inference_settings": {"batchsize": 3}}, "`inference_settings.batch_size`?"),
        ({"analysis_settings": {"cluster": 3}}, "mean `analysis_settings.clusters`"),
        ({"training_settings": {"warmup": 0}}, "mean `training_settings.warm_up`"),
        ({"qqqqqqq": 3}, r"config/README\.md lists all settings"),
        (
            {"batch_size": 1},
            r"`batch_size`: found 1; allowed: a whole number of at least 2",
        ),
        ({"network_name": "vgg"}, "did you mean vgg1.*n_layer_resnet, amm, or one of"),
        ({"network_settings": {"last_layer": "layer5"}}, "found 'layer5'"),
        ({"gamma": 1.0}, "`gamma`: found 1.0; allowed: a number above 0 and below 1"),
        ({"learning_rate": "nan"}, "finite"),
        ({"augmentation_settings": {"scale": [2, 3]}}, r"`augmentation_settings.scale"),
        ({"data_settings": 3}, "`data_settings`: found 3; allowed: a section with"),
        ({1: 2}, "`1` is not a setting"),
        ({"data_setings": None}, "did you mean `data_settings`"),
        # --config 'data_settings={planes:mean}'
        ({"data_settings": {"planes:mean": None}}, "after the colon, `planes: mean`"),
        (
            {"byol_settings": {"representation_size": 1_000_000}},
            "found 1000000; allowed: a whole number from 1 to 8192",
        ),
        (
            {"preprocess_settings": {"size": 5}},
            "`preprocess_settings.size`: found 5; allowed: a whole number from 16 to "
            "1024, or native",
        ),
        ({"data_settings": {"planes": "all"}}, "or sum, mean, max or channels, alone"),
        ({"export_settings": {"tables": "fits"}}, "in brackets, each parquet, fits or"),
        ({"augmentation_settings": {"flip": "si"}}, "allowed: true or false"),
        ({"seed": -1}, "allowed: a whole number from 0 to 2147483647"),
    ],
)
def test_invalid_settings_are_named(values, message):
    """The message names the file, the setting, the value and the allowed values."""
    with pytest.raises(AstromorphError, match=message) as caught:
        parse(values, "some.yaml")
    assert str(caught.value).startswith("some.yaml: ")


@pytest.mark.parametrize("name", list(setting_names()))
def test_each_setting_has_one_message_in_plain_words(name):
    """A value of the wrong type is described without words of the program."""
    section, _, key = name.rpartition(".")
    wrong = {"no": "value"}
    values = {section: {key: wrong}} if section else {name: [wrong]}
    with pytest.raises(AstromorphError) as caught:
        parse(values, "x")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"x: `{name}`: found ")
    assert "; allowed: " in line
    words = ("should", "constrained", "literal", "a valid", "dict", "tuple", "string")
    assert not [word for word in words if word in line.partition("found")[2].lower()]


def test_all_invalid_settings_are_in_one_message():
    """Each on its own line."""
    with pytest.raises(AstromorphError) as caught:
        parse({"epochs": 0, "batch": 1}, "x")
    assert len(str(caught.value).splitlines()) == 2


def test_yaml_peculiarities_are_understood():
    """In YAML `1e-3` is a string and an empty section is null; both are accepted."""
    values = yaml.safe_load("learning_rate: 1e-3\nepochs: '7'\ndata_settings:\n")
    settings = parse(values, "x")
    assert settings.learning_rate == 1e-3
    assert settings.epochs == 7
    assert settings.data_settings.stacksize == 1


def test_settings_cannot_be_changed():
    """Settings are frozen."""
    with pytest.raises(ValueError, match="frozen"):
        Settings().epochs = 3


def test_each_setting_belongs_to_a_step_or_to_the_workflow():
    """Any other setting would have no effect."""
    workflow = {"datafile", "trained_network_name", "core_limit", "export_to_csv"}
    workflow |= {"preprocess_settings.shard_size"}
    workflow |= {f"export_settings.{name}" for name in ("tables", "map", "gallery")}
    in_steps = {name for part in PARTS.values() for name in part}
    for section, value in Settings().model_dump().items():
        names = [f"{section}.{key}" for key in value] if isinstance(value, dict) else []
        for name in names or [section]:
            assert ({name, section} & in_steps) or name in workflow, name


@pytest.mark.parametrize("step", PARTS)
def test_the_part_of_a_step_can_be_read_again(step):
    """Parsing it gives settings with the same part."""
    settings = parse({"epochs": 3, "augmentation_settings": {"gamma": 0.7}}, "x")
    part = part_of(settings, step)
    again = part_of(parse(part, "x"), step)
    assert canonical_json(again) == canonical_json(part)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "x = ", "not valid TOML"),
        ("a.yaml", "a: [", "not valid YAML"),
        ("a.yaml", "a: 1\nb: c: 2\n", "not valid YAML: line 2, column 5: mapping va"),
        ("a.yaml", "a:\n\tb: 1\n", r"line 2, column 1: found character '\\t'"),
        ("a.yaml", "- 1\n", "found a list"),
        (
            "a.yaml",
            "epochs: 3\ndata_settings:\n  hdu: 1\ndata_settings:\n  stacksize: 2\n",
            r"a\.yaml: `data_settings` is set in line 2 and again in line 4; write it "
            "once, with all settings below it$",
        ),
        (
            "a.yaml",
            "data_settings:\n  hdu: 1\n  hdu: 2\n",
            r"`data_settings\.hdu` is set in line 2 and again in line 3; write it o",
        ),
        (
            "a.json",
            '{"epochs": 3,\n"epochs": 4}',
            "`epochs` is set in line 1 and again",
        ),
        ("missing.toml", None, "cannot be read"),
    ],
)
def test_unreadable_files_are_explained(tmp_path, name, text, message):
    """The message names the file and the problem."""
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(AstromorphError, match=message):
        load(tmp_path / name)


def test_a_merged_section_may_override_a_setting(tmp_path):
    """`<<` of YAML copies a section, whose settings are then set once more."""
    text = "data_settings: &a {hdu: 1}\nbyol_settings: {<<: *a, hdu: 2}\n"
    (tmp_path / "a.yaml").write_text(text)
    assert load(tmp_path / "a.yaml")["byol_settings"] == {"hdu": 2}
    (tmp_path / "a.yaml").write_text("a: &a {b: *a}\n")
    assert list(load(tmp_path / "a.yaml")) == ["a"]


def test_training_receives_exactly_its_own_settings():
    """`TrainStepSettings` and `PARTS["train"]` name the same settings and values."""
    settings = parse(
        {
            "epochs": 3,
            "data_settings": {"stacksize": 3},
            "augmentation_settings": {"scale": [0.5, 2]},
        },
        "x",
    )
    step_settings = train_step_settings(settings)
    assert step_settings.to_dict() == part_of(settings, "train")
    assert list(step_settings.to_dict()) == list(part_of(settings, "train"))
    fields = {field.name for field in dataclasses.fields(step_settings)}
    assert fields == {name.rpartition(".")[2] for name in PARTS["train"]}
    again = parse(step_settings.to_dict(), "model.pt")
    assert train_step_settings(again) == step_settings
