"""A classifier that starts from a checkpoint of somebody else: a tiny one that the test makes, with random weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_learn_worker import make_run, work

from gleaner.learn.backbone_name import BackboneName, Library, check_backbone, parse_backbone
from gleaner.learn.backbones import hugging_face, timm_models
from gleaner.learn.backbones.card import licenses_of, require_permissive
from gleaner.learn.backbones.start import foreign_start
from gleaner.learn.backbones.trunk import ForeignTrunk, Wants
from gleaner.learn.errors import RunProblem
from gleaner.learn.graph import LARGEST_DIFFERENCE

pytestmark = pytest.mark.skipif(
    any(find_spec(one) is None for one in ("transformers", "onnxscript")), reason="gleaner[pretrained] is not installed"
)
SIZES = [(64, 64), (96, 128)]
WITHOUT_NETWORK = {"HF_HUB_OFFLINE": "1"}


def checkpoint(folder: Path, kind: str, card: str | None = "---\nlicense: apache-2.0\n---\n# Tiny\n") -> Path:
    import transformers as t

    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    configs: dict[str, Any] = {
        "resnet": lambda: t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1], layer_type="basic"),
        "convnextv2": lambda: t.ConvNextV2Config(hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1]),
        "mobilenet_v2": lambda: t.MobileNetV2Config(depth_multiplier=0.1),
        "dinov2": lambda: t.Dinov2Config(image_size=56, mlp_ratio=2, **{k: v for k, v in small.items() if k != "intermediate_size"}),
        "vit": lambda: t.ViTConfig(image_size=48, patch_size=16, **small),
        "swin": lambda: t.SwinConfig(image_size=64, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4),
        "bert": lambda: t.BertConfig(vocab_size=20, **small),
    }  # fmt: skip
    t.AutoModel.from_config(configs[kind]()).save_pretrained(folder)
    if card is not None:
        (folder / "README.md").write_text(card)
    return folder


def loaded(folder: Path, accepted: bool = False) -> ForeignTrunk:
    trunk = foreign_start(parse_backbone(f"hf:{folder}"), accepted, SIZES, print).trunk()
    assert isinstance(trunk, ForeignTrunk)
    return trunk


@pytest.mark.parametrize("kind", ["resnet", "convnextv2", "mobilenet_v2", "dinov2", "vit", "swin"])
def test_every_usual_architecture_gives_a_map(tmp_path: Path, kind: str) -> None:
    trunk = loaded(checkpoint(tmp_path, kind))
    for height, width in SIZES:
        (found,) = trunk.maps(torch.rand(2, 3, height, width))
        assert found.ndim == 4 and len(found) == 2
        if trunk.own_size is None:
            assert found.shape[2] <= found.shape[3]
        assert trunk(torch.rand(2, 3, height, width)).shape == (2, trunk.features)
    assert (trunk.own_size is not None) == (kind == "vit")  # the one that takes a single size


def test_the_checkpoint_sees_pixels_as_it_was_trained_to(tmp_path: Path) -> None:
    """What `normalize` does is undone: the answer is that of transformers to a picture prepared its way."""
    from transformers import AutoModel

    from gleaner.learn.network import normalize

    folder = checkpoint(tmp_path, "resnet")
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]})
    )
    pixels = torch.rand(1, 3, 64, 64)
    prepared = (pixels - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    trunk = loaded(folder).eval()
    with torch.no_grad():
        wanted = AutoModel.from_pretrained(folder).eval()(pixel_values=prepared).last_hidden_state
        assert torch.allclose(trunk.maps(normalize(pixels))[0], wanted, atol=1e-4)


def test_the_tokens_of_places_are_laid_out_as_they_are_seen(tmp_path: Path) -> None:
    class Tokens(torch.nn.Module):
        """A class token, then the mean of each patch of 8."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            places = torch.nn.functional.avg_pool2d(x, 8).flatten(2).transpose(1, 2)
            return torch.cat([torch.full_like(places[:, :1], 99.0), places], 1)

    trunk = ForeignTrunk(Tokens(), Wants((0.45,) * 3, (0.25,) * 3, patch=8), SIZES)
    x = torch.zeros(1, 3, 64, 96)
    x[..., 16:24, 40:48] = 1.0
    (found,) = trunk.maps(x)
    assert found.shape == (1, 3, 8, 12)
    assert torch.nonzero(found[0, 0] > 0.5).tolist() == [[2, 5]]


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["convnextv2", "vit"])
def test_a_run_trains_exports_and_answers_alike(tmp_path: Path, kind: str) -> None:
    folder = checkpoint(tmp_path / "tiny", kind)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    make_run(run_dir, backbone=f"hf:{folder}", budget_s=6.0)
    status, events = work(run_dir, **WITHOUT_NETWORK)
    assert status == 0, events[-3:]
    out = run_dir / "out"
    report = json.loads((out / "report.json").read_text())
    assert report["config"]["backbone"] == {"name": f"hf:{folder}", "license": "apache-2.0"}
    assert report["model"]["steps"] >= 1 and report["model"]["largest_difference"] <= LARGEST_DIFFERENCE
    formats = report["model"]["formats"]
    assert "own network" in formats["tflite"]["reason"] and "own network" in formats["int8"]["reason"]
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    (image,), (probability,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape[0], image.shape[3]) == ("image", "tensor(uint8)", 1, 3)
    assert (probability.name, probability.shape) == ("probability", [1, 2])
    dark, bright = (session.run(None, {"image": np.full(image.shape, v, np.uint8)})[0] for v in (0, 255))
    assert not np.allclose(dark, bright)
    model = onnx.load(out / "model.onnx")
    properties = {one.key: one.value for one in model.metadata_props}
    assert properties["gleaner.backbone_license"] == "apache-2.0"
    assert json.loads(properties["gleaner.labels"]) == ["red", "blue"]
    assert model.ir_version <= 10  # what onnxruntime 1.18 reads
    assert all(wrong["looked_at"]["sample"] for wrong in report["wrong"])


@pytest.mark.parametrize(
    ("card", "found"),
    [
        ("---\nlicense: apache-2.0\n---\n# Hi", ["apache-2.0"]),
        ("\ufeff---\r\nlicense: MIT\r\n---\r\n", ["mit"]),
        ("---\nlicense:\n- mit\n- gpl-3.0\n---\n", ["mit", "gpl-3.0"]),
        ("---\nlicense: other\nlicense_name: dinov3-license\n---\n", ["dinov3-license"]),
        ("---\ntags: [vision]\n---\n", []),
        ("# no front matter\nlicense: mit\n", []),
        ("---\nlicense: mit\n", []),  # the front matter never ends
        ("---\nlicense: [mit\n---\n", []),
        ("---\n- mit\n---\n", []),
        ("", []),
    ],
)
def test_the_licence_is_what_the_cards_front_matter_says(card: str, found: list[str]) -> None:
    assert licenses_of(card) == found


def test_only_a_permissive_licence_goes_without_asking() -> None:
    name = BackboneName(Library.HUGGING_FACE, "a/b")
    assert require_permissive(name, ["apache-2.0"], False) == "apache-2.0"
    for found in (["gpl-3.0"], ["mit", "cc-by-nc-4.0"], ["dinov3-license"], []):
        with pytest.raises(RunProblem) as refused:
            require_permissive(name, found, False)
        assert "--accept-license" in refused.value.hint and "a/b" in refused.value.message
        assert require_permissive(name, found, True) == (", ".join(found) or "unknown")


@pytest.mark.parametrize(
    ("card", "said"), [("---\nlicense: cc-by-nc-4.0\n---\n", "cc-by-nc-4.0"), (None, "names none")]
)
def test_a_folder_without_a_permissive_licence_is_refused(tmp_path: Path, card: str | None, said: str) -> None:
    folder = checkpoint(tmp_path, "resnet", card)
    with pytest.raises(RunProblem, match=said):
        loaded(folder)
    assert loaded(folder, accepted=True).features == 48


@pytest.mark.parametrize(
    "text", ["resnet50", "hf:", "hf:only-a-name", "hf:a/b/c", "hf:a/../b", "timm:", "timm:../x", "tf:a/b", "hf:a/b@"]
)
def test_a_wrong_name_is_refused_with_examples(text: str) -> None:
    with pytest.raises(RunProblem) as wrong:
        parse_backbone(text)
    assert "timm:mobilenetv3_small_100" in wrong.value.hint


def test_names_keep_their_revision_and_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = parse_backbone("hf:facebook/convnextv2-atto-1k-224@main")
    assert (name.repository, name.revision, name.folder) == ("facebook/convnextv2-atto-1k-224", "main", None)
    monkeypatch.chdir(tmp_path)
    assert parse_backbone("hf:./tiny").folder == tmp_path / "tiny"
    assert str(parse_backbone("timm:mobilenetv3_small_100.lamb_in1k")) == "timm:mobilenetv3_small_100.lamb_in1k"


def test_a_detector_says_that_it_cannot(tmp_path: Path) -> None:
    with pytest.raises(RunProblem, match="detector cannot start"):
        check_backbone(f"hf:{tmp_path}", detects=True)
    assert check_backbone("", detects=True) is None


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("bert", "looks at no pictures"),
        ("pickle", "safetensors"),
        ("unknown", "cannot be opened"),
        ("torn", "cannot be opened"),
    ],
)
def test_a_checkpoint_of_the_wrong_kind_is_named(tmp_path: Path, kind: str, said: str) -> None:
    folder = checkpoint(tmp_path, "bert" if kind == "bert" else "resnet")
    weights = folder / "model.safetensors"
    if kind == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    elif kind == "unknown":
        (folder / "config.json").write_text('{"model_type": "from_next_year"}')
    elif kind == "torn":
        weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RunProblem, match=said):
        loaded(folder)


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunProblem, match=r"no config\.json"):
        check_backbone(f"hf:{tmp_path}", detects=False)


def test_code_that_comes_with_a_checkpoint_never_runs(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "resnet")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(RunProblem, match="cannot be opened"):
        loaded(folder)
    assert not (tmp_path / "ran").exists()


def test_without_a_network_the_run_says_what_to_do(tmp_path: Path) -> None:
    make_run(tmp_path, backbone="hf:facebook/convnextv2-atto-1k-224")
    status, events = work(tmp_path, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "cache"))
    assert status == 1
    failed = events[-1]
    assert failed["event"] == "failed" and "could not be fetched" in failed["message"]
    assert "hf:/path/to/it" in failed["hint"]
    assert not (tmp_path / "out").exists()


def test_a_missing_extra_is_named_before_torch_is_loaded(tmp_path: Path) -> None:
    """The libraries are hidden by a finder that comes first, as in an environment that never had them."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'transformers' else find(name, *rest)\n"
    )
    (tmp_path / "run").mkdir()
    make_run(tmp_path / "run", backbone="hf:a/b")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    status, events = work(tmp_path / "run", PYTHONPATH=path)
    assert status == 1 and events[-1]["event"] == "failed"
    assert "transformers" in events[-1]["message"] and "gleaner[pretrained]" in events[-1]["hint"]


def test_a_run_with_our_own_weights_loads_none_of_these_libraries() -> None:
    probe = (
        "import sys, gleaner.learn.kinds\n"
        "print(sorted({'transformers', 'timm', 'onnxscript', 'huggingface_hub'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_what_the_hub_refuses_is_told_apart() -> None:
    import httpx
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    name = BackboneName(Library.HUGGING_FACE, "a/b")
    answer = httpx.Response(401, request=httpx.Request("GET", "http://localhost/a/b"))
    assert "HF_TOKEN" in hugging_face.unreachable(name, GatedRepoError("no", response=answer)).hint  # type: ignore[arg-type]
    assert "spelling" in hugging_face.unreachable(name, RepositoryNotFoundError("no", response=answer)).hint  # type: ignore[arg-type]
    assert "network" in hugging_face.unreachable(name, OSError("no route")).hint


def _timm_problem() -> str:
    try:
        import timm  # noqa: F401
    except Exception as error:  # noqa: BLE001 - a torchvision that does not fit raises any kind
        return f"timm cannot be imported here: {type(error).__name__}: {error}"
    return ""


@pytest.mark.skipif(not _timm_problem(), reason="timm can be imported here")
def test_timm_that_cannot_be_loaded_says_so() -> None:
    with pytest.raises(RunProblem, match="cannot be loaded here") as problem:
        timm_models.load(parse_backbone("timm:mobilenetv3_small_100"), False, print)
    assert "gleaner[pretrained]" in problem.value.hint and "hf:" in problem.value.hint


@pytest.mark.skipif(bool(_timm_problem()), reason=_timm_problem() or "-")
def test_a_model_of_timm_gives_a_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are made here and found as timm finds a download; the card's licence is asked for first."""
    import timm

    made = timm.create_model("mobilenetv3_small_050", pretrained=False)
    torch.save(made.state_dict(), tmp_path / "weights.pth")
    asked = timm.models.get_pretrained_cfg("mobilenetv3_small_050")
    monkeypatch.setattr(asked, "file", str(tmp_path / "weights.pth"))
    monkeypatch.setattr("timm.models.get_pretrained_cfg", lambda _: asked)
    monkeypatch.setattr(hugging_face, "card_of", lambda *_: "---\nlicense: apache-2.0\n---\n")
    monkeypatch.setattr(
        "timm.models._builder._resolve_pretrained_source", lambda *_: ("file", str(tmp_path / "weights.pth"))
    )
    start = foreign_start(parse_backbone("timm:mobilenetv3_small_050"), False, SIZES, print)
    assert start.about["license"] == "apache-2.0"
    assert start.trunk().maps(torch.rand(1, 3, 96, 128))[0].shape[2:] == (3, 4)
