"""What the study of every stage reads from elsewhere: people, lists, a model; and a web that outlives a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from idia_core.drawing import draw_face, encode_jpeg, invent_people
from idia_core.names import invent_names
from tests.tiny_models import write_model

STUDY = Path(__file__).parent / "everything.yaml"
PEOPLE, PICTURES = 12, 3
"""Of whom a quarter is audited, and the others are a panel."""


def write_given(folder: Path) -> None:
    """Draw the people, write the lists, and make a model."""
    names = invent_names(PEOPLE, 5)
    for place, person in enumerate(invent_people(PEOPLE, 5, [*"FM"] * (PEOPLE // 2))):
        group = "people" if place % 4 == 0 else "panel"
        own = folder / group / names[place].replace(" ", "_")
        own.mkdir(parents=True)
        for number in range(PICTURES):
            (own / f"{number}.jpg").write_bytes(encode_jpeg(draw_face(person, [5, place, number])))
    drawn = sorted((folder / "people").rglob("*.jpg"))
    rows = [f"{path.parent.name.replace('_', ' ')},a picture,{path}" for path in drawn]
    (folder / "own_pairs.csv").write_text("\n".join(["identity,caption,path", *rows]) + "\n", encoding="utf-8")
    write_model(folder / "model.pt")


def write_lists(folder: Path, site: str) -> None:
    """Lists of the URLs of the same people's pictures, at a site that has the folder's files."""
    (folder / "lists").mkdir()
    for own in sorted((folder / "people").iterdir()):
        urls = [f"{site}/people/{own.name}/{path.name}" for path in sorted(own.iterdir())]
        (folder / f"lists/{own.name}.txt").write_text("\n".join([*urls, f"{site}/gone.jpg"]) + "\n", encoding="utf-8")


def settings(folder: Path, place: str) -> list[str]:
    """The words that tell the study where all of this is; `place` is the site's host and port."""
    fields = {
        "portraits.inputs.lists": f"{folder}/lists",
        "people.inputs.people": f"{folder}/people",
        "panel.inputs.people": f"{folder}/panel",
        "own_pairs.inputs.list": f"{folder}/own_pairs.csv",
        "models.models": f"['idia-rn-tiny:{folder}/model.pt']",
        "world.web.site": f"http://{place}",
        "download.allow_private_addresses": f"['{place}']",
        "portraits.allow_private_addresses": f"['{place}']",
    }
    return [word for field, value in fields.items() for word in ("--set", f"{field}={value}")]


class _Handler(SimpleHTTPRequestHandler):
    """Serves the files of the given folder, and those of the world's web where there are any."""

    folders: tuple[Path, ...] = ()

    def translate_path(self, path: str) -> str:
        """The file in the first folder that has it."""
        for folder in type(self).folders:
            self.directory = str(folder)
            found = super().translate_path(path)
            if Path(found).is_file():
                break
        return found

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def web(*folders: Path) -> Iterator[str]:
    """A site with the files of those folders, there while the block lasts; its host and port."""
    handler = type("Handler", (_Handler,), {"folders": folders})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
