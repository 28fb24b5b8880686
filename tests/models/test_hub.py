"""Published weights, fetched by the hubs' own clients from a hub on this computer: dropped, busy, closed, wrong."""

import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

import huggingface_hub
import pytest
import safetensors.torch
import torch

from relish.core.errors import DownloadFailed, ModelError, WriteFailed
from relish.models import hub
from relish.models.registry import imagenet_labels, parse_name
from relish.models.source import load_source
from relish.tasks import sources
from relish.training.linear_probe import cross_validate
from tests.commands import done, refused
from tests.conftest import SQUARE, Heard, draw_dataset, same_tensors
from tests.hub_mirror import Mirror, answers, drops_after, point_hub_at, running_mirror

FAMILIES = ("resnet", "vit", "convnext", "efficientnet", "byobnet")
"""timm's smallest published network of each: a megabyte or two."""
TOKEN = "hf_" + "s3cret" * 5


def at_hub(family: str) -> str:
    """The repository of a family's network."""
    return f"timm/test_{family}.r160_in1k"


def tensors_of(family: str) -> dict[str, torch.Tensor]:
    return load_source(f"timm/test_{family}", "none", seed=6).network.state_dict()


@pytest.fixture(scope="module")
def published() -> dict[str, bytes]:
    """The files of all families, with random weights, by repository."""
    return {at_hub(family): safetensors.torch.save(tensors_of(family)) for family in FAMILIES}


@pytest.fixture
def mirror(published, tmp_path, monkeypatch) -> Iterator[Mirror]:
    """A hub that has these, in place of huggingface.co, for a user without a token."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", *(f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL", "NO"))):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()  # it keeps the proxies that it began with
    with running_mirror() as server:
        server.files.update(published)
        point_hub_at(server.address, monkeypatch)
        yield server
    huggingface_hub.close_session()


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """The seconds that were waited, none of which passes."""
    asked: list[float] = []
    monkeypatch.setattr(time, "sleep", asked.append)
    return asked


def refusal(source: str, kind: type[Exception] = DownloadFailed) -> str:
    """The words in which fetching a source ends: what and where, then what to do."""
    with pytest.raises(kind) as caught:
        load_source(source)
    words = str(caught.value)
    assert words.startswith(source) or kind is WriteFailed
    assert 2 <= len(words.splitlines()) <= 3
    return words


# ---- timm -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_come_from_the_hub_once(mirror, family):
    source = load_source(f"timm/test_{family}")
    assert same_tensors(source.network.state_dict(), tensors_of(family))
    assert source.sha256 == hashlib.sha256(mirror.files[at_hub(family)]).hexdigest()
    assert "r160_in1k" in source.origin
    assert source.labels == imagenet_labels()
    assert source.data_config.origin["mean"] == "weights"
    before = len(mirror.asked)
    assert load_source(f"timm/test_{family}").sha256 == source.sha256
    assert len(mirror.asked) == before


def test_a_download_that_is_cut_goes_on_where_it_was(mirror, waits, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    repo = at_hub("vit")
    mirror.troubles["GET", repo] = [drops_after(50_000), drops_after(25_000)]
    assert same_tensors(load_source("timm/test_vit").network.state_dict(), tensors_of("vit"))
    assert [headers.get("Range") for headers in mirror.requests_for(repo)] == [None, "bytes=50000-", "bytes=70000-"]
    assert waits


def test_a_download_whose_connection_breaks_is_done_again(mirror, waits):
    mirror.troubles["GET", at_hub("resnet")] = [drops_after(50_000, reset=True)] * 2
    assert same_tensors(load_source("timm/test_resnet").network.state_dict(), tensors_of("resnet"))
    assert waits


def test_a_hub_that_is_busy_is_asked_again(mirror, waits):
    repo = at_hub("convnext")
    mirror.troubles["HEAD", repo] = [answers(503), answers(429, Retry_After="7"), answers(429, Retry_After="7")]
    mirror.troubles["GET", repo] = [answers(429, Retry_After="20"), answers(503), answers(500)]
    assert same_tensors(load_source("timm/test_convnext").network.state_dict(), tensors_of("convnext"))
    assert max(waits) >= 20  # as long as it was asked to


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_stays_busy_is_told_within_half_a_minute(mirror, waits, method, status):
    mirror.troubles[method, at_hub("vit")] = [answers(status)] * 50
    assert re.search(rf"\(the hub answered {status} .*\)\.\n  Try again later", refusal("timm/test_vit"))
    assert 1 < sum(waits) < 30


def test_a_hub_that_cannot_be_reached_is_told_soon(mirror, monkeypatch):
    """Its client, which tries for half a minute, is not even asked, and nobody waits to try again."""
    point_hub_at("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("asked"))
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits for {seconds} s"))
    with pytest.raises(DownloadFailed, match=r"refused.*\n.*--source embedded.*--weights FILE.*--weights none"):
        load_source("timm/test_vit")


@pytest.mark.parametrize("source", ["timm/test_vit", "torchvision/squeezenet1_1"])
def test_offline_nothing_is_asked_for(mirror, monkeypatch, source):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "not on this machine, and HF_HUB_OFFLINE is set" in refusal(source)
    assert mirror.asked == []


@pytest.mark.parametrize("where", ["HF_TOKEN", "file"])
def test_a_token_opens_gated_weights_and_is_sent_to_the_hub_alone(mirror, where, monkeypatch, tmp_path):
    repo = at_hub("vit")
    mirror.gated[repo] = TOKEN
    if where == "file":
        (tmp_path / "token").write_text(TOKEN)  # as `hf auth login` does
    else:
        monkeypatch.setenv(where, TOKEN)
    heard = Heard()
    assert load_source("timm/test_vit", progress=heard).sha256 == hashlib.sha256(mirror.files[repo]).hexdigest()
    assert all(headers["Authorization"] == f"Bearer {TOKEN}" for headers in mirror.requests_for("safetensors", "HEAD"))
    assert not any("Authorization" in headers for headers in mirror.requests_for(repo))
    assert not any(TOKEN in line for line in heard.lines + heard.warnings)


@pytest.mark.parametrize(
    ("token", "trouble", "words"),
    [
        (None, [], "401 Unauthorized): it needs a token, and none is set."),
        ("hf_other", [], "403 Forbidden): the token that is set has no access."),
        (TOKEN, [answers(401)], "401 Unauthorized): the token that is set is not valid."),
    ],
)
def test_gated_weights_are_told_with_how_to_get_at_them(mirror, token, trouble, words, monkeypatch):
    mirror.gated[at_hub("vit")] = TOKEN
    mirror.troubles["HEAD", at_hub("vit")] = trouble
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    told = refusal("timm/test_vit")
    assert words in told
    assert f"Ask for access at {mirror.address}/{at_hub('vit')}; then hf auth login, or set HF_TOKEN." in told
    assert not token or token not in told


def test_a_token_that_cannot_be_sent_is_not_shown(mirror, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\0{TOKEN}")
    assert "s3cret" not in refusal("timm/test_vit")


def test_a_file_that_the_hub_lacks_is_told(mirror):
    del mirror.files[at_hub("vit")]
    assert "(the hub answered 404 Not Found): there is no model.safetensors" in refusal("timm/test_vit")


def test_another_file_than_the_hub_promised_is_refused_and_not_kept(mirror):
    right = mirror.files[at_hub("vit")]
    mirror.sent[at_hub("vit")] = right[:-1] + bytes([right[-1] ^ 1])
    for _ in range(2):
        assert "sent another file: its SHA-256 starts" in refusal("timm/test_vit")
    mirror.sent.clear()
    assert load_source("timm/test_vit").sha256 == hashlib.sha256(right).hexdigest()


def test_weights_of_another_network_are_refused(mirror):
    mirror.files[at_hub("vit")] = safetensors.torch.save({"a": torch.zeros(1)})
    with pytest.raises(ModelError, match=r"does not hold the weights of timm/test_vit"):
        load_source("timm/test_vit")


def test_a_file_larger_than_the_free_space_is_not_begun(mirror, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    assert "are to come, and 1 bytes are free there.\n  Free some space, or set RELISH_HOME" in refusal(
        "timm/test_vit", WriteFailed
    )
    assert mirror.requests_for(at_hub("vit")) == []


def test_a_disk_that_fills_up_is_told(mirror, tmp_path, waits):
    """A limit on the size of files stands for the disk: writing fails in the middle, as it would there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        told = refusal("timm/test_vit", WriteFailed)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "weights/timm: cannot write (" in told
    assert "Free some space, or set RELISH_HOME to a folder on another disk" in told
    assert waits == []
    assert load_source("timm/test_vit").sha256 == hashlib.sha256(mirror.files[at_hub("vit")]).hexdigest()


def test_the_proxy_that_the_environment_names_is_asked(mirror, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", mirror.address)
    point_hub_at("http://hub.invalid", monkeypatch)
    mirror.elsewhere = "http://elsewhere.invalid"
    assert load_source("timm/test_vit").sha256 == hashlib.sha256(mirror.files[at_hub("vit")]).hexdigest()
    assert [path.split("/")[2] for _, path, _ in mirror.asked][-1] == "elsewhere.invalid"


@pytest.mark.parametrize(
    "proxy", ["http://me:s3cret@127.0.0.1:9", "nonsense://me:s3cret@proxy:1"], ids=["away", "of no kind"]
)
@pytest.mark.parametrize("source", ["timm/test_vit", "torchvision/squeezenet1_1"])
def test_a_proxy_that_cannot_be_used_is_named(mirror, source, proxy, monkeypatch):
    monkeypatch.setattr("relish.data.download.FIRST_PAUSE", 0.0)
    monkeypatch.setenv("ALL_PROXY", proxy)
    point_hub_at("http://hub.invalid", monkeypatch)
    told = refusal(source)
    assert "Is ALL_PROXY, the proxy that was asked, right?" in told
    assert "s3cret" not in told


@pytest.mark.parametrize("trouble", [answers(403), answers(404), answers(407)])
def test_a_command_ends_in_a_few_words(mirror, tmp_path, trouble):
    mirror.troubles["HEAD", at_hub("vit")] = [trouble]
    pictures = draw_dataset(tmp_path / "pictures", train=2, test=1)
    words = refused("fit", pictures, "--source=timm/test_vit", f"--out={tmp_path / 'run'}", code=1)
    assert words.startswith("timm/test_vit: its weights cannot be fetched from")


def test_sources_names_each_that_cannot_be_fetched_and_goes_on_with_the_others(mirror, waits, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LASTING", 0.0)
    monkeypatch.setattr(sources, "cross_validate", partial(cross_validate, strengths=(0.1,)))
    mirror.gated[at_hub("vit")] = TOKEN
    mirror.sent[at_hub("convnext")] = mirror.files[at_hub("convnext")][::-1]
    mirror.troubles["GET", at_hub("resnet")] = [answers(503), drops_after(9_000)]
    mirror.troubles["GET", at_hub("byobnet")] = [answers(500)] * 50
    del mirror.files[at_hub("efficientnet")]
    pictures = draw_dataset(tmp_path / "pictures", train=4, test=1, size=SQUARE)
    named = ",".join(f"timm/test_{family}" for family in ("vit", "convnext", "byobnet", "resnet", "efficientnet"))
    options = [f"--candidates={named}", "--yes", "--json", "--image-size=32", "--group-by=none"]
    found = json.loads(done("sources", pictures, f"--runs={tmp_path / 'runs'}", *options).out)
    assert [row["name"] for row in found["sources"]] == ["timm/test_resnet"]
    reasons = {row["name"].removeprefix("timm/test_"): row["reason"] for row in found["omitted"]}
    assert list(reasons) == ["vit", "convnext", "byobnet", "efficientnet"]
    told = {"vit": "needs a token", "convnext": "another file", "byobnet": "500 Internal", "efficientnet": "404 Not"}
    assert all(words in reasons[family] for family, words in told.items())


@pytest.mark.slow
@pytest.mark.parametrize("where", ["HF_TOKEN", "file"])
def test_fit_takes_gated_weights_from_the_hub_that_the_environment_names(mirror, tmp_path, where):
    """The whole way, in a process of its own: HF_ENDPOINT, and a token in its usual places, which is never printed."""
    mirror.gated[at_hub("vit")] = TOKEN
    env = {**os.environ, "HF_ENDPOINT": mirror.address, "HF_HOME": str(tmp_path / "hf")}
    if where == "file":
        (tmp_path / "hf").mkdir()
        (tmp_path / "hf" / "token").write_text(TOKEN)
    else:
        env[where] = TOKEN
    pictures = draw_dataset(tmp_path / "pictures", train=4, test=2)
    words = ["fit", pictures, "--source=timm/test_vit", "--recipe=probe", f"--out={tmp_path / 'runs' / 'one'}"]
    ended = subprocess.run(
        [sys.executable, "-m", "relish", *map(str, words)], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "timm's weights r160_in1k" in ended.stderr
    assert TOKEN not in ended.stdout + ended.stderr
    assert not any(TOKEN.encode() in path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file())


# ---- torchvision ----------------------------------------------------------------------------------------------------

NETWORK = "torchvision/squeezenet1_1"


@pytest.fixture
def file(mirror, monkeypatch, tmp_path) -> str:
    """The path of a file of SqueezeNet weights, under its name with a hash, in place of torchvision's."""
    monkeypatch.setattr("relish.data.download.FIRST_PAUSE", 0.0)
    torch.save(load_source(NETWORK, "none", seed=5).network.state_dict(), tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    path = f"/models/squeezenet1_1-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    mirror.files[path] = content
    monkeypatch.setattr(hub._torchvision_weights(parse_name(NETWORK)).value, "url", mirror.address + path)
    return path


def test_torchvisions_weights_are_fetched_hashed_kept_and_told(mirror, file):
    tensors = load_source(NETWORK, "none", seed=5).network.state_dict()
    mirror.troubles["GET", file] = [answers(503), answers(429), drops_after(100_000), drops_after(50_000, reset=True)]
    source = load_source("squeezenet1_1")
    assert same_tensors(source.network.state_dict(), tensors)
    assert (source.sha256, source.name) == (hashlib.sha256(mirror.files[file]).hexdigest(), NETWORK)
    assert mirror.requests_for(file)[3]["Range"] == "bytes=100000-"
    assert "IMAGENET1K_V1" in source.origin
    assert source.sha256[:12] in source.origin
    assert source.labels == imagenet_labels()
    mirror.files.clear()
    assert same_tensors(load_source(NETWORK).network.state_dict(), tensors)  # from the cache


@pytest.mark.parametrize("right", [True, False])
def test_weights_that_torch_hub_has_fetched_are_used_where_their_hash_is_right(mirror, file, right, tmp_path):
    content = mirror.files[file]
    place = tmp_path / "torch" / "hub" / "checkpoints" / file.rsplit("/", 1)[-1]
    place.parent.mkdir(parents=True)
    place.write_bytes(content if right else content[:-1])
    assert hub.kept_file(parse_name(NETWORK)) == (place if right else None)
    assert load_source(NETWORK).sha256 == hashlib.sha256(content).hexdigest()
    assert len(mirror.asked) == (0 if right else 1)


def test_weights_that_do_not_have_the_hash_in_their_name_are_refused_and_not_kept(mirror, file):
    mirror.sent[file] = mirror.files[file][::-1]
    for _ in range(2):
        assert "sent another file" in refusal(NETWORK)


def test_a_hub_that_lacks_the_file_is_told_with_what_to_type_instead(mirror, file):
    del mirror.files[file]
    with pytest.raises(DownloadFailed, match=r"404.*\n(.*\n)*.*--source embedded.*--weights FILE.*--weights none"):
        load_source(NETWORK)
