"""The web site that a run serves while a stage fetches from it."""

import socket
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import requests
from upath import UPath

from idia_core.config import Study, load_study
from idia_core.errors import BusyError, ConfigError, MissingInputError
from jobs.plan import State
from jobs.run import run_study
from jobs.site import site
from tests.pipelines.audits import QUIET

pytestmark = pytest.mark.usefixtures("local_ray")
WORLD = {"people": 2, "training_pictures": 0, "attack_pictures": 1, "background_pairs": 4, "caption_rows": 1500}
STATUSES = {"picture": "ok", "gone": "http_error", "page": "not_an_image", "opted_out": "opted_out"}
"""What the ledger says of a URL, by what the server has there."""


@pytest.fixture
def port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def study(out: Path, port: int, **fields: Any) -> Study:
    """A world's web, of which every URL is fetched from the site."""
    web = {"pairs": 6, "link_rot": 0.5, "others": 4, "site": f"http://127.0.0.1:{port}"}
    download = {"inputs": {"candidates": "world.links"}, "allow_private_addresses": [f"127.0.0.1:{port}"]}
    serve = {"table": "world.site", "port": port, "to": ["download"]}
    stages = {"world": {**WORLD, "web": web}, "download": download}
    return Study.model_validate({"name": "test", "out": str(out), "stages": stages, "serve": serve} | fields)


def test_a_file_is_served_by_its_path_and_nothing_else_is(tmp_path: Path) -> None:
    """With its kind; what asks not to be used says so; a path that leads out of the table is not found."""
    for name in ("a b.jpg", "noai/c.jpg", "secret"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    files = {name: UPath(tmp_path / name) for name in ("a b.jpg", "noai/c.jpg")}
    with site(files, 0) as port:
        plain = requests.get(f"http://127.0.0.1:{port}/a%20b.jpg?x=1", timeout=10)
        assert (plain.status_code, plain.content, plain.headers["Content-Type"]) == (200, b"a b.jpg", "image/jpeg")
        assert "X-Robots-Tag" not in plain.headers
        assert requests.get(f"http://127.0.0.1:{port}/noai/c.jpg", timeout=10).headers["X-Robots-Tag"] == "noai"
        for path in ("secret", "noai/../secret", "..%2Fsecret", ""):
            assert requests.get(f"http://127.0.0.1:{port}/{path}", timeout=10).status_code == 404
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/a%20b.jpg", timeout=10)


def test_the_ledger_says_what_the_site_did(tmp_path: Path, port: int) -> None:
    """URL by URL; and the port is free again."""
    run_study(study(tmp_path / "out", port), QUIET)
    links = pl.read_parquet(tmp_path / "out/world/links/*.parquet").unique("url")
    ledger = pl.read_parquet(tmp_path / "out/download/ledger/*.parquet")
    both = links.join(ledger, on="url", how="full", coalesce=True)
    assert both["status"].to_list() == [STATUSES[answer] for answer in both["answers"]]
    assert dict(both["answers"].value_counts().rows()) == {"picture": 20, "gone": 2, "page": 2, "opted_out": 2}
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_port_that_is_taken_is_told_when_it_is_needed_and_not_before(tmp_path: Path, port: int) -> None:
    """Stages that fetch nothing run; one that is done is not served to."""
    with socket.create_server(("127.0.0.1", port)):
        run_study(study(tmp_path / "out", port), QUIET, ["world"])
        with pytest.raises(BusyError, match=rf"no web site can be at port {port}.*serve\.port.*127\.0\.0\.1:{port}"):
            run_study(study(tmp_path / "out", port), QUIET)
    run_study(study(tmp_path / "out", port), QUIET)
    with socket.create_server(("127.0.0.1", port)):
        assert run_study(study(tmp_path / "out", port), QUIET)["download"].state is State.DONE


def test_a_site_that_is_not_made_yet_is_told(tmp_path: Path, port: int) -> None:
    """The stage that makes it must have run."""
    urls = tmp_path / "urls.csv"
    urls.write_text("url\nhttp://127.0.0.1:1/a.jpg\n", encoding="utf-8")
    apart = study(tmp_path / "out", port)
    fields = apart.stages["download"] | {"inputs": {"candidates": str(urls)}}
    apart = apart.model_copy(update={"stages": apart.stages | {"download": fields}})
    with pytest.raises(MissingInputError, match="stage 'world' is not done"):
        run_study(apart, QUIET, ["download"])


@pytest.mark.parametrize(
    ("serve", "message"),
    [
        ({"table": "wrld.site"}, "the study has no stage 'wrld' (study test, serve). Did you mean 'world'?"),
        ({"table": "world.sites"}, "stage 'world' has no table 'sites' (study test, serve). Did you mean 'site'?"),
        ({"to": ["downlod"]}, "the study has no stage 'downlod' (study test, serve). Did you mean 'download'?"),
        ({"to": ["world"]}, "'world' does not come after 'world', which makes what is served"),
    ],
)
def test_what_cannot_be_served_is_told(tmp_path: Path, serve: dict[str, Any], message: str) -> None:
    """In one line, before anything runs."""
    given = {"table": "world.site", "port": 1, "to": ["download"]} | serve
    with pytest.raises(ConfigError) as caught:
        run_study(study(tmp_path / "out", 1, serve=given), QUIET)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_port_can_be_set_from_the_command_line(tmp_path: Path) -> None:
    """As a field of a stage."""
    path = UPath(tmp_path / "study.yaml")
    path.write_text("name: s\nout: o\nstages: {}\nserve: {table: a.b, port: 1, to: [c]}\n", encoding="utf-8")
    served = load_study(path, ["serve.port=4321"]).serve
    assert served is not None
    assert served.port == 4321
    with pytest.raises(ConfigError, match=r"field 'serve\.port'"):
        load_study(path, ["serve.port=0"])
