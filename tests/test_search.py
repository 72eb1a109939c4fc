"""The search: prices without cutting, targets met, policies against brute force, a stopped search that goes on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from edgecnn import zoo
from edgecnn.bundle import ModelSpec
from edgecnn.compile import compile_recipe
from edgecnn.errors import ModelError, RecipeError
from edgecnn.memo import Memo
from edgecnn.recipe import DataSection, FinetuneStep, ModelSection, Recipe, SearchStep
from edgecnn.report import write_report
from edgecnn.report.svg import scatter
from edgecnn.slim.channels import LayerShape, after, apply_cut, families, layout
from edgecnn.slim.latency import LatencyTable, whole
from edgecnn.slim.prune import importance, keep
from edgecnn.slim.search import POINTS, STATE, searched
from edgecnn.slim.search.policies import POLICIES, evolutionary, greedy, sensitivity, uniform
from edgecnn.slim.search.problem import Problem, fingerprint
from edgecnn.zoo.batches import Batchable
from edgecnn.zoo.count import size

CLASSES = ("dark", "light")


@pytest.fixture(scope="module")
def pictures(dark_and_light: Callable[[int], DataSection]) -> DataSection:
    return dark_and_light(8)


@pytest.fixture(scope="module")
def lenet() -> tuple[nn.Module, ModelSpec]:
    torch.manual_seed(0)
    spec = zoo.spec_for(ModelSection(arch="lenet5", classes=CLASSES))
    return zoo.build(spec), spec


class Quick(LatencyTable):
    """A table that never measures: a layer takes as long as its multiply-adds, and a little for being there."""

    def __call__(self, layer: LayerShape) -> float:
        return layer.macs / 1e5 + 0.01


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quick:
    """Whole networks take a tenth more than the sum of their layers."""

    def measured(net: nn.Module, shape: tuple[int, ...]) -> float:
        return 1.1 * sum(layer.macs / 1e5 + 0.01 for layer in layout(net, shape).values())

    monkeypatch.setattr("edgecnn.slim.search.whole", measured)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Quick(tmp_path / "latency.json")


def problem_of(net: nn.Module, spec: ModelSpec, pictures: DataSection, path: Path | None = None) -> Problem:
    return Problem(
        net,
        spec,
        families(net, spec.input.shape, importance("magnitude")),
        layout(net, spec.input.shape),
        lambda layer: float(layer.macs),
        Batchable.read(spec, pictures, "pictures"),
        Memo.open(path, fingerprint(net)),
        round_to=2,
    )


def test_prices_without_cutting_are_those_of_the_cut_network(lenet: tuple[nn.Module, ModelSpec]) -> None:
    net, spec = lenet
    known = families(net, spec.input.shape, importance("magnitude"))
    assert [(f.root, f.size) for f in known] == [
        ("features.0", 6),
        ("features.3", 16),
        ("classifier.0", 120),
        ("classifier.2", 84),
    ]
    cut = {"features.0": 4, "features.3": 10, "classifier.2": 50}
    promised = after(layout(net, spec.input.shape), known, cut)
    slim = apply_cut(net, spec.input.shape, known, cut)
    assert layout(slim, spec.input.shape) == promised
    assert promised["classifier.0"].inputs == 250 and promised["classifier.4"].inputs == 50  # 10 maps of 5x5
    assert sum(layer.macs for layer in promised.values()) == size(slim, spec.input.shape).macs


@pytest.mark.parametrize(
    ("size", "left", "stay"), [(64, 64, 64), (64, 63, 56), (64, 8, 8), (64, 0, 8), (6, 1, 6), (84, 83, 80)]
)
def test_widths_stay_in_eights_and_never_vanish(size: int, left: int, stay: int) -> None:
    assert keep(size, left, 8) == stay


@pytest.mark.parametrize("policy", ["greedy", "evolutionary", "ranked", "uniform"])
def test_a_policy_meets_the_price(lenet: tuple[nn.Module, ModelSpec], pictures: DataSection, policy: str) -> None:
    problem = problem_of(*lenet, pictures)
    whole_price = problem.price({})
    for share in (0.8, 0.4):
        cut = POLICIES[policy](problem, share * whole_price)
        assert problem.price(cut) <= share * whole_price
        assert all(n % 2 == 0 for n in cut.values())
    with pytest.raises(ModelError, match="the deepest costs"):
        POLICIES[policy](problem, 1e-4 * whole_price)


def test_greedy_is_the_best_of_all_cuts_where_rises_add_up(
    lenet: tuple[nn.Module, ModelSpec], pictures: DataSection
) -> None:
    net, spec = lenet
    problem = problem_of(net, spec, pictures)
    dear = {"features.0": 3.0, "features.3": 1.0, "classifier.0": 0.1, "classifier.2": 0.02}
    whole_size = {f.root: f.size for f in problem.families}
    for f in problem.families:  # the rise of the loss is linear in what goes
        for level in range(1, f.size + 1):
            problem.memo.values["loss " + json.dumps({f.root: level})] = dear[f.root] * (1 - level / f.size)
    problem.memo.values["loss {}"] = 0.0
    most = 0.5 * problem.price({})
    cost = lambda cut: sum(dear[root] * (1 - n / whole_size[root]) for root, n in cut.items())  # noqa: E731
    every = itertools.product(*(problem.levels(f) for f in problem.families))
    cuts = (dict(zip(whole_size, levels, strict=True)) for levels in every)
    best = min(cost(cut) for cut in cuts if problem.price(cut) <= most)
    assert cost(greedy(problem, most)) <= best * 1.1 + 0.02
    assert cost(uniform(problem, most)) > best * 1.5


def test_evolution_ends_no_worse_than_greedy(lenet: tuple[nn.Module, ModelSpec], pictures: DataSection) -> None:
    problem = problem_of(*lenet, pictures)
    most = 0.3 * problem.price({})
    cut = evolutionary(problem, most)
    assert problem.price(cut) <= most and problem.loss(cut) <= problem.loss(greedy(problem, most))
    assert cut == evolutionary(problem, most)


def test_what_a_stopped_search_found_is_not_sought_again(
    lenet: tuple[nn.Module, ModelSpec], pictures: DataSection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, spec = lenet
    state = tmp_path / STATE
    asked = 0
    own = Problem._loss

    def counted(self: Problem, slim: nn.Module) -> float:
        nonlocal asked
        asked += 1
        if asked == 7:
            raise KeyboardInterrupt
        return own(self, slim)

    monkeypatch.setattr(Problem, "_loss", counted)
    with pytest.raises(KeyboardInterrupt):
        sensitivity(problem_of(net, spec, pictures, state))
    assert len(json.loads(state.read_text())["values"]) == 6
    rises = sensitivity(problem_of(net, spec, pictures, state))
    entries = 1 + sum(len(rows) - 1 for rows in rises.values())
    assert asked == 7 + entries - 6
    other = replace(problem_of(net, spec, pictures), memo=Memo.open(state, "another network"))
    assert not other.memo.values
    state.write_text("{")
    assert not problem_of(net, spec, pictures, state).memo.values


def test_a_latency_target_is_met_by_the_whole_network(
    lenet: tuple[nn.Module, ModelSpec], pictures: DataSection, quick: Quick, tmp_path: Path
) -> None:
    net, spec = lenet
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    full = sum(quick(layer) for layer in layout(net, spec.input.shape).values()) * 1.1
    step = SearchStep(latency=full / 2, data=pictures, round_to=2, criterion="magnitude")
    slim, described, line = searched(net, spec, step, net, spec, tmp_path, quick)
    took = sum(quick(layer) for layer in layout(slim, spec.input.shape).values()) * 1.1
    assert took <= full / 2 * 1.02 and f"{full:.3f} ms became {took:.3f} ({took:.3f} predicted" in line
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    again = zoo.build(described)
    again.load_state_dict(slim.state_dict())
    facts = json.loads((tmp_path / POINTS).read_text())
    assert facts["latency_ms"]["layers_times"] == pytest.approx(1.1) and len(facts["points"]["greedy"]) >= 4
    prices = [point["price"] for point in facts["points"]["greedy"]]
    assert prices == sorted(prices, reverse=True)


@pytest.mark.parametrize(("macs", "most"), [(0.5, 0.5), (200_000, 200_000 / 416_520)])
def test_a_macs_target_as_a_share_or_a_number(
    lenet: tuple[nn.Module, ModelSpec], pictures: DataSection, quick: Quick, macs: float, most: float
) -> None:
    net, spec = lenet
    whole_size = size(net, spec.input.shape).macs
    step = SearchStep(macs=macs, data=pictures, round_to=2, criterion="magnitude")
    slim, _, _ = searched(net, spec, step, net, table=quick)
    left = size(slim, spec.input.shape).macs
    assert 0.6 * most < left / whole_size <= most


def test_the_drop_is_kept_after_fine_tuning(
    lenet: tuple[nn.Module, ModelSpec], pictures: DataSection, quick: Quick
) -> None:
    net, spec = lenet
    tune = FinetuneStep(data=pictures, epochs=4, batch=8, lr=0.02, distill="none")
    step = SearchStep(drop=0.1, data=pictures, round_to=2, criterion="magnitude", tune=tune)
    slim, _, line = searched(net, spec, step, net, table=quick)
    assert size(slim, spec.input.shape).macs < size(net, spec.input.shape).macs / 2 and "figure on the pictures" in line


def test_real_times_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    table = LatencyTable(path)
    small, large = (
        LayerShape(8, 8, (3, 3), (1, 1), (1, 1), 1, 16, 16),
        LayerShape(64, 64, (3, 3), (1, 1), (1, 1), 1, 32, 32),
    )
    assert 0 <= table(small) < table(large)
    table.save()
    again = LatencyTable(path)
    known = json.loads(path.read_text())[again.machine]
    assert len(known) == 3 and again(small) == table(small)  # and the empty one
    path.write_text("no json")
    assert LatencyTable(path)(large) > 0


def test_a_whole_network_is_timed() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    assert 0 < whole(net, (1, 3, 16, 16)) < 100


def test_the_report_plots_what_was_compared() -> None:
    svg = scatter({"greedy": [(1.0, 3.0), (2.0, 1.5)], "uniform": [(2.0, 4.0)]}, "ms", "loss", "Cuts")
    # axes 0 to 2 and 0 to 4: the last point is at the right and at the top
    assert svg.count("<circle") == 3 and '<circle class="s1" cx="700.0" cy="20.0"' in svg
    assert '<circle class="s0" cx="380.0" cy="80.0"' in svg and "uniform: ms 2, loss 4" in svg


@pytest.mark.parametrize("targets", [{}, {"macs": 0.5, "latency": 1.0}])
def test_one_target_is_needed(targets: dict[str, float]) -> None:
    recipe = Recipe(name="x", model=ModelSection(arch="lenet5"))
    with pytest.raises(RecipeError, match="one target"):
        recipe.searching(**targets)


def test_a_target_takes_the_place_of_the_recipes_cuts() -> None:
    data = {"kind": "sim", "seed": 3, "pictures": 5}
    steps = [{"gap": True}, {"prune": {"macs": 0.3, "data": data, "round_to": 4}}, {"finetune": {"epochs": 3}}]
    recipe = Recipe.model_validate({"name": "x", "model": {"arch": "vgg11"}, "slim": {"steps": steps}})
    found = recipe.searching(macs=0.5, latency=None, policy="evolutionary")
    assert found.slim is not None and len(found.slim.steps) == 2 and found.slim.steps[0].gap
    step = found.slim.steps[1].search
    assert step is not None and step.data is not None and step.data.pictures == 5
    assert (step.macs, step.policy, step.round_to, step.tune.epochs) == (0.5, "evolutionary", 4, 3)
    again = found.searching(drop=0.02).slim
    assert again is not None and again.steps[1].search is not None and again.steps[1].search.macs is None


def test_a_recipe_slims_to_a_target(tmp_path: Path, pictures: DataSection, quick: Quick) -> None:
    data = f"{{kind: classes, path: {pictures.path}, pictures: 16}}"
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"name: tiny\nmodel: {{arch: lenet5, classes: [dark, light]}}\ntrain: {{data: {data}, epochs: 1}}\n"
        f"slim:\n  steps: [{{finetune: {{data: {data}, epochs: 1}}}}]\n  check: {data}\n"
    )
    done = compile_recipe(recipe, tmp_path / "b", until="slim", change=lambda r: r.searching(macs=0.6))
    facts = done.bundle.stages["slim"].facts
    assert facts["after"]["macs"] <= 0.6 * facts["before"]["macs"] and (tmp_path / "b" / STATE).is_file()
    assert facts["search"]["points"]["uniform"]
    page = write_report(done.bundle, tmp_path / "report.html").read_text("utf-8")
    assert "Where to cut" in page and page.count("<circle") == sum(map(len, facts["search"]["points"].values()))
