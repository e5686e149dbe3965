"""Every yaml composes, builds and is reachable by name."""

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from revox_lightning.commands import assemble, settings
from revox_lightning.errors import UserError

ROOT = Path(__file__).parents[1]
GROUPS = {  # conf/paper holds tables of runs, not a group of a run's config: tests/test_paper.py composes its words
    folder.name: sorted(p.stem for p in folder.glob("*.yaml"))
    for folder in settings.CONF.iterdir()
    if folder.is_dir() and folder.name != "paper"
}
MODELS = GROUPS["model"]


@pytest.mark.parametrize("model", MODELS)
def test_a_model_yaml_names_its_task_and_only_what_belongs_to_it(model):
    content = yaml.safe_load((settings.CONF / "model" / f"{model}.yaml").read_text())
    allowed = {"defaults", "name", "task", "size", "model", "objective", "optim", "system", "data", "parts"}
    allowed |= {"linear_start", "delay_line", "monitor"}
    assert set(content) <= allowed
    cfg = settings.composed([f"model={model}"])
    assert cfg.name == model and cfg.task in ("effect", "trajectory", "noise", "style", "proxy")


@pytest.mark.parametrize("group,name", [(g, n) for g, names in GROUPS.items() for n in names if g != "model"])
def test_every_group_file_composes(group, name):
    assert settings.composed([f"{group}={name}"])


def test_targets_stay_in_the_house():
    for path in settings.CONF.rglob("*.yaml"):
        for line in path.read_text().splitlines():
            if "_target_:" in line:
                assert (
                    line.split("_target_:")[1]
                    .strip()
                    .startswith(("revox_lightning.", "torch.optim.", "pytorch_lightning."))
                ), path
    with pytest.raises(UserError, match="not allowed"):
        assemble.build(OmegaConf.create({"_target_": "os.system", "command": "true"}))


def test_only_the_hydra_block_speaks_of_hydra():
    text = (settings.CONF / "train.yaml").read_text()
    assert "${hydra" not in text[: text.index("\nhydra:")]


def test_there_are_few_files():
    assert len(list(settings.CONF.rglob("*.yaml"))) <= 75


def test_the_wheel_would_carry_conf():
    assert 'conf = "revox_lightning/conf"' in (ROOT / "pyproject.toml").read_text()


def test_every_model_yaml_has_its_line_of_published_figures():
    from test_models import PUBLISHED

    lines = {line.name: line for line in PUBLISHED}
    configs = {model: settings.composed([f"model={model}", "linear_filter.taps=256"]) for model in MODELS}
    effects = {model: cfg for model, cfg in configs.items() if cfg.task == "effect" and not cfg.parts}
    assert set(effects) <= set(lines), f"no line in tests/test_models.py for {sorted(set(effects) - set(lines))}"
    for model, cfg in effects.items():
        cfg.model.get("core", cfg.model).controls = 0
        net = assemble.build_net(cfg)
        assert sum(p.numel() for p in net.parameters()) == lines[model].parameters
        assert net.receptive_field == lines[model].receptive_field
